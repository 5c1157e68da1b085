"""Reads shards front to back, without torch: for evaluation, calibration and inspection."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

from pathclip.errors import DataError
from pathclip.shards.writer import MANIFEST, SIZES, Manifest, Sample

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "tif", "tiff", "gif")
MAX_MEMBER_BYTES = 256 * 1024 * 1024


def shard_sizes(folder: Path | str) -> dict[str, int]:
    """Number of samples of each shard of a folder, by file name in order.

    Raises:
        DataError: no folder, no shards, or `sizes.json` and the tars disagree.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of shards")
    file = folder / SIZES
    if not file.is_file():
        inner = sorted(p.parent for p in folder.glob(f"*/{SIZES}"))
        hint = f" Did you mean {' or '.join(map(str, inner[:3]))}?" if inner else ""
        raise DataError(f"{folder}: no {SIZES} in it, so it is no folder of shards.{hint}")
    try:
        sizes = json.loads(file.read_text(encoding="utf-8"))
        sizes = {str(name): int(count) for name, count in sizes.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{file}: not a mapping of shard to count ({error})") from None
    for name in sizes:
        if Path(name).name != name:
            raise DataError(f"{file}: '{name}' is no file name")
        if not (folder / name).is_file():
            raise DataError(f"{folder / name}: listed in {SIZES} but missing")
    return dict(sorted(sizes.items()))


def read_manifest(folder: Path | str) -> Manifest:
    """Reads the manifest beside the shards.

    Raises:
        DataError: missing or malformed.
    """
    folder = Path(folder)
    sizes = shard_sizes(folder)
    file = folder / MANIFEST
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        hashes = {name: str(entry["sha256"]) for name, entry in content["shards"].items()}
        return Manifest(folder, sum(sizes.values()), sizes, hashes, str(content.get("config_hash", "")))
    except FileNotFoundError:
        raise DataError(f"{file}: missing; it is written beside the shards by `pathclip curate`") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: malformed manifest ({error})") from None


def read_samples(folder: Path | str, limit: int | None = None) -> Iterator[Sample]:
    """Yields the samples of a folder of shards in their order.

    Args:
        folder: with `sizes.json` and tars.
        limit: at most this many.

    Raises:
        DataError: a shard is malformed or cut off; the message names it.
    """
    folder = Path(folder)
    left = float("inf") if limit is None else limit
    for name in shard_sizes(folder):
        for sample in read_shard(folder / name):
            if left <= 0:
                return
            left -= 1
            yield sample


def read_shard(path: Path) -> Iterator[Sample]:
    """Yields the samples of one tar; see `read_samples`."""
    parts: dict[str, bytes] = {}
    key = ""
    try:
        with tarfile.open(path, mode="r:") as tar:
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
                file = tar.extractfile(member)
                parts[suffix.lower()] = file.read() if file else b""
        if parts:
            yield _sample(path, key, parts)
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{path}: not a readable tar ({error}); write the shards again") from None


def _sample(path: Path, key: str, parts: dict[str, bytes]) -> Sample:
    suffix = next((name for name in IMAGE_SUFFIXES if name in parts), None)
    if suffix is None or "txt" not in parts:
        raise DataError(f"{path}: sample '{key}' needs an image and a .txt; it has {sorted(parts)}")
    try:
        meta = json.loads(parts["json"]) if "json" in parts else {}
        return Sample(key, parts[suffix], parts["txt"].decode("utf-8"), meta)
    except ValueError as error:
        raise DataError(f"{path}: sample '{key}': {error}") from None
