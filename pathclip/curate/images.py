"""What curation sees in a picture: is it readable, large enough, pathology, a mixed figure; its hashes."""

from __future__ import annotations

import functools
import hashlib
import warnings
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathclip.curate import figures
from pathclip.curate.figures import Box
from pathclip.curate.pathology import tissue_probability
from pathclip.errors import ConfigError
from pathclip.runtime.images import FORMATS, open_image
from pathclip.shards.writer import image_suffix

HASH_SIDE = 8  # 64 bits: imagehash's own default for pHash
DRAFT_TO = 256  # a JPEG may be decoded at a half of its size and less, but not below this
_ORIENTATION = 0x0112  # EXIF; from 5 on the picture lies on its side


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """Thresholds of the rules on pictures.

    Attributes:
        min_side: fewest pixels of the shorter side.
        max_pixels: larger pictures are not decoded.
        max_bytes: larger files are not decoded.
        pathology: ask whether the picture shows stained tissue or cells.
        pathology_threshold: probability of that, in [0, 1], below which a picture falls.
        figures: mixed figures are flagged in `Picture.flags`, dropped, or not looked for.
        panels: a figure of several panels stays whole, or is cut and each panel looked at by itself.
        min_panel: smallest panel, as a share of the picture's area.
    """

    min_side: int = 96
    max_pixels: int = 80_000_000
    max_bytes: int = 64 * 1024 * 1024
    pathology: bool = True
    pathology_threshold: float = 0.7
    figures: Literal["flag", "drop", "off"] = "flag"
    panels: Literal["keep", "cut"] = "keep"
    min_panel: float = 0.04

    def __post_init__(self) -> None:
        for name in ("pathology_threshold", "min_panel"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"images.{name}: expected a number in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of a picture once looked at.

    Attributes:
        reason: of the first rule that it breaks, '' if it may stay.
        detail: what the rule saw.
        sha256: in hex, of the bytes that would be written: of the file, or of the panel as `cut` gives it;
            '' where there are none.
        width: in pixels, upright.
        height: in pixels, upright.
        hashes: 64-bit perceptual hashes as it lies and in its seven other flips and rotations.
        flags: what makes it a mixed figure, in the order of `figures.FLAGS`.
        box: left, top, right, bottom of the panel in the upright picture; None for a whole picture.
    """

    reason: str = ""
    detail: str = ""
    sha256: str = ""
    width: int = 0
    height: int = 0
    hashes: tuple[int, ...] = ()
    flags: tuple[str, ...] = ()
    box: Box | None = None


def inspect(content: bytes, name: str, settings: ImageSettings) -> tuple[Picture, ...]:
    """Looks at one picture; whatever is wrong with the bytes is an answer, never an exception.

    Args:
        content: the file's bytes.
        name: what details call the picture.
        settings: what a picture must be.

    Returns:
        The picture; with `panels: cut`, each panel of a figure instead.

    Raises:
        DataError: the classifier's weights are missing.
    """
    digest = hashlib.sha256(content).hexdigest()
    if len(content) > settings.max_bytes:
        return (Picture("image_undecodable", f"larger than {settings.max_bytes >> 20} MiB", digest),)
    try:
        image_suffix(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's on odd headers: a feed has thousands of them
            # Nothing below needs more pixels than this leaves.
            image = open_image(content, settings.max_pixels, draft_to=DRAFT_TO, name=name)
            width, height = _upright_size(content)
    except Exception as error:  # beside DataError, what Pillow's plugins raise while they read a header
        return (Picture("image_undecodable", str(error), digest),)
    whole = Picture("", "", digest, width, height, perceptual_hashes(image))
    if min(width, height) < settings.min_side:
        return (replace(whole, reason="image_too_small", detail=f"{width} x {height}"),)
    small = figures.reduced(image)
    boxes: list[Box] = []
    if settings.panels == "cut" or settings.figures != "off":
        boxes = figures.panels(small, settings.min_panel)
    if settings.panels == "cut" and len(boxes) > 1:
        full = open_image(content, settings.max_pixels, name=name)
        scaled = [figures.enlarged(box, small.shape, (height, width)) for box in boxes]
        large = [b for b in scaled if min(b[2] - b[0], b[3] - b[1]) >= settings.min_side]
        if large:
            return tuple(_panel(full, box, settings) for box in large)
    return (_judged(whole, image, small, len(boxes) > 1, settings),)


def cut(content: bytes, box: Box) -> bytes:
    """A panel of a picture, as it is written and hashed.

    Args:
        content: the picture's bytes, such as `inspect` accepts.
        box: from `Picture.box`.

    Returns:
        A JPEG of quality 95 without subsampling; the same bytes for the same input and Pillow.

    Raises:
        DataError: the picture cannot be decoded.
    """
    return _encoded(open_image(content), box)


def perceptual_hashes(image: Image.Image) -> tuple[int, ...]:
    """64-bit pHash (Zauner 2010) of the picture and of its flips and rotations.

    Equal to what the package imagehash gives for each of the eight. One transform is enough for all: a
    mirrored picture has the same cosine coefficients, those of odd frequency with the other sign, and a
    transposed picture the transposed ones.

    Args:
        image: RGB.

    Returns:
        Eight hashes; the first is of the picture as it lies, then by 90°, 180° and 270°, mirrored left to
        right, top to bottom, and about both diagonals.
    """
    side = HASH_SIDE * 4
    small = np.asarray(image.convert("L").resize((side, side), Image.Resampling.LANCZOS), np.float64)
    low = _cosines() @ small @ _cosines().T
    sign = (-1.0) ** np.arange(HASH_SIDE)
    left_right, top_bottom = low * sign, low * sign[:, None]
    both = left_right * sign[:, None]
    turned = (low, left_right.T, both, top_bottom.T, left_right, top_bottom, low.T, both.T)
    # Rounded, so that coefficients which are zero but for rounding do not decide by chance.
    values = np.round(np.stack(turned).reshape(8, -1), 6)
    bits = np.packbits(values > np.median(values, axis=1, keepdims=True), axis=1)
    return tuple(bits.view(">u8")[:, 0].tolist())


@functools.cache
def _cosines() -> NDArray[np.float64]:
    """The lowest frequencies of the DCT-II, [HASH_SIDE, 4 HASH_SIDE], scaled as scipy's."""
    side = HASH_SIDE * 4
    place, frequency = np.arange(side), np.arange(HASH_SIDE)[:, None]
    return 2 * np.cos(np.pi * frequency * (2 * place + 1) / (2 * side))


def _upright_size(content: bytes) -> tuple[int, int]:
    with Image.open(BytesIO(content), formats=FORMATS) as header:
        width, height = header.size
        lies = header.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    return (height, width) if lies else (width, height)


def _encoded(image: Image.Image, box: Box) -> bytes:
    file = BytesIO()
    image.crop(box).save(file, "JPEG", quality=95, subsampling=0, optimize=False, progressive=False)
    return file.getvalue()


def _panel(full: Image.Image, box: Box, settings: ImageSettings) -> Picture:
    content = _encoded(full, box)
    image = open_image(content, draft_to=DRAFT_TO)
    seen = Picture(
        sha256=hashlib.sha256(content).hexdigest(),
        width=box[2] - box[0],
        height=box[3] - box[1],
        hashes=perceptual_hashes(image),
        box=box,
    )
    return _judged(seen, image, figures.reduced(image), False, settings)


def _judged(
    seen: Picture, image: Image.Image, small: NDArray[np.uint8], panelled: bool, settings: ImageSettings
) -> Picture:
    """The picture with its flags and the first rule that it breaks."""
    if settings.pathology and (probability := tissue_probability(image)) < settings.pathology_threshold:
        return replace(seen, reason="not_pathology", detail=f"pathology {probability:.2f}")
    if settings.figures == "off":
        return seen
    flags = (("panels",) if panelled else ()) + figures.flags(small)
    if flags and settings.figures == "drop":
        return replace(seen, reason="mixed_figure", detail=", ".join(flags), flags=flags)
    return replace(seen, flags=flags)
