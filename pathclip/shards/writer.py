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
# A name in a tar of this format has 100 bytes, ending included.
_KEY = re.compile(r"[A-Za-z0-9_\-]{1,90}")


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
            if sample.key in seen:
                raise DataError(f"sample key {sample.key!r} occurs twice")
            seen.add(sample.key)
        name = shard_name(number)
        hashes[name] = write_shard(folder / name, chunk)
        sizes[name] = len(chunk)
    manifest = write_manifest(folder, sizes, hashes, config_hash)
    for stale in folder.glob("[0-9]*.tar"):
        if stale.name not in sizes:
            stale.unlink()
    return manifest


def shard_name(number: int) -> str:
    """File name of a shard: `000000.tar` for 0."""
    return f"{number:06d}.tar"


def write_shard(path: Path, samples: Iterable[Sample]) -> str:
    """Writes one shard, whole or not at all, and returns its SHA-256 in hex; holds one sample at a time.

    Raises:
        DataError: a key that cannot be a file name.
    """
    with atomic.staged_file(path) as staged:
        with tarfile.open(staged, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for sample in samples:
                if not _KEY.fullmatch(sample.key):
                    raise DataError(
                        f"sample key {sample.key!r}: only letters, digits, '_' and '-', at most 90 letters"
                    )
                meta = json.dumps(dict(sample.meta), sort_keys=True, ensure_ascii=False)
                _add(tar, f"{sample.key}.{image_suffix(sample.image)}", sample.image)
                _add(tar, f"{sample.key}.json", meta.encode())
                _add(tar, f"{sample.key}.txt", sample.text.encode())
        digest = atomic.sha256_file(staged)
    return digest


def write_manifest(
    folder: Path, sizes: Mapping[str, int], sha256: Mapping[str, str], config_hash: str = ""
) -> Manifest:
    """Writes what makes shards readable, `sizes.json` last: before it is there, readers refuse the folder.

    Args:
        folder: of the shards.
        sizes: shard → samples.
        sha256: shard → hash.
        config_hash: of the config that produced them.
    """
    atomic.write_json(
        folder / MANIFEST,
        {
            "schema_version": SCHEMA_VERSION,
            "samples": sum(sizes.values()),
            "shards": {name: {"samples": sizes[name], "sha256": sha256[name]} for name in sizes},
            "config_hash": config_hash,
        },
    )
    atomic.write_json(folder / SIZES, dict(sizes))
    return Manifest(folder, sum(sizes.values()), dict(sizes), dict(sha256), config_hash)


def replace_shards(staged: Mapping[Path, Manifest]) -> None:
    """Moves shards to where earlier ones may lie, so that no kill leaves a mixture that looks whole.

    The earlier `sizes.json` of every folder goes before the first move and the new ones come last: a folder
    whose shards are not all there is one that readers refuse. May be killed and called again at any moment.
    Files that are no shards stay.

    Args:
        staged: folder of new shards → what `manifest.folder` shall then hold; what is not staged is there.
    """
    for manifest in staged.values():
        for name in (SIZES, MANIFEST):
            (manifest.folder / name).unlink(missing_ok=True)
    for source, manifest in staged.items():
        manifest.folder.mkdir(parents=True, exist_ok=True)
        for earlier in manifest.folder.glob("[0-9]*.tar"):
            if earlier.name not in manifest.sizes:
                earlier.unlink()
        for shard in sorted(source.glob("[0-9]*.tar")):
            shard.replace(manifest.folder / shard.name)
    for manifest in staged.values():
        write_manifest(manifest.folder, manifest.sizes, manifest.sha256, manifest.config_hash)


def _chunks(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    chunk: list[Sample] = []
    for sample in samples:
        chunk.append(sample)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


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
