"""Is it pathology? A transparent measure of colour and texture, without a trained model.

Stained tissue looks alike all over the picture, is pink to violet (haematoxylin and eosin) or brown and blue
(immunohistochemistry), and nowhere flat: even smooth stroma shows grain. Charts and text slides have pure
white or flat areas and black ink; people, animals and landscapes are composed: other colours above than
below, others in the middle than at the sides. Each of these is measured, and the evidence adds up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 160  # pixels of the longer side on which the measures are taken
CELLS = 6  # cells along each side in which colours are averaged


@dataclass(frozen=True, slots=True)
class Appearance:
    """What is measured of a picture. Background is what is nearly white, as glass beside tissue is.

    Attributes:
        background: share of the background, in [0, 1].
        foreign: share of saturated yellow, green and cyan in all that is no background.
        neutral: share of grey and black in all that is no background.
        flat: share of pixels like all their neighbours in all that is no background.
        white: share of pure white in the picture; scanners and cameras leave hardly any.
        layout: how much the mean colour (chromaticity) of 6 x 6 cells differs over the picture, as a
            standard deviation, in [0, 1]; what differs between left and right counts less, because
            people compose pictures about the middle and microtomes do not.
    """

    background: float
    foreign: float
    neutral: float
    flat: float
    white: float
    layout: float


def appearance(image: Image.Image) -> Appearance:
    """Measures an RGB picture."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    # Channels first: numpy reduces over a last axis of three an order of magnitude slower.
    pixels = np.asarray(small.convert("RGB")).transpose(2, 0, 1).astype(np.float32, order="C") / 255
    high, low = pixels.max(axis=0), pixels.min(axis=0)
    saturation = (high - low) / np.maximum(high, 1e-3)
    background = (high > 0.8) & (saturation < 0.09)
    matter = ~background
    total = max(int(matter.sum()), 1)

    def share(mask: NDArray[Any]) -> float:
        return float((mask & matter).sum() / total)

    hue = _hue(pixels, high, low)
    return Appearance(
        background=float(background.mean()),
        foreign=share((hue >= 50) & (hue < 190) & (saturation > 0.2)),
        neutral=share(saturation <= 0.1),
        flat=share(_steps(pixels) < 0.012),
        white=float((low > 0.985).mean()),
        layout=_layout(pixels, matter),
    )


def _hue(pixels: NDArray[Any], high: NDArray[Any], low: NDArray[Any]) -> NDArray[Any]:
    """Hue in degrees [0, 360); 0 for grey. `pixels` is [3, height, width], as in all that follows."""
    spread = np.maximum(high - low, 1e-6)
    red, green, blue = pixels
    hue = np.where(
        high == red,
        (green - blue) / spread % 6,
        np.where(high == green, (blue - red) / spread + 2, (red - green) / spread + 4),
    )
    return np.where(high > low, hue * 60 % 360, 0)


def _steps(pixels: NDArray[Any]) -> NDArray[Any]:
    """Largest difference of a pixel to its four neighbours, over the channels."""
    steps = np.zeros(pixels.shape[1:], dtype=np.float32)
    down = np.abs(np.diff(pixels, axis=1)).max(axis=0)
    right = np.abs(np.diff(pixels, axis=2)).max(axis=0)
    for part, step in (
        (steps[:-1], down),
        (steps[1:], down),
        (steps[:, :-1], right),
        (steps[:, 1:], right),
    ):
        np.maximum(part, step, out=part)
    return steps


def _layout(pixels: NDArray[Any], matter: NDArray[Any]) -> float:
    """See `Appearance.layout`; 0 if less than four cells hold anything."""
    height, width = matter.shape
    rows = np.arange(height) * CELLS // height
    columns = np.arange(width) * CELLS // width
    cell = rows[:, None] * CELLS + columns
    sizes = np.bincount(cell.ravel(), minlength=CELLS**2)
    inside, where = pixels[:, matter], cell[matter]
    chroma = inside / np.maximum(inside.sum(axis=0), 1e-3)
    filling = np.bincount(where, minlength=CELLS**2)
    sums = np.stack([np.bincount(where, channel, CELLS**2) for channel in chroma], axis=1)
    means = np.where(
        (filling > 0.05 * sizes)[:, None], sums / np.maximum(filling, 1)[:, None], np.nan
    ).reshape(CELLS, CELLS, 3)
    filled = ~np.isnan(means[..., :1])
    count = int(filled.sum())
    if count < 4:
        return 0.0
    centred = np.where(filled, means - np.nanmean(means.reshape(-1, 3), axis=0), 0)
    mirrored = centred[:, ::-1]
    symmetric = np.sqrt((((centred + mirrored) / 2) ** 2).sum() / count)
    askew = np.sqrt((((centred - mirrored) / 2) ** 2).sum() / count)
    return max(float(symmetric - 0.4 * askew), 0.0)
