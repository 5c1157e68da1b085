"""Training-time augmentation on whole batches of uint8 tensors, every picture with its own draw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from pathclip.errors import DataError
from pathclip.runtime.preprocess import open_image

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Augment:
    """What happens to a training picture. Every range is that of torchvision's transform of the name.

    Args:
        scale: smallest and largest share of the picture's area that is cropped.
        ratio: smallest and largest aspect ratio of the crop.
        dihedral: any of the 8 flips and right-angle rotations; tissue has no up.
        brightness: factor drawn from [1 - b, 1 + b].
        contrast: likewise, about the picture's mean luma.
        saturation: likewise.
        hue: shift drawn from [-h, h]; 0.5 is the whole circle.
        grey: share of pictures that lose all colour.
    """

    scale: tuple[float, float] = (0.5, 1.0)
    ratio: tuple[float, float] = (0.8, 1.25)
    dihedral: bool = True
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.8
    hue: float = 0.5
    grey: float = 0.2

    def __post_init__(self) -> None:
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} is [{low}, {high}]; it needs 0 < low <= high")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue is {self.hue}; it must lie in [0, 0.5]")
        if not 0 <= self.grey <= 1:
            raise ValueError(f"grey is {self.grey}; it must lie in [0, 1]")

    def __call__(self, images: list[Image.Image], size: int, generator: torch.Generator) -> Tensor:
        """Crops, turns and recolours.

        Args:
            images: RGB, of any sizes.
            size: edge of the result in pixels.
            generator: decides everything that is drawn.

        Returns:
            float32 [n, 3, size, size] in [0, 1].
        """
        crops = [self._crop(image, size, generator) for image in images]
        batch = torch.stack(crops).permute(0, 3, 1, 2).float() / 255
        if self.dihedral:
            batch = _dihedral(batch, generator)
        return self._colour(batch, generator)

    def _crop(self, image: Image.Image, size: int, generator: torch.Generator) -> Tensor:
        """A random crop with random area and aspect, resized by PIL as the evaluation transform does."""
        width, height = image.size
        draw = torch.rand(4, generator=generator)
        area = width * height * (self.scale[0] + float(draw[0]) * (self.scale[1] - self.scale[0]))
        ratio = self.ratio[0] * (self.ratio[1] / self.ratio[0]) ** float(draw[1])
        crop_width = min(width, max(1, round((area * ratio) ** 0.5)))
        crop_height = min(height, max(1, round((area / ratio) ** 0.5)))
        left = float(draw[2]) * (width - crop_width)
        top = float(draw[3]) * (height - crop_height)
        box = (left, top, left + crop_width, top + crop_height)
        resized = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
        return torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8).view(size, size, 3)

    def _colour(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        n = len(batch)
        draw = torch.rand(n, 5, generator=generator)[:, :, None, None, None] * 2 - 1
        luma = torch.tensor(_LUMA)[None, :, None, None]
        if self.brightness:
            batch = (batch * (1 + self.brightness * draw[:, 0])).clamp(0, 1)
        if self.contrast:
            mean = (batch * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
            batch = (mean + (batch - mean) * (1 + self.contrast * draw[:, 1])).clamp(0, 1)
        if self.saturation:
            grey = (batch * luma).sum(1, keepdim=True)
            batch = (grey + (batch - grey) * (1 + self.saturation * draw[:, 2])).clamp(0, 1)
        if self.hue:
            batch = shift_hue(batch, self.hue * draw[:, 3].reshape(n))
        if self.grey:
            grey = (batch * luma).sum(1, keepdim=True)
            batch = torch.where((draw[:, 4] + 1) / 2 < self.grey, grey, batch)
        return batch.contiguous()


def shift_hue(batch: Tensor, shift: Tensor) -> Tensor:
    """Turns the hue of RGB pictures [n, 3, h, w] in [0, 1] by `shift` [n], as a share of the circle.

    HSV after Smith (1978), with value and saturation kept, on the whole batch at once.
    """
    high, low = batch.amax(1), batch.amin(1)
    chroma = high - low
    red, green, blue = batch.unbind(1)
    safe = chroma.clamp_min(1e-8)
    sector = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    hue = (sector / 6 + shift[:, None, None]) % 1.0
    offsets = torch.tensor([5.0, 3.0, 1.0])[None, :, None, None]
    place = (offsets + hue[:, None] * 6) % 6
    ramp = torch.minimum(place, 4 - place).clamp(0, 1)
    return high[:, None] - chroma[:, None] * ramp


def _dihedral(batch: Tensor, generator: torch.Generator) -> Tensor:
    turned = batch.clone()
    which = torch.randint(8, (len(batch),), generator=generator)
    for symmetry in range(1, 8):
        rows = (which == symmetry).nonzero().flatten()
        if len(rows):
            picked = torch.rot90(batch[rows], symmetry % 4, (2, 3))
            turned[rows] = picked.flip(3) if symmetry >= 4 else picked
    return turned


def normalise(batch: Tensor, mean: list[float], std: list[float]) -> Tensor:
    """(x - mean) / std per channel; [n, 3, h, w] in, the same shape out."""
    return (batch - torch.tensor(mean)[None, :, None, None]) / torch.tensor(std)[None, :, None, None]


def decode(image: bytes, name: str, at_least: int | None = None) -> Image.Image:
    """Decodes one picture to RGB; a JPEG may come out smaller, but no smaller than `at_least` pixels.

    Raises:
        DataError: undecodable; `name` is in the message.
    """
    try:
        return open_image(image, draft_to=at_least)
    except DataError as error:
        raise DataError(f"sample '{name}': {error}") from None
