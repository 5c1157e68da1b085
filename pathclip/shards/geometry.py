"""Augmentation of place and shape: crops, symmetries, and warps by a homography per picture."""

from __future__ import annotations

from dataclasses import dataclass
from math import radians

import torch
import torch.nn.functional as F
from torch import Tensor

Box = tuple[float, float, float, float]


def resized_crop_box(
    size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float], draw: Tensor
) -> Box:
    """A box with random area and aspect at a random place.

    Args:
        size: (width, height) of the picture.
        scale: smallest and largest share of its area.
        ratio: smallest and largest width by height.
        draw: four numbers in [0, 1): area, aspect, left, top.
    """
    width, height = size
    area = width * height * (scale[0] + float(draw[0]) * (scale[1] - scale[0]))
    aspect = ratio[0] * (ratio[1] / ratio[0]) ** float(draw[1])
    crop_width = min(width, max(1, round((area * aspect) ** 0.5)))
    crop_height = min(height, max(1, round((area / aspect) ** 0.5)))
    return _placed(size, crop_width, crop_height, draw)


def fixed_crop_box(size: tuple[int, int], resize: int, crop: int, draw: Tensor) -> Box:
    """Where a square of `crop` pixels lies in the picture before its shorter side is resized to `resize`.

    Args:
        size: (width, height) of the picture.
        resize: pixels.
        crop: pixels, at most `resize`.
        draw: four numbers in [0, 1), of which the last two say left and top.
    """
    side = max(1.0, crop * min(size) / resize)
    return _placed(size, side, side, draw)


def _placed(size: tuple[int, int], width: float, height: float, draw: Tensor) -> Box:
    left, top = float(draw[2]) * (size[0] - width), float(draw[3]) * (size[1] - height)
    return left, top, left + width, top + height


def resize(pixels: Tensor, size: int) -> Tensor:
    """uint8 [h, w, 3] to [3, size, size], bicubic with antialiasing as in Pillow."""
    planes = pixels[None].permute(0, 3, 1, 2)
    if planes.shape[2:] != (size, size):
        planes = F.interpolate(planes, (size, size), mode="bicubic", antialias=True)
    return planes[0]


def symmetry(picture: Tensor, which: int) -> Tensor:
    """One of the 8 flips and right-angle rotations of a square [3, h, w]; 0 leaves it as it is."""
    turned = torch.rot90(picture, which % 4, (1, 2)) if which % 4 else picture
    return turned.flip(2) if which >= 4 else turned


@dataclass(frozen=True)
class Affine:
    """A random rotation, shift, zoom and shear; the ranges are those of torchvision's `RandomAffine`.

    Args:
        degrees: angle drawn from [-degrees, degrees].
        translate: shift along each axis, as a share of the side, drawn from [-translate, translate].
        scale: smallest and largest zoom.
        shear: angle parallel to the x axis drawn from [-shear, shear], in degrees.
    """

    degrees: float = 10.0
    translate: float = 0.1
    scale: tuple[float, float] = (0.8, 1.2)
    shear: float = 15.0

    def __post_init__(self) -> None:
        if not 0 <= self.degrees <= 180:
            raise ValueError(f"degrees is {self.degrees}; it must lie in [0, 180]")
        if not 0 <= self.translate <= 1:
            raise ValueError(f"translate is {self.translate}; it must lie in [0, 1]")
        if not 0 <= self.shear < 90:
            raise ValueError(f"shear is {self.shear}; it must lie in [0, 90)")
        check_range("scale", self.scale)

    def matrices(self, draw: Tensor) -> Tensor:
        """Homographies [n, 3, 3], from a place in the source to one in the result.

        Args:
            draw: [n, 5] in [0, 1): angle, shear, zoom, shift along x and y.
        """
        signed = draw * 2 - 1
        return affine_matrices(
            angle=radians(self.degrees) * signed[:, 0],
            shear=radians(self.shear) * signed[:, 1],
            zoom=self.scale[0] + draw[:, 2] * (self.scale[1] - self.scale[0]),
            shift=self.translate * signed[:, 3:],
        )


