"""Shards of a few coloured squares with captions, for tests of everything that reads shards."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from pathclip.shards.writer import Manifest, Sample, write_shards

COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 60, 200), "grey": (128, 128, 128)}


def jpeg(colour: tuple[int, int, int], seed: int, size: int = 40) -> bytes:
    """A noisy square as JPEG."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 12, (size, size, 3))
    pixels = np.clip(np.array(colour)[None, None] + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def samples(n: int) -> list[Sample]:
    """n samples; every two neighbours share a group, the caption names the colour."""
    names = list(COLOURS)
    return [
        Sample(
            f"s{i:04d}",
            jpeg(COLOURS[names[(i // 2) % 4]], i),
            f"a {names[(i // 2) % 4]} square, number {i // 2}",
            {"id": f"s{i:04d}", "group": f"g{i // 2}", "label": names[(i // 2) % 4]},
        )
        for i in range(n)
    ]


def write(folder: Path, n: int = 40, per_shard: int = 12) -> Manifest:
    """Writes n samples into shards of `per_shard`."""
    return write_shards(folder, samples(n), per_shard)
