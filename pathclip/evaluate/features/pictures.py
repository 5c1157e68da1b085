"""What one picture is turned into for an evaluation: decoded once, for all variants and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathclip.curate.images import perceptual_hashes
from pathclip.evaluate.features import colour
from pathclip.evaluate.features.hues import hue_tables
from pathclip.evaluate.profile import Profile, measured
from pathclip.runtime.preprocess import Preprocess, open_image

Variant = Literal["plain", "randomised_colour"]
VARIANTS: tuple[Variant, ...] = ("plain", "randomised_colour")
_JPEG = b"\xff\xd8"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture's bytes, and what is still to be found out about it.

    Attributes:
        name: what messages call it.
        sha256: of the bytes, in hex.
        content: the encoded bytes.
        pixels: variant → preprocesses that models still need it in.
        colours: variants whose colour features are not known.
        perceptual: whether its perceptual hashes are not known.
    """

    name: str
    sha256: str
    content: bytes
    pixels: Mapping[str, Sequence[Preprocess]]
    colours: Sequence[str]
    perceptual: bool


@dataclass(frozen=True, slots=True)
class Prepared:
    """What became of a `Picture`: all that it asked for.

    Attributes:
        pixels: (variant, preprocess) → uint8 [h, w, 3].
        colours: variant → features float64 [54].
        perceptual: eight hashes, or none.
    """

    pixels: Mapping[tuple[str, Preprocess], NDArray[np.uint8]]
    colours: Mapping[str, NDArray[np.float64]]
    perceptual: tuple[int, ...]


def prepare(picture: Picture, seed: int, many: bool, profile: Profile | None = None) -> Prepared:
    """Decodes a picture if anything of it is missing, and finds that out.

    Args:
        picture: what it is and what is wanted.
        seed: of the random colours, with the picture's own bytes.
        many: whether so many pictures come that `hue_tables` are worth making.
        profile: takes the time of each step.

    Raises:
        DataError: it cannot be decoded, or is too thin for a model; names it.
    """
    variants = [one for one in VARIANTS if picture.pixels.get(one) or one in picture.colours]
    if not variants and not picture.perceptual:
        return Prepared({}, {}, ())
    with measured(profile, "decoding"):
        image = open_image(picture.content, name=picture.name)
    pixels: dict[tuple[str, Preprocess], NDArray[np.uint8]] = {}
    colours: dict[str, NDArray[np.float64]] = {}
    for variant in variants:
        shown = image
        if variant == "randomised_colour":
            tables = hue_tables() if many else None
            with measured(profile, "recolouring"):
                shown = colour.randomise_colour(image, colour.picture_seed(picture.sha256, seed), tables)
        if variant in picture.colours:
            with measured(profile, "colour features"):
                colours[variant] = colour.features(shown)
        for preprocess in picture.pixels.get(variant, ()):
            # As `classify` opens it. Random colours are drawn over the whole picture.
            opened = _drafted(picture, preprocess, shown) if variant == "plain" else shown
            with measured(profile, "preprocessing"):
                pixels[variant, preprocess] = preprocess.pixels(opened, picture.name)
    hashes: tuple[int, ...] = ()
    if picture.perceptual:
        with measured(profile, "perceptual hash"):
            hashes = perceptual_hashes(image)
    return Prepared(pixels, colours, hashes)


def _drafted(picture: Picture, preprocess: Preprocess, whole: Image.Image) -> Image.Image:
    """The picture as `Preprocess.open` gives it, without decoding it again where that would be the same."""
    least = preprocess.draft * max(preprocess.size)
    if not least or not picture.content.startswith(_JPEG) or min(whole.size) < 2 * least - 1:
        return whole
    return preprocess.open(picture.content, picture.name)
