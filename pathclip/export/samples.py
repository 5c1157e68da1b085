"""Calibration and held-out samples for an export, from training shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import DataError
from pathclip.progress import track
from pathclip.runtime.preprocess import Preprocess, open_image
from pathclip.runtime.tokenizer import Tokenizer
from pathclip.shards.reader import read_shard, shard_sizes
from pathclip.shards.writer import SIZES, Sample

# More pairs are drawn than needed, because those in a group of the calibration set are no use to judge on.
POOL = 4
MOST_SHARDS = 64  # reading more of them takes longer than what is done with the pairs
LEAST = 8
BATCH = 16


@dataclass(frozen=True, slots=True)
class Samples:
    """Pairs as the towers see them.

    Attributes:
        pixels: uint8 [n, h, w, 3], resized and cropped.
        tokens: int64 [n, context_length].
        texts: the captions.
        preprocess: normalises pixels.
    """

    pixels: NDArray[np.uint8]
    tokens: NDArray[np.int64]
    texts: tuple[str, ...]
    preprocess: Preprocess

    def __len__(self) -> int:
        return len(self.texts)

    def part(self, start: int, stop: int) -> Samples:
        """The samples from `start` to before `stop`."""
        rows = slice(start, stop)
        return Samples(self.pixels[rows], self.tokens[rows], self.texts[rows], self.preprocess)

    def feeds(self, tower: str) -> Iterator[dict[str, np.ndarray]]:
        """Batches of 16 for the tower's ONNX graph; normalised one batch at a time."""
        for start in range(0, len(self), BATCH):
            rows = slice(start, start + BATCH)
            if tower == "image":
                yield {"pixels": self.preprocess.normalise(self.pixels[rows])}
            else:
                yield {"tokens": self.tokens[rows]}


def read_calibration(
    shards: Sequence[Path],
    samples: int,
    held_out: int,
    preprocess: Preprocess,
    tokenizer: Tokenizer,
    seed: int = 0,
    limit: int | None = None,
) -> tuple[Samples, Samples]:
    """Draws two sets of pairs that share no group, over all pairs of all folders alike.

    Shards are read once, front to back, and only the pairs that were drawn are held; of more than 64
    shards a random part is read.

    Args:
        shards: folders of shards, best those of training.
        samples: pairs to calibrate on.
        held_out: pairs to judge on; fewer if the shards have fewer.
        preprocess: of the model.
        tokenizer: of the model.
        seed: of the draw.
        limit: draw at most this many pairs for both sets together.

    Returns:
        (calibration, held-out).

    Raises:
        DataError: fewer than 8 pairs for one of the sets, a malformed shard or an unreadable image.
    """
    pool = POOL * (samples + held_out)
    drawn = draw_pairs(shards, min(pool, limit or pool), seed)
    # Where data is short, both sets shrink alike.
    share = min(1.0, len(drawn) / (samples + held_out))
    wanted = max(int(samples * share), 1)
    first = drawn[:wanted]
    groups = {_group(sample) for sample in first}
    second = [sample for sample in drawn[wanted:] if _group(sample) not in groups][:held_out]
    if len(first) < LEAST or len(second) < LEAST:
        raise DataError(
            f"{', '.join(map(str, shards))}: {len(first)} pairs to calibrate on and {len(second)} of other "
            f"groups to judge on; at least {LEAST} of each are needed. Name others: calibration.shards=…"
        )
    return (
        _as_arrays(first, preprocess, tokenizer, "calibration pairs"),
        _as_arrays(second, preprocess, tokenizer, "held-out pairs"),
    )


def halves(calibration: Samples) -> tuple[Samples, Samples]:
    """Three quarters to read ranges off, the rest to compare recipes by; all twice if they are too few."""
    split = max(1, len(calibration) * 3 // 4)
    used, selection = calibration.part(0, split), calibration.part(split, len(calibration))
    return used, selection if len(selection) else used


def draw_pairs(folders: Sequence[Path], count: int, seed: int = 0) -> list[Sample]:
    """A random sample, without replacement, of the pairs of all folders; in random order.

    Args:
        folders: of shards.
        count: pairs to draw; fewer if there are fewer.
        seed: decides which.

    Raises:
        DataError: a missing or malformed shard, or one with fewer pairs than its `sizes.json` says.
    """
    rng = np.random.default_rng(seed)
    sizes = [(Path(folder) / name, size) for folder in folders for name, size in shard_sizes(folder).items()]
    sizes = _some_shards(sizes, count, rng)
    ends = np.cumsum([size for _, size in sizes])
    places = rng.permutation(int(ends[-1]) if sizes else 0)[:count]
    numbers = np.searchsorted(ends, places, side="right")
    offsets = places - np.concatenate([[0], ends])[numbers]
    found: dict[tuple[int, int], Sample] = {}
    for number, (path, _) in enumerate(track(sizes, "Drawing pairs from shards")):
        drawn = _pairs_at(path, set(offsets[numbers == number].tolist()))
        found |= {(number, offset): sample for offset, sample in drawn.items()}
    return [found[key] for key in zip(numbers.tolist(), offsets.tolist(), strict=True)]


def _some_shards(
    sizes: list[tuple[Path, int]], count: int, rng: np.random.Generator
) -> list[tuple[Path, int]]:
    """All shards if they are few, else a random part with at least `count` pairs; in their order."""
    if len(sizes) <= MOST_SHARDS:
        return sizes
    order = rng.permutation(len(sizes))
    pairs = np.cumsum([sizes[number][1] for number in order])
    enough = max(MOST_SHARDS, int(np.searchsorted(pairs, count)) + 1)
    return [sizes[number] for number in sorted(order[:enough])]


def _pairs_at(path: Path, offsets: set[int]) -> dict[int, Sample]:
    """The pairs at these places of a shard; it is read no farther than to the last of them."""
    pairs = enumerate(islice(read_shard(path), max(offsets, default=-1) + 1))
    found = {offset: sample for offset, sample in pairs if offset in offsets}
    if len(found) < len(offsets):
        raise DataError(f"{path}: fewer pairs than {SIZES} says; write the shards again")
    return found


def _group(sample: Sample) -> str:
    return str(sample.meta.get("group") or sample.key)


def _as_arrays(found: Sequence[Sample], preprocess: Preprocess, tokenizer: Tokenizer, what: str) -> Samples:
    pixels, texts = [], []
    for sample in track(found, f"Reading {what}"):
        try:
            pixels.append(preprocess.pixels(open_image(sample.image)))
        except DataError as error:
            raise DataError(f"sample '{sample.key}': {error}") from error
        texts.append(sample.text)
    return Samples(np.stack(pixels), tokenizer(texts), tuple(texts), preprocess)
