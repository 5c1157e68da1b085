"""Training-time augmentation on whole batches, every picture with its own draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pathclip.errors import ConfigError
from pathclip.shards.colour import adjust, luma, shift_hue
from pathclip.shards.decode import EncodedPicture
from pathclip.shards.geometry import (
    Affine,
    Box,
    Perspective,
    check_range,
    fixed_crop_box,
    resize,
    resized_crop_box,
    symmetry,
    warp,
)
from pathclip.shards.stain import StainJitter

# Pictures worked on at a time: few enough that they stay in the processor's cache from step to step.
_GROUP = 8
# Numbers drawn for each picture, whether they are used or not: so no setting changes what another one does.
_COLUMNS = {"crop": 4, "symmetry": 1, "flip": 1, "affine": 5, "perspective": 9, "stain": 6, "colour": 5}


@dataclass(frozen=True)
class Augment:
    """What happens to a training picture, in this order. Ranges are those of torchvision's transforms.

    Args:
        scale: smallest and largest share of the picture's area that is cropped; null with `resize`.
        ratio: smallest and largest aspect ratio of a crop by `scale`.
        resize: pixels of the shorter side before a square of the model's size is cropped at random.
        dihedral: any of the 8 flips and right-angle rotations; tissue has no up.
        flip: share of pictures that are mirrored left to right.
        affine: rotation, shift, zoom and shear.
        perspective: corners moved inwards.
        stain: amounts of haematoxylin, eosin and DAB changed.
        brightness: factor drawn from [1 - b, 1 + b].
        contrast: likewise, about the picture's mean luma.
        saturation: likewise.
        hue: shift drawn from [-h, h]; 0.5 is the whole circle.
        grey: share of pictures that lose all colour.
    """

    scale: tuple[float, float] | None = (0.5, 1.0)
    ratio: tuple[float, float] = (0.8, 1.25)
    resize: int | None = None
    dihedral: bool = True
    flip: float = 0.0
    affine: Affine | None = None
    perspective: Perspective | None = None
    stain: StainJitter | None = None
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.8
    hue: float = 0.5
    grey: float = 0.2

    def __post_init__(self) -> None:
        if (self.scale is None) == (self.resize is None):
            raise ValueError("it takes either scale or resize; set the other one to null")
        if self.scale is not None:
            check_range("scale", self.scale)
            if self.scale[1] > 1:
                raise ValueError(f"scale is {list(self.scale)}; no crop has more than the whole area, 1")
        if self.resize is not None and self.resize < 1:
            raise ValueError(f"resize is {self.resize}; it must be at least 1 pixel")
        check_range("ratio", self.ratio)
        for name in ("brightness", "contrast", "saturation", "grey", "flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1]")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue is {self.hue}; it must lie in [0, 0.5]")

    def require_size(self, size: int) -> None:
        """Raises ConfigError where pictures of `size` pixels cannot be cut from the resized ones."""
        if self.resize is not None and self.resize < size:
            raise ConfigError(
                f"data.augment.resize: {self.resize} pixels are fewer than the {size} of the model's input"
            )

    def __call__(
        self,
        pictures: Sequence[EncodedPicture],
        size: int,
        generator: torch.Generator,
        offset: int = 0,
        total: int | None = None,
    ) -> Tensor:
        """Decodes, crops, moves and recolours.

        Args:
            pictures: of any sizes.
            size: edge of the result in pixels.
            generator: decides everything that is drawn; the result depends on nothing else.
            offset: where in the global batch these pictures begin; draws are made for all of it.
            total: pictures in the global batch; None if it ends with these.

        Returns:
            float32 [n, 3, size, size] in [0, 1].

        Raises:
            ConfigError: `resize` is smaller than `size`.
            DataError: a picture cannot be decoded; names the sample.
        """
        self.require_size(size)
        n = len(pictures)
        table = torch.rand(
            offset + n if total is None else total, sum(_COLUMNS.values()), generator=generator
        )
        rows = table[offset : offset + n].split(list(_COLUMNS.values()), 1)
        draws = dict(zip(_COLUMNS, rows, strict=True))
        crops = self._crops(pictures, size, draws)
        matrices = self._matrices(draws)
        batch = torch.empty(n, 3, size, size)
        for start in range(0, n, _GROUP):
            members = slice(start, start + _GROUP)
            group = batch[members]
            group.copy_(crops[members]).div_(255)
            if matrices is not None:
                group.copy_(warp(group, matrices[members]))
            if self.stain:
                self.stain(group, draws["stain"][members])
            self._recolour(group, draws["colour"][members])
        return batch

    def _crops(self, pictures: Sequence[EncodedPicture], size: int, draws: dict[str, Tensor]) -> Tensor:
        """uint8 [n, 3, size, size], cropped, resized and turned."""
        symmetries = (draws["symmetry"][:, 0] * 8 * self.dihedral).int().tolist()
        flips = (draws["flip"][:, 0] < self.flip).tolist()
        crops = torch.empty(len(pictures), 3, size, size, dtype=torch.uint8)
        for row, picture in enumerate(pictures):
            box = self._box(picture.size, size, draws["crop"][row])
            crop = symmetry(resize(picture.crop(box, at_least=size), size), symmetries[row])
            crops[row] = crop.flip(2) if flips[row] else crop
        return crops

    def _box(self, picture: tuple[int, int], size: int, draw: Tensor) -> Box:
        if self.scale is None:
            assert self.resize is not None
            return fixed_crop_box(picture, self.resize, size, draw)
        return resized_crop_box(picture, self.scale, self.ratio, draw)

    def _matrices(self, draws: dict[str, Tensor]) -> Tensor | None:
        """Affine map and perspective as one homography, so that pictures are sampled once."""
        if not (self.affine or self.perspective):
            return None
        matrices = torch.eye(3, dtype=torch.float64)
        for warping, name in ((self.affine, "affine"), (self.perspective, "perspective")):
            if warping:
                matrices = warping.matrices(draws[name].double()) @ matrices
        return matrices

    def _recolour(self, group: Tensor, draw: Tensor) -> None:
        signed = draw * 2 - 1
        if self.brightness or self.contrast or self.saturation:
            strength = torch.tensor([self.brightness, self.contrast, self.saturation])
            adjust(group, *(1 + strength * signed[:, :3]).unbind(1))
        if self.hue:
            shift_hue(group, self.hue * signed[:, 3])
        if self.grey:
            for row in (draw[:, 4] < self.grey).nonzero().flatten().tolist():
                group[row] = luma(group[row : row + 1])


def normalise(batch: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x - mean) / std per channel, in place; [n, 3, h, w] in, the same tensor out."""
    shape = (1, 3, 1, 1)
    return batch.sub_(torch.tensor(mean).view(shape)).div_(torch.tensor(std).view(shape))
