"""Writes WebDataset shards: the same samples give the same bytes, and no half-written shard is visible."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pathclip import atomic
from pathclip.errors import DataError

SCHEMA_VERSION = 1
SIZES = "sizes.json"
MANIFEST = "manifest.json"
_KEY = re.compile(r"[A-Za-z0-9_\-]{1,200}")


@dataclass(frozen=True, slots=True)
class Sample:
    """One training sample as it lies in a shard.

    Attributes:
        key: letters, digits, '_' and '-'; unique in the data set; the name of its files in the tar.
        image: the encoded image, byte for byte as found.
        text: caption.
        meta: a `Pair` as a mapping, with 'width', 'height' and 'phash' where known.
    """

    key: str
    image: bytes
    text: str
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder of shards holds: `sizes` (shard → samples), `sha256` (shard → hash), the sum."""

    folder: Path
    samples: int
    sizes: Mapping[str, int]
    sha256: Mapping[str, str]
    config_hash: str = ""

    @property
    def hash(self) -> str:
        """SHA-256 over the shards' hashes: names the data."""
        lines = "\n".join(f"{name} {digest}" for name, digest in sorted(self.sha256.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def write_shards(
    folder: Path | str, samples: Iterable[Sample], samples_per_shard: int = 500, config_hash: str = ""
) -> Manifest:
    """Writes samples, in their order, as `000000.tar`, `000001.tar` … with sizes and a manifest.

    Shards of an earlier run with more shards are removed, after the manifest no longer names them.

    Args:
        folder: created if needed.
        samples: in the order in which they shall lie; only one shard is held in memory.
        samples_per_shard: at least 1.
        config_hash: of the config that produced them, recorded in the manifest.

    Raises:
        DataError: a key that cannot be a file name, or that occurs twice.
    """
    if samples_per_shard < 1:
        raise DataError(f"samples_per_shard is {samples_per_shard}; it must be at least 1")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sizes: dict[str, int] = {}
    hashes: dict[str, str] = {}
    seen: set[str] = set()
    for number, chunk in enumerate(_chunks(samples, samples_per_shard)):
        for sample in chunk:
            if not _KEY.fullmatch(sample.key):
                raise DataError(f"sample key {sample.key!r}: only letters, digits, '_' and '-', at most 200")
            if sample.key in seen:
                raise DataError(f"sample key {sample.key!r} occurs twice")
            seen.add(sample.key)
        name = f"{number:06d}.tar"
        content = _tar(chunk)
        atomic.write_bytes(folder / name, content)
        sizes[name] = len(chunk)
        hashes[name] = hashlib.sha256(content).hexdigest()
    manifest = Manifest(folder, sum(sizes.values()), sizes, hashes, config_hash)
    atomic.write_json(folder / SIZES, sizes)
    atomic.write_json(
        folder / MANIFEST,
        {
            "schema_version": SCHEMA_VERSION,
            "samples": manifest.samples,
            "shards": {name: {"samples": sizes[name], "sha256": hashes[name]} for name in sizes},
            "config_hash": config_hash,
        },
    )
    for stale in folder.glob("[0-9]*.tar"):
        if stale.name not in sizes:
            stale.unlink()
    return manifest


def replace_shards(staged: Mapping[Path, Path]) -> None:
    """Moves shards to where earlier ones may lie, so that no kill leaves a mixture that looks whole.

    The earlier `sizes.json` of every folder goes before the first move and the new ones come last: a folder
    whose shards are not all there is one that readers refuse. Files that are no shards stay.

    Args:
        staged: folder that `write_shards` wrote → folder to move its files to, on the same file system.
    """
    for target in staged.values():
        for name in (SIZES, MANIFEST):
            (target / name).unlink(missing_ok=True)
    for source, target in staged.items():
        target.mkdir(parents=True, exist_ok=True)
        for earlier in target.glob("[0-9]*.tar"):
            earlier.unlink()
        for shard in sorted(source.glob("[0-9]*.tar")):
            shard.replace(target / shard.name)
        (source / MANIFEST).replace(target / MANIFEST)
    for source, target in staged.items():
        (source / SIZES).replace(target / SIZES)


def _chunks(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    chunk: list[Sample] = []
    for sample in samples:
        chunk.append(sample)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _tar(samples: list[Sample]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            meta = json.dumps(dict(sample.meta), sort_keys=True, ensure_ascii=False)
            _add(tar, f"{sample.key}.{image_suffix(sample.image)}", sample.image)
            _add(tar, f"{sample.key}.json", meta.encode())
            _add(tar, f"{sample.key}.txt", sample.text.encode())
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # owner, mode and time are constant, so that bytes repeat
    info.size = len(content)
    info.mode = 0o644
    tar.addfile(info, io.BytesIO(content))


def image_suffix(image: bytes) -> str:
    """File ending by the image's first bytes: 'jpg', 'png', 'webp', 'tif' or 'gif'.

    Raises:
        DataError: none of these.
    """
    if image[:3] == b"\xff\xd8\xff":
        return "jpg"
    if image[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "webp"
    if image[:4] in (b"II*\0", b"MM\0*"):
        return "tif"
    if image[:4] == b"GIF8":
        return "gif"
    raise DataError("not a JPEG, PNG, WebP, TIFF or GIF image")
