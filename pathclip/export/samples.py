"""Calibration and held-out samples for an export, from training shards."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import DataError
from pathclip.progress import track
from pathclip.runtime.preprocess import Preprocess, open_image
from pathclip.runtime.tokenizer import Tokenizer
from pathclip.shards.reader import read_samples

# Samples are drawn from that many times what is needed, so that one shard's order matters less.
POOL = 4
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
    """Draws two sets of pairs that share no group.

    Args:
        shards: folders of shards, best those of training.
        samples: pairs to calibrate on.
        held_out: pairs to judge on; fewer if the shards have fewer.
        preprocess: of the model.
        tokenizer: of the model.
        seed: of the draw.
        limit: read at most this many pairs from the shards.

    Returns:
        (calibration, held-out).

    Raises:
        DataError: fewer than 8 pairs for one of the sets, or an unreadable image.
    """
    pool = POOL * (samples + held_out)
    stream = itertools.chain.from_iterable(read_samples(folder) for folder in shards)
    found = list(itertools.islice(stream, min(pool, limit or pool)))
    order = np.random.default_rng(seed).permutation(len(found))
    drawn = [found[i] for i in order]
    # Where data is short, both sets shrink alike.
    share = min(1.0, len(drawn) / (samples + held_out))
    wanted = max(int(samples * share), 1)
    first, groups = [], set()
    for sample in drawn[:wanted]:
        first.append(sample)
        groups.add(sample.meta.get("group", sample.key))
    second = [s for s in drawn[wanted:] if s.meta.get("group", s.key) not in groups][:held_out]
    if len(first) < 8 or len(second) < 8:
        raise DataError(
            f"{shards[0]}: {len(first)} pairs to calibrate on and {len(second)} of other groups to judge on; "
            "at least 8 of each are needed. Name other shards: calibration.shards=…"
        )
    return (
        _as_arrays(first, preprocess, tokenizer, "calibration pairs"),
        _as_arrays(second, preprocess, tokenizer, "held-out pairs"),
    )


def _as_arrays(found: Sequence, preprocess: Preprocess, tokenizer: Tokenizer, what: str) -> Samples:
    pixels, texts = [], []
    for sample in track(found, f"Reading {what}"):
        try:
            pixels.append(preprocess.pixels(open_image(sample.image)))
        except DataError as error:
            raise DataError(f"sample '{sample.key}': {error}") from error
        texts.append(sample.text)
    return Samples(np.stack(pixels), tokenizer(texts), tuple(texts), preprocess)
