"""Decodes pictures of shards: whole, or only as much as a crop of them needs."""

from __future__ import annotations

from functools import cached_property
from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pathclip.errors import DataError
from pathclip.runtime.images import FORMATS, MAX_PIXELS, open_image
from pathclip.runtime.preprocess import Preprocess

try:
    import simplejpeg
except ImportError:  # Pillow's decoder gives the same pixels, a little more slowly
    simplejpeg = None

_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT, _FIRST_LYING = 1, 5
# libjpeg can decode at these fractions by leaving out frequencies; others it has no fast code for.
_REDUCTIONS = (8, 4, 2)


class Encoded(NamedTuple):
    """The bytes of a picture's file, and what messages call it."""

    content: bytes
    name: str


def decode(image: bytes, name: str, preprocess: Preprocess | None = None) -> Image.Image:
    """Decodes one picture to RGB, upright.

    Args:
        image: the file's bytes.
        name: what messages call the sample.
        preprocess: of the model that the picture is for, which then decodes no more than it needs; None
            decodes it whole.

    Raises:
        DataError: undecodable; `name` is in the message.
    """
    try:
        return preprocess.open(image) if preprocess else open_image(image)
    except DataError as error:
        raise DataError(f"sample '{name}': {error}") from None


class EncodedPicture:
    """A picture of which no more is decoded than what is asked for.

    The size of a JPEG is read from its header. A crop of it that will be shrunk anyway is decoded at a half,
    a quarter or an eighth of its size, which spares most of the inverse cosine transform. Other formats are
    decoded whole, and every format is bounded as in `pathclip.runtime.images.open_image`.

    Args:
        content: the file's bytes.
        name: what messages call the sample.
    """

    def __init__(self, content: bytes, name: str) -> None:
        self._content, self._name = content, name
        self._whole: Image.Image | None = None
        self._fast = False

    @cached_property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, upright; raises DataError as `crop`."""
        try:
            header = Image.open(BytesIO(self._content), formats=FORMATS)
            width, height = header.size
            if header.format != "JPEG" or width * height > MAX_PIXELS:
                raise ValueError  # decoded, or refused in the right words, below
            orientation = header.getexif().get(_ORIENTATION, _UPRIGHT)
        except Exception:  # whatever Pillow says to broken bytes, `decode` puts into words
            self._whole = decode(self._content, self._name)
            return self._whole.size
        self._fast = simplejpeg is not None and orientation == _UPRIGHT and header.mode in ("RGB", "L")
        # A value that EXIF does not know turns nothing, as in Pillow.
        lying = orientation in range(_FIRST_LYING, 9)
        return (height, width) if lying else (width, height)

    def crop(self, box: tuple[float, float, float, float], at_least: int) -> Tensor:
        """Decodes a part of the picture.

        Args:
            box: left, top, right, bottom in pixels of the upright picture, inside it.
            at_least: pixels that either side of the result should have, if the box has as many.

        Returns:
            uint8 [h, w, 3]; the box to the nearest pixel, at its full size or a half, a quarter, an eighth.

        Raises:
            DataError: no picture, too large or undecodable; names the sample.
        """
        full_width, full_height = self.size
        shorter = min(box[2] - box[0], box[3] - box[1])
        reduction = next((r for r in _REDUCTIONS if shorter >= r * at_least), 1)
        pixels = self._decode(reduction)
        height, width = pixels.shape[:2]
        left, right = _span(box[0], box[2], width / full_width, width)
        top, bottom = _span(box[1], box[3], height / full_height, height)
        return torch.from_numpy(pixels[top:bottom, left:right])

    def _decode(self, reduction: int) -> np.ndarray:
        if self._whole is not None:
            # Let go of: a batch of large pictures need not be in memory at once.
            whole, self._whole = self._whole, None
            return np.array(whole)
        width, height = self.size
        if self._fast:
            try:
                return simplejpeg.decode_jpeg(
                    self._content,
                    min_width=-(-width // reduction),
                    min_height=-(-height // reduction),
                    min_factor=1,
                )
            except ValueError:  # it is stricter than Pillow, whose verdict counts
                self._fast = False
        draft_to = None if reduction == 1 else min(width, height) // reduction
        try:
            return np.array(open_image(self._content, draft_to=draft_to))
        except DataError as error:
            raise DataError(f"sample '{self._name}': {error}") from None


def _span(start: float, end: float, scale: float, length: int) -> tuple[int, int]:
    """Whole pixels of a decoded side of `length` between two positions of the full one, at least one."""
    first = min(round(start * scale), length - 1)
    return first, max(first + 1, min(round(end * scale), length))
