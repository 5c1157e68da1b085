"""Reads shards front to back, without torch: for evaluation, calibration and inspection."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

from pathclip.errors import DataError
from pathclip.shards import storage
from pathclip.shards.writer import MANIFEST, SIZES, Manifest, Sample

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "tif", "tiff", "gif")
MAX_MEMBER_BYTES = 256 * 1024 * 1024


def shard_sizes(folder: Path | str) -> dict[str, int]:
    """Number of samples of each shard of a folder, by file name in order.

    Args:
        folder: path, or address in an object store.

    Raises:
        DataError: no folder, no shards, or `sizes.json` and the tars disagree.
    """
    remote = storage.is_address(folder)
    if not remote and not Path(folder).is_dir():
        raise DataError(f"{folder}: no such folder of shards")
    there = storage.list_names(str(folder)) if remote else None
    file = storage.join(folder, SIZES)
    content = storage.read_json_bytes(file)
    if content is None:
        raise DataError(
            f"{folder}: no {SIZES} in it, so it is no folder of shards.{_hint(folder)}"
            " `pathclip curate` makes shards of pictures with texts."
        )
    try:
        sizes = {str(name): int(count) for name, count in json.loads(content).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{file}: not a mapping of shard to count ({error})") from None
    for name in sizes:
        if Path(name).name != name:
            raise DataError(f"{file}: '{name}' is no file name")
        if not (name in there if there is not None else (Path(folder) / name).is_file()):
            raise DataError(f"{storage.join(folder, name)}: listed in {SIZES} but missing")
    return dict(sorted(sizes.items()))


def read_manifest(folder: Path | str) -> Manifest:
    """Reads the manifest beside the shards.

    Args:
        folder: path, or address in an object store; of an address, the manifest's `folder` is only a name.

    Raises:
        DataError: missing or malformed.
    """
    sizes = shard_sizes(folder)
    file = storage.join(folder, MANIFEST)
    text = storage.read_json_bytes(file)
    if text is None:
        raise DataError(f"{file}: missing; it is written beside the shards by `pathclip curate`")
    try:
        content = json.loads(text)
        hashes = {name: str(entry["sha256"]) for name, entry in content["shards"].items()}
        config_hash = str(content.get("config_hash", ""))
        return Manifest(Path(folder), sum(sizes.values()), sizes, hashes, config_hash)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: malformed manifest ({error})") from None


def data_hash(folder: Path | str) -> str | None:
    """SHA-256 that names the data of a folder of shards; None where shards made elsewhere have no manifest.

    Raises:
        DataError: the manifest is malformed.
    """
    if storage.read_json_bytes(storage.join(folder, MANIFEST)) is None:
        return None
    return read_manifest(folder).hash


def read_samples(folder: Path | str, limit: int | None = None) -> Iterator[Sample]:
    """Yields the samples of a folder of shards in their order.

    Args:
        folder: with `sizes.json` and tars; path, or address in an object store.
        limit: at most this many.

    Raises:
        DataError: a shard is malformed or cut off; the message names it.
    """
    left = float("inf") if limit is None else limit
    for name in shard_sizes(folder):
        for sample in read_shard(storage.join(folder, name)):
            if left <= 0:
                return
            left -= 1
            yield sample


def read_shard(path: Path | str) -> Iterator[Sample]:
    """Yields the samples of one tar; see `read_samples`."""
    parts: dict[str, bytes] = {}
    key = ""
    try:
        with storage.open_for_scan(str(path)) as (file, _), tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                if member.size > MAX_MEMBER_BYTES:
                    raise DataError(f"{path}: member '{member.name}' is larger than 256 MiB")
                stem, _, suffix = Path(member.name).name.partition(".")
                if stem != key and parts:
                    yield _sample(path, key, parts)
                    parts = {}
                key = stem
                content = tar.extractfile(member)
                parts[suffix.lower()] = content.read() if content else b""
        if parts:
            yield _sample(path, key, parts)
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{path}: not a readable tar ({error}); write the shards again") from None


def _sample(path: Path | str, key: str, parts: dict[str, bytes]) -> Sample:
    suffix = next((name for name in IMAGE_SUFFIXES if name in parts), None)
    if suffix is None or "txt" not in parts:
        raise DataError(f"{path}: sample '{key}' needs an image and a .txt; it has {sorted(parts)}")
    try:
        meta = json.loads(parts["json"]) if "json" in parts else {}
        if not isinstance(meta, dict):
            raise ValueError("its JSON is not an object")
        return Sample(key, parts[suffix], parts["txt"].decode("utf-8"), meta)
    except ValueError as error:
        raise DataError(f"{path}: sample '{key}': {error}") from None


def _hint(folder: Path | str) -> str:
    """The folders within that hold shards, for somebody who named the one above."""
    if storage.is_address(folder):
        within = [storage.join(folder, name) for name in sorted(storage.list_names(str(folder)))[:10]]
        inner = [name for name in within if storage.read_json_bytes(storage.join(name, SIZES)) is not None]
    else:
        inner = [str(path.parent) for path in sorted(Path(folder).glob(f"*/{SIZES}"))]
    return f" Did you mean {' or '.join(inner[:3])}?" if inner else ""
