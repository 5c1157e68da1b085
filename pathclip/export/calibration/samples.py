"""Pairs for an export: drawn from shards, and divided into sets that share no group."""

from __future__ import annotations

from collections import Counter
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
        groups: what must not be split, of each pair; empty where nobody asks.
        labels: class of each pair as its shard names it, '' where it names none; empty where nobody asks.
    """

    pixels: NDArray[np.uint8]
    tokens: NDArray[np.int64]
    texts: tuple[str, ...]
    preprocess: Preprocess
    groups: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def part(self, start: int, stop: int) -> Samples:
        """The samples from `start` to before `stop`."""
        return self.take(range(len(self))[start:stop])

    def take(self, rows: Sequence[int]) -> Samples:
        """The samples with these numbers."""
        numbers = list(rows)
        return Samples(
            self.pixels[numbers],
            self.tokens[numbers],
            tuple(self.texts[i] for i in numbers),
            self.preprocess,
            tuple(self.groups[i] for i in numbers) if self.groups else (),
            tuple(self.labels[i] for i in numbers) if self.labels else (),
        )

    def feeds(self, tower: str) -> Iterator[dict[str, np.ndarray]]:
        """Batches of 16 for the tower's ONNX graph; normalised one batch at a time."""
        for start in range(0, len(self), BATCH):
            rows = slice(start, start + BATCH)
            if tower == "image":
                yield {"pixels": self.preprocess.normalise(self.pixels[rows])}
            else:
                yield {"tokens": self.tokens[rows]}


@dataclass(frozen=True, slots=True)
class LabelledSamples:
    """Pictures with a class each, to measure zero-shot answers on; no tower was fitted to them.

    Attributes:
        pixels: uint8 [n, h, w, 3], resized and cropped.
        labels: class numbers int64 [n].
        groups: what must not be split, of each picture; one of its own where it is not known.
        classes: names, in the order of the numbers.
        prompts: tokens int64 [prompts, context_length] of all classes, one class after another.
        prompt_classes: class number of each prompt, int64 [prompts].
        preprocess: normalises pixels.
        source: where they come from, for people.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    groups: tuple[str, ...]
    classes: tuple[str, ...]
    prompts: NDArray[np.int64]
    prompt_classes: NDArray[np.int64]
    preprocess: Preprocess
    source: str

    def __len__(self) -> int:
        return len(self.labels)

    def samples(self) -> Samples:
        """The pictures as the image tower takes them; their texts are empty."""
        blank = np.zeros((len(self), self.prompts.shape[1]), np.int64)
        return Samples(self.pixels, blank, ("",) * len(self), self.preprocess)

    def prompt_samples(self) -> Samples:
        """The prompts as the text tower takes them; their pictures are empty."""
        return text_samples(self.prompts, self.preprocess)


def text_samples(tokens: NDArray[np.int64], preprocess: Preprocess) -> Samples:
    """Texts alone, as tokens int64 [n, context_length]; their pictures are empty."""
    return Samples(np.zeros((len(tokens), 1, 1, 3), np.uint8), tokens, ("",) * len(tokens), preprocess)


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
    drawn = draw_pool(shards, samples + held_out, seed, limit)
    sides = apart_by_group([group_of(sample) for sample in drawn], samples, held_out)
    first, second = ([drawn[number] for number in numbers] for numbers in sides)
    if len(first) < LEAST or len(second) < LEAST:
        raise DataError(
            f"{', '.join(map(str, shards))}: {len(first)} pairs to calibrate on and {len(second)} of other "
            f"groups to judge on; at least {LEAST} of each are needed. Name others: calibration.shards=…"
        )
    return (
        as_arrays(first, preprocess, tokenizer, "calibration pairs"),
        as_arrays(second, preprocess, tokenizer, "held-out pairs"),
    )


def apart_by_group(groups: Sequence[str], *wanted: int) -> tuple[list[int], ...]:
    """Sets of samples of which no two share a group; where there are too few, all are short, once each has 8.

    Each group goes to the set that has the smallest part of what it wants, so that a set holds pairs of many
    groups rather than all of a few.

    Args:
        groups: of each sample, in random order.
        wanted: samples that each set wants, at most; none of them 0.

    Returns:
        Numbers of the samples of each set, in their order.
    """
    sets = range(len(wanted))
    filled = [0 for _ in sets]
    side: dict[str, int] = {}

    def served(one: int) -> tuple[bool, float]:
        return filled[one] >= min(LEAST, wanted[one]), filled[one] / wanted[one]

    # The largest first: what comes late evens out what came before.
    for group, size in Counter(groups).most_common():
        side[group] = min(sets, key=served)
        filled[side[group]] += size
    return tuple(
        [number for number, group in enumerate(groups) if side[group] == one][: wanted[one]] for one in sets
    )


def draw_pool(folders: Sequence[Path], count: int, seed: int = 0, limit: int | None = None) -> list[Sample]:
    """A random sample of four times as many pairs as are needed, `limit` at most; see `draw_pairs`."""
    pool = POOL * count
    return draw_pairs(folders, min(pool, limit or pool), seed)


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


def group_of(sample: Sample) -> str:
    """What must not be split: the group that the shard names, else the pair itself."""
    return str(sample.meta.get("group") or sample.key)


def as_arrays(found: Sequence[Sample], preprocess: Preprocess, tokenizer: Tokenizer, what: str) -> Samples:
    """Pairs as the towers see them; `what` they are stands beside the bar.

    Raises:
        DataError: an unreadable picture.
    """
    pixels, texts, groups, labels = [], [], [], []
    for sample in track(found, f"Reading {what}"):
        try:
            pixels.append(preprocess.pixels(open_image(sample.image)))
        except DataError as error:
            raise DataError(f"sample '{sample.key}': {error}") from error
        texts.append(sample.text)
        groups.append(group_of(sample))
        labels.append(str(sample.meta.get("label") or ""))
    return Samples(np.stack(pixels), tokenizer(texts), tuple(texts), preprocess, tuple(groups), tuple(labels))
