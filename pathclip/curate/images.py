"""Looks at one picture: can it be read, is it large enough, does it show tissue, what is its hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

import imagehash
from PIL import Image

from pathclip.curate.pathology import appearance
from pathclip.errors import ConfigError, DataError
from pathclip.runtime.images import FORMATS, open_image
from pathclip.shards.writer import image_suffix
from pathclip.types import Media

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif")
# Chosen on real patches and slide overviews, drawings and photographs; see `conf/curate.yaml`.
ENOUGH = {"foreign": 0.7, "neutral": 2.2, "flat": 1.4, "white": 1.05, "layout": 0.07}
HASH_SIDE = 8  # 64 bits: imagehash's own default for pHash
_TURNS = (
    None,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
)


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """Thresholds of the rules on pictures.

    Attributes:
        min_side: fewest pixels of the shorter side.
        max_pixels: larger pictures are not decoded.
        max_bytes: larger files are not read.
        pathology: ask whether the picture shows stained tissue.
        enough: measure of `Appearance` → value that would by itself tell that a picture shows none. The
            shares of these values add up: half of one and half of another are enough too.
        max_background: more empty ground than this leaves nothing to see.
    """

    min_side: int = 96
    max_pixels: int = 80_000_000
    max_bytes: int = 64 * 1024 * 1024
    pathology: bool = True
    enough: Mapping[str, float] = field(default_factory=lambda: dict(ENOUGH))
    max_background: float = 0.995

    def __post_init__(self) -> None:
        for name, value in self.enough.items():
            if name not in ENOUGH or value <= 0:
                raise ConfigError(f"images.enough.{name}: positive values of {', '.join(ENOUGH)} are known")


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of a picture once looked at.

    Attributes:
        path: the file, None if there is none.
        reason: of the first rule that it breaks, '' if it may stay.
        detail: what the rule saw.
        sha256: of the file's bytes in hex; '' if missing.
        width: in pixels.
        height: in pixels.
        hashes: 64-bit perceptual hashes as it lies and in its seven other flips and rotations.
    """

    path: str | None
    reason: str = ""
    detail: str = ""
    sha256: str = ""
    width: int = 0
    height: int = 0
    hashes: tuple[int, ...] = ()


def find_image(media: Media, folder: Path) -> Path | None:
    """The file of a picture: its own path, `<key>.<suffix>`, or the file name of its URL.

    Nothing outside of `folder` is ever found, whatever a dump says.
    """
    names = []
    if media.path:
        names.append(media.path)
    else:
        names += [media.key + suffix for suffix in SUFFIXES]
        if media.url:
            names.append(PurePosixPath(urlparse(media.url).path).name)
    for name in names:
        if name and "\0" not in name and _is_below(name, folder):
            path = folder / name
            try:
                if path.is_file():
                    return path
            except OSError:  # a name too long for the file system
                continue
    return None


def _is_below(name: str, folder: Path) -> bool:
    """Whether a name stays in the folder; an absolute one may, if it says so itself."""
    path = PurePosixPath(name)
    return ".." not in path.parts and (not path.is_absolute() or path.is_relative_to(folder.resolve()))


def inspect_partition(media: Sequence[Media], folder: Path, settings: ImageSettings) -> list[Picture]:
    """Looks at some pictures: the pure function that the engine spreads over processes."""
    missing = f"no such file below {folder}"
    return [inspect(find_image(one, folder), settings, missing) for one in media]


def inspect(path: Path | None, settings: ImageSettings, missing: str = "no such file") -> Picture:
    """Looks at one picture; whatever is wrong with it is an answer, never an exception.

    Args:
        path: the file; None if there is none.
        settings: what a picture must be.
        missing: what to say where there is none.
    """
    if path is None:
        return Picture(None, "image_missing", missing)
    try:
        if path.stat().st_size > settings.max_bytes:
            return Picture(str(path), "image_undecodable", f"larger than {settings.max_bytes >> 20} MiB")
        content = path.read_bytes()
    except OSError as error:
        return Picture(str(path), "image_missing", f"cannot be read: {error.strerror}")
    digest = hashlib.sha256(content).hexdigest()
    try:
        image_suffix(content)
        # 'draft' may decode a JPEG at half its size; nothing below needs more than this.
        image = open_image(content, max_pixels=settings.max_pixels, draft_to=256, name=path.name)
        with Image.open(BytesIO(content), formats=FORMATS) as header:
            width, height = header.size
    except DataError as error:
        return Picture(str(path), "image_undecodable", str(error), digest)
    reason, detail = "", ""
    if min(width, height) < settings.min_side:
        reason, detail = "image_too_small", f"{width} x {height}"
    elif settings.pathology and (seen := not_pathology(image, settings)):
        reason, detail = "not_pathology", seen
    return Picture(str(path), reason, detail, digest, width, height, perceptual_hashes(image))


def not_pathology(image: Image.Image, settings: ImageSettings) -> str:
    """What speaks against stained tissue in the picture; '' if that is not enough."""
    seen = appearance(image)
    if seen.background > settings.max_background:
        return f"background {seen.background:.3f}"
    evidence = {name: getattr(seen, name) / enough for name, enough in settings.enough.items()}
    if sum(evidence.values()) < 1:
        return ""
    strongest = sorted(evidence, key=lambda name: -evidence[name])[:3]
    return ", ".join(f"{name} {getattr(seen, name):.2f}" for name in strongest if evidence[name] > 0)


def perceptual_hashes(image: Image.Image) -> tuple[int, ...]:
    """64-bit pHash (imagehash; Zauner 2010) of the picture and of its flips and rotations.

    Args:
        image: RGB.

    Returns:
        Eight hashes; the first is of the picture as it lies.
    """
    side = HASH_SIDE * 4
    small = image.convert("L").resize((side, side), Image.Resampling.LANCZOS)
    turned = (small if turn is None else small.transpose(turn) for turn in _TURNS)
    return tuple(int(str(imagehash.phash(one, HASH_SIDE)), 16) for one in turned)