def affine_matrices(angle: Tensor, shear: Tensor, zoom: Tensor, shift: Tensor) -> Tensor:
    """Maps that shear, then turn and zoom about the centre, then shift.

    Args:
        angle: [n], in radians, clockwise.
        shear: [n], in radians.
        zoom: [n]; above 1 enlarges.
        shift: [n, 2], to the right and down, as shares of the side.

    Returns:
        [n, 3, 3], from a place in the source to one in the result, where the picture spans [-1, 1].
    """
    cosine, sine, slope = angle.cos(), angle.sin(), shear.tan()
    matrices = torch.zeros(len(angle), 3, 3, dtype=angle.dtype)
    matrices[:, 0, 0] = zoom * cosine
    matrices[:, 0, 1] = -zoom * (cosine * slope + sine)
    matrices[:, 1, 0] = zoom * sine
    matrices[:, 1, 1] = zoom * (cosine - sine * slope)
    matrices[:, :2, 2] = 2 * shift
    matrices[:, 2, 2] = 1
    return matrices


@dataclass(frozen=True)
class Perspective:
    """Moves the four corners inwards, as torchvision's `RandomPerspective`.

    Args:
        distortion: a corner moves at most by this share of half the side, along each axis.
        probability: share of pictures to which this happens.
    """

    distortion: float = 0.3
    probability: float = 0.3

    def __post_init__(self) -> None:
        # At 1 all corners could meet in the centre, and nothing maps a square onto a point.
        if not 0 <= self.distortion < 1:
            raise ValueError(f"distortion is {self.distortion}; it must lie in [0, 1)")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability is {self.probability}; it must lie in [0, 1]")

    def matrices(self, draw: Tensor) -> Tensor:
        """Homographies [n, 3, 3], from a place in the source to one in the result.

        Args:
            draw: [n, 9] in [0, 1): whether it happens; then how far inwards each corner goes, x and y.
        """
        corners = torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=draw.dtype)
        applied = (draw[:, 0] < self.probability)[:, None, None]
        moved = corners * (1 - self.distortion * draw[:, 1:].reshape(-1, 4, 2) * applied)
        return homography(corners.expand_as(moved), moved)


def homography(source: Tensor, target: Tensor) -> Tensor:
    """The projective maps that take four points to four others.

    Args:
        source: [n, 4, 2], no three of them on a line.
        target: likewise.

    Returns:
        [n, 3, 3], the last element 1.
    """
    zero, one = torch.zeros_like(source[..., :1]), torch.ones_like(source[..., :1])
    zeros, points = zero.expand_as(source), torch.cat([source, one], -1)
    nothing = torch.cat([zeros, zero], -1)
    x, y = target[..., :1], target[..., 1:]
    rows = torch.cat(
        [torch.cat([points, nothing, -x * source], -1), torch.cat([nothing, points, -y * source], -1)], 1
    )
    solved = torch.linalg.solve(rows, torch.cat([x, y], 1))[..., 0]
    return torch.cat([solved, torch.ones_like(solved[:, :1])], 1).view(-1, 3, 3)


def warp(batch: Tensor, matrices: Tensor) -> Tensor:
    """Moves every picture by its homography, bilinear, black where nothing was.

    Args:
        batch: square pictures [n, 3, h, w].
        matrices: [n, 3, 3], from source to result; the picture spans [-1, 1] on both axes.

    Returns:
        [n, 3, h, w].
    """
    size = batch.shape[-1]
    places = (torch.arange(size, dtype=torch.float32) * 2 + 1) / size - 1
    back = torch.linalg.inv(matrices).float()[:, :, :, None, None]
    x, y = places[None, None, :], places[None, :, None]
    source = [back[:, row, 0] * x + (back[:, row, 1] * y + back[:, row, 2]) for row in range(3)]
    grid = torch.stack([source[0] / source[2], source[1] / source[2]], -1)
    return F.grid_sample(batch, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def check_range(name: str, values: tuple[float, float]) -> None:
    """Raises ValueError unless the values are two numbers, above 0 and in order."""
    if len(values) != 2 or not all(isinstance(value, int | float) for value in values):
        raise ValueError(f"{name} is {list(values)}; it needs two numbers, low and high")
    low, high = values
    if not 0 < low <= high:
        raise ValueError(f"{name} is [{low}, {high}]; it needs 0 < low <= high")
