"""From a picture to a model's input, with the same numbers as open_clip's evaluation transform."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pathclip.errors import DataError, ModelFolderError
from pathclip.model_folder import shown
from pathclip.runtime.images import open_image, to_rgb

__all__ = ["Preprocess", "open_image"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# A strip of 60,000 x 1 pixels, its shorter side fitted to 224, would become three billion pixels.
MAX_STRETCH = 64
# Values of a picture lie in [0, 1]; what is far beyond would make of every picture the same.
LARGEST = 1000.0
LEAST_STD = 1e-6
# Measured on 120 micrographs of 992 x 744 pixels at 160 (EfficientNet-Lite0, fp32), against whole decoding:
# at twice the input's size the cosine of the embeddings is 0.9987 on average and 0.992 at worst, at once the
# size 0.980 and 0.867. int8 itself costs more than the former.
DRAFT = 2
MAX_DRAFT = 64
_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    # open_clip evaluates with bicubic where it trained with a random choice.
    "random": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Resizes, crops and normalises as `open_clip.transform.image_transform_v2(…, is_train=False)`.

    Attributes:
        size: (height, width) of the model's input in pixels.
        mean: per channel, of values in [0, 1].
        std: per channel, of values in [0, 1].
        interpolation: 'bicubic' or 'bilinear'.
        resize_mode: 'shortest' fits the shorter side and crops the centre, 'longest' fits the longer
            side and pads, 'squash' ignores the aspect ratio.
        fill_color: grey value 0–255 of the padding.
        crop_offset: where a cut begins that does not lie on a whole pixel: 'round', to an even number as
            torchvision does, or 'floor', as transformers does.
        draft: `open` decodes a JPEG at a half, a quarter or an eighth of its size while both sides stay at
            least this many times the model's; 0 decodes all of it, as open_clip does.
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0
    crop_offset: str = "round"
    draft: int = DRAFT

    @classmethod
    def from_card(cls, values: Mapping[str, Any]) -> Preprocess:
        """Reads the card's `preprocess` (open_clip's `preprocess_cfg`).

        Raises:
            ModelFolderError: a value is not what open_clip would accept; names the key.
        """
        if not isinstance(values, Mapping):
            raise ModelFolderError(f"preprocess: expected keys with values, got {shown(values)}")
        size = values.get("size", 224)
        height, width = (size, size) if isinstance(size, int) else _numbers(values, "size", 2, 1, 4096)
        for name, value in (("height", height), ("width", width)):
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 4096:
                raise ModelFolderError(
                    f"preprocess.size: {name} must be a whole number in 1–4096: {shown(size)}"
                )
        interpolation = values.get("interpolation") or "bicubic"
        if interpolation not in [*_RESAMPLING]:
            raise ModelFolderError(
                f"preprocess.interpolation: {shown(interpolation)} is none of {[*_RESAMPLING]}"
            )
        resize_mode = values.get("resize_mode") or "shortest"
        if resize_mode not in ("shortest", "longest", "squash"):
            raise ModelFolderError(f"preprocess.resize_mode: {shown(resize_mode)} is unknown")
        if values.get("mode", "RGB") != "RGB":
            raise ModelFolderError(f"preprocess.mode: only RGB is known, not {shown(values['mode'])}")
        mean = _numbers(values, "mean", 3, -LARGEST, LARGEST) if values.get("mean") else CLIP_MEAN
        std = _numbers(values, "std", 3, -LARGEST, LARGEST) if values.get("std") else CLIP_STD
        if min(std) < LEAST_STD:
            raise ModelFolderError(
                f"preprocess.std: must be above 0, at least {LEAST_STD:g}, not {shown(std)}"
            )
        fill = values.get("fill_color") or 0
        if not isinstance(fill, int) or not 0 <= fill <= 255:
            raise ModelFolderError(
                f"preprocess.fill_color: must be a whole number in 0–255, not {shown(fill)}"
            )
        offset = values.get("crop_offset") or "round"
        if offset not in ("round", "floor"):
            raise ModelFolderError(f"preprocess.crop_offset: {shown(offset)} is none of round, floor")
        draft = values.get("draft", DRAFT)
        if not isinstance(draft, int) or isinstance(draft, bool) or not 0 <= draft <= MAX_DRAFT:
            raise ModelFolderError(
                f"preprocess.draft: must be a whole number in 0–{MAX_DRAFT}, not {shown(draft)}"
            )
        return cls((height, width), mean, std, interpolation, resize_mode, fill, offset, draft)

    def open(self, source: str | Path | bytes, name: str | None = None) -> Image.Image:
        """Opens a picture for this model, decoding no more of it than `draft` says; then see `pixels`.

        Args:
            source: a file, or its bytes.
            name: what messages call the picture; the path, if it is a file.

        Returns:
            RGB and upright. Of a JPEG that is large enough at a half, a quarter or an eighth of its size.

        Raises:
            DataError: as `pathclip.runtime.images.open_image`.
        """
        return open_image(source, draft_to=self.draft * max(self.size) or None, name=name)

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """One image of any mode and size to float32 [3, h, w]; raises as `pixels`."""
        return self.normalise(self.pixels(image)[None])[0]

    def batch(self, images: Sequence[Image.Image] | NDArray[np.uint8]) -> NDArray[np.float32]:
        """Images, or uint8 [n, h, w, 3] of any size, to float32 [n, 3, h, w]; raises as `pixels`."""
        if isinstance(images, np.ndarray):
            if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
                raise ValueError(f"expected uint8 [n, h, w, 3], got {images.dtype} {list(images.shape)}")
            if images.shape[1:3] == self.size:
                return self.normalise(images)
            images = [Image.fromarray(pixels) for pixels in images]
        if not len(images):
            return np.zeros((0, 3, *self.size), np.float32)
        named = ((image, f"picture {number}") for number, image in enumerate(images, 1))
        return self.normalise(np.stack([self.pixels(image, name) for image, name in named]))

    def pixels(self, image: Image.Image, name: str = "picture") -> NDArray[np.uint8]:
        """One image resized and cropped, not yet normalised: uint8 [h, w, 3]. Twice is as good as once.

        Args:
            image: of any mode and size.
            name: what messages call it.

        Raises:
            DataError: with 'shortest', its longer side would be resized to more than 64 times the model's.
        """
        height, width = image.height / self.size[0], image.width / self.size[1]
        if self.resize_mode == "shortest" and max(height, width) > MAX_STRETCH * min(height, width):
            raise DataError(
                f"{name}: {image.width} x {image.height} pixels is too thin for a model of "
                f"{self.size[1]} x {self.size[0]}; cut a part out of it"
            )
        # open_clip converts after resizing; a palette must not be interpolated, so here it comes first.
        return np.asarray(self._fit(to_rgb(image)))

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pixels uint8 [n, h, w, 3] of the right size to float32 [n, 3, h, w]: (value / 255 − mean) / std."""
        values = pixels.transpose(0, 3, 1, 2).astype(np.float32, order="C")
        values /= np.float32(255)
        values -= np.asarray(self.mean, np.float32)[:, None, None]
        values /= np.asarray(self.std, np.float32)[:, None, None]
        return values

    def _fit(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        resampling = _RESAMPLING[self.interpolation]
        if self.resize_mode == "squash":
            return _resize(image, width, height, resampling)
        ratios = image.height / height, image.width / width
        if self.resize_mode == "longest":
            new_width, new_height = (round(side / max(ratios)) for side in image.size)
            image = _resize(image, max(1, new_width), max(1, new_height), resampling)
            return _centre(image, width, height, self.fill_color, self.crop_offset)
        if height == width:
            # torchvision truncates the longer side where ResizeKeepRatio, below, rounds.
            short, long = min(image.size), max(image.size)
            longer = int(height * long / short)
            new_width, new_height = (height, longer) if image.width <= image.height else (longer, height)
        else:
            new_width, new_height = (round(side / min(ratios)) for side in image.size)
            resampling = Image.Resampling.BICUBIC
        image = _resize(image, new_width, new_height, resampling)
        return _centre(image, width, height, 0, self.crop_offset)


def _resize(image: Image.Image, width: int, height: int, resampling: Image.Resampling) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), resampling)


def _centre(image: Image.Image, width: int, height: int, fill: int, offset: str) -> Image.Image:
    """Cuts or pads to the size about the centre; an odd pixel of padding goes right and below."""
    more_x, more_y = max(0, width - image.width), max(0, height - image.height)
    if more_x or more_y:
        border = (more_x // 2, more_y // 2, (more_x + 1) // 2, (more_y + 1) // 2)
        image = ImageOps.expand(image, border, (fill, fill, fill))
    rounded = math.floor if offset == "floor" else round
    left, top = rounded((image.width - width) / 2), rounded((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _numbers(values: Mapping[str, Any], key: str, n: int, low: float, high: float) -> Any:
    found = values[key]
    numbers = [found] * n if isinstance(found, int | float) else found
    if not isinstance(numbers, list | tuple) or len(numbers) != n or not all(map(_is_number, numbers)):
        raise ModelFolderError(f"preprocess.{key}: expected {n} numbers, got {shown(found)}")
    if not all(low <= number <= high for number in numbers):  # NaN is in no range
        raise ModelFolderError(f"preprocess.{key}: must be in {low:g} to {high:g}, not {shown(found)}")
    return tuple(numbers)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
