"""The brushes of drawn histology: smooth noise, fibres, cell mosaics, nuclei and stroma."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# float32 [size, size] for a field of pixels, float32 [n, 2] for points (x, y).
Map = NDArray[Any]
FIELD = 160.0


class Canvas:
    """A tile being drawn: coordinates, the two density maps, and the brushes that several tissues share.

    Attributes:
        x, y: coordinates of the pixels, float32 [size, size], in [0, 160).
        h, e: haematoxylin and eosin density, float32 [size, size], at least 0.
        zoom: magnification of this tile, in [0.8, 1.3].
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size, self.rng = size, rng
        self.unit = size / FIELD
        axis = (np.arange(size, dtype=np.float32) + 0.5) / self.unit
        self.x, self.y = np.meshgrid(axis, axis)
        self.h: Map = np.zeros((size, size), np.float32)
        self.e: Map = np.zeros((size, size), np.float32)
        self.zoom = float(rng.uniform(0.8, 1.3))

    def noise(self, length: float, stretch: float = 1.0) -> Map:
        """A smooth random field of about unit deviation whose features are `length` wide."""
        rows = max(2, round(FIELD / length)) + 3
        columns = max(2, round(FIELD / (length * stretch))) + 3
        return enlarge(self.rng.standard_normal((rows, columns)), self.size, margin=1.5) * 1.3

    def fibres(self, u: Map, v: Map, width: float, length: float) -> Map:
        """Noise stretched along u: a field of fibres `width` thick and `length` long, sampled at (u, v)."""
        from scipy.ndimage import map_coordinates

        grid = self.rng.standard_normal((64, 64)).astype(np.float32)
        return map_coordinates(grid, [v / width, u / length], order=1, mode="grid-wrap")

    def lattice(self, spacing: float, jitter: float) -> Map:
        """Points [n, 2] of a jittered hexagonal lattice that covers the tile and its rim."""
        across = np.arange(-spacing, FIELD + spacing, spacing)
        down = np.arange(-spacing, FIELD + spacing, spacing * 0.87)
        x, y = np.meshgrid(across, down)
        x = x + (np.arange(len(x)) % 2)[:, None] * spacing / 2
        points = np.stack([x.ravel(), y.ravel()], 1) + self.rng.uniform(0, spacing, 2)
        points += self.rng.normal(0, jitter * spacing, points.shape)
        return points.astype(np.float32)

    def at(self, field: Map, points: Map) -> Map:
        """The field's values [n] at points [n, 2]; points outside take the nearest pixel's."""
        index = np.clip((points * self.unit).astype(int), 0, self.size - 1)
        return field[index[:, 1], index[:, 0]]

    def nearest(self, points: Map, warp: float = 0.0, length: float = 30.0) -> tuple[Map, Map]:
        """Distances [size, size] to the nearest and the second nearest point, in warped space."""
        from scipy.spatial import cKDTree

        x, y = self.x, self.y
        if warp:
            x, y = x + warp * self.noise(length), y + warp * self.noise(length)
        # Distances are smooth enough to be computed on every second pixel: four times faster.
        coarse = np.stack([x[::2, ::2].ravel(), y[::2, ::2].ravel()], 1)
        found, _ = cKDTree(points).query(coarse, k=2)
        side = (self.size + 1) // 2
        near, far = (enlarge(found[:, i].reshape(side, side), self.size) for i in (0, 1))
        return near, far

    def nuclei(
        self,
        points: Map,
        length: float,
        width: float,
        angle: Map | float | None = None,
        density: float = 1.0,
        open_chromatin: float = 0.0,
        pleomorphism: float = 0.1,
    ) -> None:
        """Puts ellipses of haematoxylin at points [n, 2].

        Args:
            points: centres.
            length: half of the long axis.
            width: half of the short axis.
            angle: of the long axis to x in radians, [n] or one; random where None.
            density: haematoxylin in the darkest part.
            open_chromatin: in [0, 1]; 1 leaves a rim and a nucleolus, as in vesicular nuclei.
            pleomorphism: relative deviation of size and bulge of the outline.
        """
        inside = ((points > -length) & (points < FIELD + length)).all(1)
        points, n, rng = points[inside], int(inside.sum()), self.rng
        if n == 0:
            return
        if angle is None:
            turn = rng.uniform(0, np.pi, n)
        else:
            turn = (angle[inside] if isinstance(angle, np.ndarray) else angle) + rng.normal(0, 0.12, n)
        grow = np.exp(np.clip(rng.normal(0, pleomorphism, (2, n)), -0.5, 0.5))
        # One row per nucleus: centre, half axes, direction, bulges, tone, place of the nucleolus.
        traits = np.stack(
            [
                *(points.T * self.unit),
                length * self.unit * grow[0],
                width * self.unit * grow[1],
                np.cos(turn),
                np.sin(turn),
                *rng.normal(0, min(pleomorphism, 0.25), (2, n)),
                density * np.exp(rng.normal(0, 0.12, n)),
                *rng.uniform(-0.3, 0.3, (2, n)),
            ]
        ).astype(np.float32)
        row, column, which, u, v = self._under(traits)
        b, bulge, slant, tone, spot_u, spot_v = traits[[3, 6, 7, 8, 9, 10]][:, which]
        square = u * u + v * v + np.float32(1e-6)
        radius = np.sqrt(square)
        radius *= 1 + (bulge * (u * u - v * v) + slant * u * v) / square
        edge = np.clip((1.05 - radius) * b / 1.1, 0, 1)
        if open_chromatin:
            nucleolus = np.exp(-((u - spot_u) ** 2 + (v - spot_v) ** 2) / np.float32(0.05))
            tone = tone * (1 - 0.75 * open_chromatin * np.clip(1.25 - 1.3 * radius, 0, 1) * (1 - nucleolus))
        # A nucleus hides what lies under it, also where its own chromatin is pale.
        np.multiply.at(self.h, (row, column), 1 - edge)
        np.maximum.at(self.h, (row, column), edge * tone)

    def _under(self, traits: Map) -> tuple[NDArray, NDArray, NDArray, Map, Map]:
        """Pixels that the nuclei may cover: row, column, index of the nucleus, and place in its own axes."""
        x, y, a, b, cos, sin = (trait[:, None, None] for trait in traits[:6])
        reach = int(np.ceil(max(a.max(), b.max()) * 1.15)) + 1
        step = np.arange(-reach, reach + 1)
        row = np.floor(y).astype(int) + step[None, :, None]
        column = np.floor(x).astype(int) + step[None, None, :]
        dx, dy = (
            (column + np.float32(0.5) - x).astype(np.float32),
            (row + np.float32(0.5) - y).astype(np.float32),
        )
        u, v = (dx * cos + dy * sin) / a, (dy * cos - dx * sin) / b
        near = (u * u + v * v < 1.7) & (row >= 0) & (row < self.size) & (column >= 0) & (column < self.size)
        which, i, j = np.nonzero(near)
        return row[which, i, 0], column[which, 0, j], which, u[near], v[near]

    def stroma(self, where: Map, cells: float = 0.35, angle: float | None = None) -> None:
        """Fills `where` (weights in [0, 1]) with wavy collagen and a few spindle-shaped fibroblasts."""
        turn = self.rng.uniform(0, np.pi) if angle is None else angle
        u, v = turned(self.x, self.y, turn)
        v = v + 5 * self.noise(38)
        collagen = 0.5 + 0.13 * self.fibres(u, v, 3.2, 30)
        gaps = np.clip(self.fibres(u, v, 5.0, 40) - 1.5, 0, 1)
        self.e = self.e * (1 - where) + where * np.clip(collagen - 0.45 * gaps, 0.03, None)
        self.h = self.h * (1 - where) + where * 0.08
        points = self.lattice(11, 0.35)
        points = points[(self.at(where, points) > 0.6) & (self.rng.random(len(points)) < cells)]
        self.nuclei(points, 5.0, 1.3, turn, 0.85, pleomorphism=0.25)


def enlarge(field: NDArray, size: int, margin: float = 0.0) -> Map:
    """The field, less `margin` cells at each side, at [size, size] by bicubic interpolation."""
    height, width = field.shape
    picture = Image.fromarray(np.ascontiguousarray(field, dtype=np.float32), mode="F")
    box = (margin, margin, width - margin, height - margin)
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, box=box))


def turned(x: Map, y: Map, angle: float) -> tuple[Map, Map]:
    """Coordinates along and across a direction given in radians."""
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return c * x + s * y, c * y - s * x


def ramp(field: Map, low: float, high: float) -> Map:
    """0 below `low`, 1 above `high`, straight between."""
    return np.clip((field - low) / (high - low), 0, 1).astype(np.float32)


def slope(canvas: Canvas, field: Map, points: Map) -> Map:
    """Direction of the field's gradient at the points, in radians."""
    dy, dx = np.gradient(field)
    return np.arctan2(canvas.at(dy, points), canvas.at(dx, points))
