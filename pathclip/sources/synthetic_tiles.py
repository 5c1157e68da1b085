"""H&E-like tiles whose class shows in their morphology alone; colour belongs to the laboratory.

A tile is drawn as two density maps (`synthetic_tissue`), haematoxylin and eosin. The joint distribution of
the two over the tile's pixels is then replaced by one drawn without regard to the class, so that no
statistic of single pixels (mean, deviation, histogram, in any colour space) tells the classes apart. The
maps become RGB by the Beer-Lambert law with the laboratory's stain vectors, white balance, brightness, noise
and JPEG quality.

Methods: Ruifrok and Johnston, Anal Quant Cytol Histol 2001 (stain vectors); Rosenblatt, Ann Math Stat 1952
(rearrangement of one joint distribution into another).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathclip.sources import synthetic_tissue as tissue
from pathclip.sources.synthetic_canvas import Canvas, Map, enlarge
from pathclip.sources.synthetic_distractors import draw_distractor

__all__ = ["CLASSES", "LABORATORIES", "Laboratory", "draw_distractor", "draw_tile"]

Tile = NDArray[np.uint8]

# Class -> how pathologists write it; the first synonym is the name itself.
CLASSES: dict[str, tuple[str, ...]] = {
    "adenocarcinoma": ("adenocarcinoma", "invasive adenocarcinoma", "infiltrating malignant glands"),
    "squamous cell carcinoma": (
        "squamous cell carcinoma",
        "keratinizing squamous carcinoma",
        "SCC with keratin pearls",
    ),
    "mucinous carcinoma": (
        "mucinous carcinoma",
        "colloid carcinoma",
        "tumor clusters floating in mucin pools",
    ),
    "adipose tissue": ("adipose tissue", "mature fat", "lipoma with mature adipocytes"),
    "lymphoid infiltrate": (
        "lymphoid infiltrate",
        "dense lymphocytic inflammation",
        "sheets of small lymphocytes",
    ),
    "necrosis": ("necrosis", "coagulative necrosis", "necrotic debris with karyorrhexis"),
    "smooth muscle": ("smooth muscle", "leiomyoma", "fascicles of smooth muscle with cigar-shaped nuclei"),
    "benign glands": ("benign glands", "normal colonic crypts", "regular crypts with goblet cells"),
    "squamous epithelium": (
        "squamous epithelium",
        "normal stratified squamous mucosa",
        "benign squamous epithelium with orderly maturation",
    ),
}

_DRAW: dict[str, Callable[[Canvas], None]] = {
    "adenocarcinoma": tissue.adenocarcinoma,
    "squamous cell carcinoma": tissue.squamous_carcinoma,
    "mucinous carcinoma": tissue.mucinous_carcinoma,
    "adipose tissue": tissue.adipose,
    "lymphoid infiltrate": tissue.lymphoid,
    "necrosis": tissue.necrosis,
    "smooth muscle": tissue.smooth_muscle,
    "benign glands": tissue.benign_glands,
    "squamous epithelium": tissue.squamous_epithelium,
}


@dataclass(frozen=True)
class Laboratory:
    """What staining and scanning do to every tile of one laboratory, whatever the tissue.

    Attributes:
        name: short name, used in the truth of the feed.
        haematoxylin: optical density per unit of stain in red, green, blue.
        eosin: likewise.
        strength: mean concentration of (haematoxylin, eosin).
        white: colour of empty glass, red, green, blue in [0, 1].
        blur: deviation of the point spread in pixels of a 160-pixel tile.
        noise: deviation of the sensor noise in grey levels.
        quality: JPEG quality, lowest and highest.
    """

    name: str
    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    strength: tuple[float, float]
    white: tuple[float, float, float]
    blur: float
    noise: float
    quality: tuple[int, int]


LABORATORIES: tuple[Laboratory, ...] = (
    Laboratory(
        "north", (0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (1.0, 0.80), (0.96, 0.96, 0.96), 0.4, 2.0, (80, 95)
    ),
    Laboratory(
        "south", (0.55, 0.76, 0.34), (0.14, 0.90, 0.30), (1.3, 1.10), (0.93, 0.90, 0.92), 0.6, 3.0, (70, 90)
    ),
    Laboratory(
        "coast", (0.75, 0.60, 0.25), (0.05, 0.85, 0.25), (0.8, 1.05), (0.98, 0.97, 0.93), 0.3, 2.5, (75, 95)
    ),
    Laboratory(
        "valley", (0.60, 0.74, 0.42), (0.20, 0.92, 0.45), (0.9, 0.65), (0.90, 0.93, 0.97), 0.7, 1.5, (65, 85)
    ),
    Laboratory(
        "harbour", (0.70, 0.66, 0.20), (0.03, 0.95, 0.04), (1.4, 0.75), (0.97, 0.92, 0.95), 0.5, 4.0, (60, 80)
    ),
    Laboratory(
        "hill", (0.50, 0.80, 0.30), (0.10, 0.80, 0.38), (0.7, 0.90), (0.88, 0.88, 0.86), 0.4, 3.5, (80, 92)
    ),
    Laboratory(
        "island", (0.68, 0.62, 0.38), (0.16, 0.96, 0.18), (1.1, 1.30), (0.95, 0.96, 0.90), 0.6, 2.0, (70, 95)
    ),
    Laboratory(
        "forest", (0.58, 0.70, 0.40), (0.08, 0.88, 0.12), (0.9, 0.55), (0.99, 0.98, 0.99), 0.3, 1.5, (85, 95)
    ),
)


def draw_tile(
    class_name: str, rng: np.random.Generator, laboratory: Laboratory | None = None, size: int = 160
) -> Tile:
    """Draws one tile as a laboratory would show it.

    Args:
        class_name: a key of `CLASSES`.
        rng: the only source of chance; the same state gives the same tile.
        laboratory: one of `LABORATORIES`; drawn at random where None.
        size: side in pixels, a multiple of 8; the field of view stays the same.

    Returns:
        RGB, uint8 [size, size, 3].

    Raises:
        ValueError: `class_name` is no class, or `size` is no multiple of 8.
    """
    if class_name not in _DRAW:
        raise ValueError(f"there is no class '{class_name}'; known: {', '.join(_DRAW)}")
    if size < 32 or size % 8:
        raise ValueError(f"size must be a multiple of 8 and at least 32, not {size}")
    draw = _DRAW[class_name]
    if laboratory is None:
        laboratory = LABORATORIES[int(rng.integers(len(LABORATORIES)))]
    canvas = Canvas(size, rng)
    draw(canvas)
    drawn = _ordered(np.stack([canvas.h, canvas.e]), laboratory.blur * size / 160, rng)
    moved = transport(drawn.reshape(2, -1), stain_content(size * size, rng))
    h, e = moved.reshape(2, size, size)
    return _scan(h, e, laboratory, rng)


# What the pixels of a stained section are: haematoxylin and eosin density, mean and deviation; share of the
# pixels before normalising, lowest and highest.
_PIXELS = np.array(
    [
        # h     ±      e     ±     share
        (0.00, 0.015, 0.00, 0.02, 0.12, 0.30),  # empty glass
        (0.08, 0.040, 0.18, 0.07, 0.08, 0.20),  # pale: mucin, oedema
        (0.12, 0.050, 0.50, 0.12, 0.25, 0.45),  # pink: stroma, cytoplasm
        (0.16, 0.060, 0.85, 0.12, 0.05, 0.15),  # deep pink: keratin, muscle
        (0.38, 0.120, 0.45, 0.12, 0.12, 0.12),  # purple: edges of nuclei
        (0.85, 0.200, 0.40, 0.12, 0.10, 0.20),  # nuclei
    ],
    np.float32,
)


def stain_content(pixels: int, rng: np.random.Generator) -> Map:
    """Haematoxylin and eosin densities, float32 [2, pixels], of a tile of any class.

    The shares of glass, stroma, nuclei … vary from tile to tile, without regard to what is drawn.
    """
    shares = rng.uniform(_PIXELS[:, 4], _PIXELS[:, 5])
    counts = np.floor(shares / shares.sum() * pixels).astype(int)
    counts[2] += pixels - counts.sum()
    mean = np.repeat(_PIXELS[:, [0, 2]], counts, axis=0).T
    deviation = np.repeat(_PIXELS[:, [1, 3]], counts, axis=0).T
    return np.abs(mean + deviation * rng.standard_normal((2, pixels), dtype=np.float32))


def transport(values: Map, target: Map, bins: int = 64) -> Map:
    """Moves 2-D samples so that their joint distribution becomes that of `target`.

    Knothe-Rosenblatt rearrangement: the samples are ranked by total stain, so that glass stays glass and the
    darkest stays darkest; among those of about equal total, by how blue they are. What comes out is a
    permutation of `target`.

    Args:
        values: haematoxylin and eosin, float32 [2, n].
        target: float32 [2, n].
        bins: groups of about equal total stain; must divide n.
    """
    places, found = (_ranked(samples, bins) for samples in (values, target))
    moved = np.empty_like(target)
    moved[:, places] = target[:, found]
    return moved


def _ranked(samples: Map, bins: int) -> NDArray[np.intp]:
    """Indices [n] of the samples by total stain, and within each of `bins` groups by blueness."""
    h, e = samples
    order = np.argsort(h + np.float32(0.7) * e).reshape(bins, -1)
    blueness = (h - np.float32(0.7) * e)[order]
    return np.take_along_axis(order, np.argsort(blueness, axis=1), axis=1).ravel()


def _ordered(density: Map, blur: float, rng: np.random.Generator) -> Map:
    """Blurs as the scanner does and gives pixels that are equal by drawing, such as empty glass, an order.

    Blurred here and not after the transport, which would lower the contrast of fine tissues more than of
    coarse ones, so that the class would show in the histogram. The order is by nearness to what is stained:
    where the transport asks for more stain than was drawn, it thickens what is there instead of speckling
    the glass.
    """
    from scipy.ndimage import gaussian_filter

    side = density.shape[1]
    sharp = gaussian_filter(density, (0, blur, blur), truncate=3.0)
    # The halo is so smooth that a sixteenth of the pixels, blurred and enlarged, shows all of it.
    halo = [enlarge(gaussian_filter(coarse, side / 80), side) for coarse in density[:, 2::4, 2::4]]
    return sharp + 0.12 * np.stack(halo) + 0.001 * rng.standard_normal(density.shape, dtype=np.float32)


def _scan(h: Map, e: Map, laboratory: Laboratory, rng: np.random.Generator) -> Tile:
    strength = np.array(laboratory.strength) * np.exp(rng.normal(0, 0.18, 2))
    stain_h = np.clip(np.array(laboratory.haematoxylin) + rng.normal(0, 0.05, 3), 0.02, None)
    stain_e = np.clip(np.array(laboratory.eosin) + rng.normal(0, 0.05, 3), 0.02, None)
    density = h[..., None] * (strength[0] * stain_h).astype(np.float32)
    density += e[..., None] * (strength[1] * stain_e).astype(np.float32)
    white = np.array(laboratory.white) * np.exp(rng.normal(0, 0.025, 3)) * rng.uniform(0.88, 1.03)
    gamma = rng.uniform(0.85, 1.2)
    light = (255 * white**gamma).astype(np.float32) * np.exp(np.float32(-1.35 * gamma) * density)
    light += rng.standard_normal(light.shape, dtype=np.float32) * np.float32(laboratory.noise)
    picture = np.clip(light, 0, 255).astype(np.uint8)
    return _compressed(picture, int(rng.integers(laboratory.quality[0], laboratory.quality[1] + 1)))


def _compressed(picture: Tile, quality: int) -> Tile:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling=0)
    return np.asarray(Image.open(file)).copy()
