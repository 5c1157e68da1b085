"""Bootstrap intervals over groups, and what else tells a difference from luck.

Images of one group (a slide, a case, a source tile) are no independent observations: an interval over
images would be too narrow. So whole groups are drawn with replacement (the cluster bootstrap; Efron and
Tibshirani 1993, chapter 8; Field and Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x).

Drawing a group twice is giving it the weight 2. A statistic that is a function of sums over images needs
only the sums per group, so a resample is one row of a matrix product and ten thousand take a moment.
Two encoders compared on the same images get the same weights: the difference is paired by construction.
A single group has nothing to be drawn from but itself: its interval would have no width, which is no
certainty. So there is none, and its ends are NaN.
The weights of one number of groups, number of resamples and seed are drawn once and kept for the next
statistic, as long as they take no more than `_KEPT` bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Sums = Floats | Sequence[Floats]
Statistic = Callable[..., Any]
# Of one group every resample is the same.
FEWEST_GROUPS = 2
# Numbers drawn at once: 32 MB of int64.
_AT_ONCE = 4_000_000
# Bytes of one set of weights; of two at most: 10,000 resamples of 12,000 groups each.
_KEPT = 120_000_000
# float32 counts up to here without a gap.
_EXACT = 2**24


@dataclass(frozen=True, slots=True)
class Interval:
    """A point estimate and its 95 % bootstrap interval; NaN for the ends where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Resampled:
    """Statistics of all images, and of every resample.

    Attributes:
        value: float64 [...], of all images.
        drawn: float64 [resamples, ...]; the same row is the same resample, so rows may be subtracted.
    """

    value: Floats
    drawn: Floats

    def interval(self, *where: int) -> Interval:
        """The percentile interval of the statistic at this place of [...]."""
        return Interval(float(self.value[where]), *quantiles(self._drawn(where)))

    def difference(self, first: tuple[int, ...], second: tuple[int, ...]) -> Interval:
        """The interval of the statistic at one place minus that at another, paired by resample."""
        value = float(self.value[first] - self.value[second])
        return Interval(value, *quantiles(self._drawn(first) - self._drawn(second)))

    def _drawn(self, where: tuple[int, ...]) -> Floats:
        index: tuple[Any, ...] = (slice(None), *where)
        return np.asarray(self.drawn[index])


def group_index(groups: Sequence[str]) -> NDArray[np.int64]:
    """Group names to numbers 0 … G-1; an image whose group is empty (unknown) is a group of its own.

    >>> group_index(["a", "b", "a", "", ""]).tolist()
    [0, 1, 0, 2, 3]
    """
    numbers: dict[object, int] = {}
    keys = (name or position for position, name in enumerate(groups))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def group_sums(values: NDArray[Any], index: NDArray[np.int64]) -> Floats:
    """Sums of values [n, …] over the images of each group: float64 [G, …].

    >>> group_sums(np.array([1, 10, 2]), np.array([0, 1, 0])).tolist()
    [3.0, 10.0]
    """
    sums = np.zeros((int(index.max(initial=-1)) + 1, *values.shape[1:]))
    np.add.at(sums, index, values)
    return sums


def weights(n_groups: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each group was drawn, in pieces float64 [b, n_groups]; each row sums to n_groups.

    The same arguments give the same rows, and fewer resamples the first of them.
    """
    step = max(1, _AT_ONCE // max(1, n_groups))
    for counts in drawn_counts(n_groups, resamples, seed, step):
        yield counts.astype(np.float64)


def drawn_counts(n_groups: int, resamples: int, seed: int, step: int) -> Iterator[NDArray[np.uint8]]:
    """The same as `weights`, uint8 [b, n_groups] with b of at most `step` (and at most 4 million numbers).

    uint8 is enough: that a group is drawn 256 times has a probability below 1 / 256!.
    """
    step = max(1, min(step, resamples, _AT_ONCE // max(1, n_groups)))
    if n_groups * resamples > _KEPT:
        yield from _draw(n_groups, resamples, seed, step)
        return
    kept = _kept(n_groups, resamples, seed)
    for start in range(0, resamples, step):
        yield kept[start : start + step]


def bootstrap(sums: Sums, statistic: Statistic, resamples: int, seed: int) -> Interval:
    """Percentile interval of a statistic of sums.

    Args:
        sums: [G, …] per group, from `group_sums`; or several of the same groups, for a statistic of
            several arguments: the difference between two encoders, say.
        statistic: maps sums [..., …] (any leading dimensions) to values [...].
        resamples: at least 1; 10,000 give a stable second digit of the ends.
        seed: of the draws.

    Returns:
        The statistic of all images, and the 2.5 % and 97.5 % quantiles over resamples, those for which
        the statistic is not defined left out; NaN for both of fewer than `FEWEST_GROUPS`.
    """
    return bootstrap_many(sums, statistic, resamples, seed).interval()


def bootstrap_many(sums: Sums, statistic: Statistic, resamples: int, seed: int) -> Resampled:
    """Many statistics of the same images in one go, all from the same draws.

    Args:
        sums: as in `bootstrap`.
        statistic: maps sums [b, …] to values [b, ...]: of several encoders and metrics, say.
        resamples: at least 1.
        seed: of the draws.
    """
    parts = [sums] if isinstance(sums, np.ndarray) else list(sums)
    flat = [_flat(part) for part in parts]
    shapes = [part.shape[1:] for part in parts]
    n_groups, widest = len(parts[0]), max(part.shape[1] for part in flat)
    drawn = []
    for rows in drawn_counts(n_groups, resamples, seed, _AT_ONCE // max(1, widest)):
        products = (rows.astype(part.dtype) @ part for part in flat)
        shaped = (p.astype(np.float64).reshape(-1, *s) for p, s in zip(products, shapes, strict=True))
        drawn.append(np.asarray(statistic(*shaped), np.float64))
    value = np.asarray(statistic(*(part.sum(axis=0)[None] for part in parts)), np.float64)[0]
    return Resampled(value, of_groups(np.concatenate(drawn), n_groups))


def of_groups(drawn: Floats, n_groups: int) -> Floats:
    """Resampled values, all NaN if they come of too few groups to tell anything from: see the module.

    >>> of_groups(np.array([0.5, 0.5]), 1).tolist()
    [nan, nan]
    """
    return drawn if n_groups >= FEWEST_GROUPS else np.full_like(drawn, np.nan, dtype=np.float64)


def paired_swap_test(
    first_sums: Sums, second_sums: Sums, statistic: Statistic, resamples: int, seed: int
) -> float:
    """Two-sided p-value of the difference between two encoders on the same images, by permutation.

    If neither encoder is better, what they said of a group may as well have been said by the other. So
    in each of B resamples every group as a whole is swapped with probability 1/2, and

        p = (1 + #{|difference of a resample| >= |difference observed|}) / (1 + B),

    which is never 0 (approximate randomisation: Noreen 1989, Computer-Intensive Methods for Testing
    Hypotheses; the ones: Phipson and Smyth 2010, doi:10.2202/1544-6115.1585). A resample whose
    difference is not defined counts as extreme.

    Args:
        first_sums: as `sums` in `bootstrap`, of the one encoder.
        second_sums: of the other, the same groups in the same order.
        statistic: maps sums of one encoder [..., …] to values [...].
        resamples: B.
        seed: of the swaps.

    Returns:
        p in (0, 1]; NaN if the difference observed is not defined.
    """
    first, second = (
        [sums] if isinstance(sums, np.ndarray) else list(sums) for sums in (first_sums, second_sums)
    )
    observed = _only(statistic(*_totals(first)) - statistic(*_totals(second)))
    if not math.isfinite(observed):
        return math.nan
    n_groups = len(first[0])
    widest = max(part[0].size for part in first)
    step = max(1, min(resamples, _AT_ONCE // max(n_groups, widest, 1)))
    rng = np.random.default_rng([seed, n_groups])
    extreme = 0
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        swapped = rng.integers(0, 2, (rows, n_groups), dtype=np.uint8)
        moved = [_swapped_sums(swapped, one - other) for one, other in zip(first, second, strict=True)]
        one = statistic(*(total - part for total, part in zip(_totals(first), moved, strict=True)))
        other = statistic(*(total + part for total, part in zip(_totals(second), moved, strict=True)))
        difference = np.abs(np.asarray(one) - np.asarray(other))
        # What is equal but for rounding is as extreme.
        extreme += int((~(difference < abs(observed) - 1e-12)).sum())
    return (1 + extreme) / (1 + resamples)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values for several tests at once (Holm 1979, Scandinavian Journal of Statistics 6, 65-70).

    The k-th smallest of m is multiplied by m - k + 1, made no smaller than the one before, and at most
    1. NaN stays NaN and does not count as a test.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted((p, number) for number, p in enumerate(p_values) if not math.isnan(p))
    found = [math.nan] * len(p_values)
    so_far = 0.0
    for rank, (p, number) in enumerate(order):
        so_far = max(so_far, min(1.0, p * (len(order) - rank)))
        found[number] = so_far
    return found


def ratio(sums: Floats) -> Any:
    """First over second of sums [..., 2]: a mean, where the second counts."""
    return sums[..., 0] / sums[..., 1]


def quantiles(drawn: Floats) -> tuple[float, float]:
    """2.5 % and 97.5 % of resampled values [B], NaN left out; NaN if nothing is left."""
    defined = drawn[np.isfinite(drawn)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)


def _draw(n_groups: int, resamples: int, seed: int, step: int) -> Iterator[NDArray[np.uint8]]:
    rng = np.random.default_rng([seed, n_groups])
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, n_groups, (rows, n_groups)) + n_groups * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n_groups)
        yield counts.reshape(rows, n_groups).astype(np.uint8)


@lru_cache(maxsize=2)
def _kept(n_groups: int, resamples: int, seed: int) -> NDArray[np.uint8]:
    kept = np.empty((resamples, n_groups), np.uint8)
    start = 0
    for counts in _draw(n_groups, resamples, seed, max(1, _AT_ONCE // max(1, n_groups))):
        kept[start : start + len(counts)] = counts
        start += len(counts)
    kept.flags.writeable = False
    return kept


def _flat(part: Floats) -> NDArray[Any]:
    """[G, …] as [G, k]: float32, which multiplies twice as fast, where every product is exact in it."""
    flat = np.asarray(part, np.float64).reshape(len(part), -1)
    counts = np.abs(flat).max(initial=0) * len(flat) < _EXACT and bool((flat == np.rint(flat)).all())
    return flat.astype(np.float32) if counts else flat


def _totals(parts: Sequence[Floats]) -> list[Floats]:
    return [part.sum(axis=0)[None] for part in parts]


def _swapped_sums(swapped: NDArray[np.uint8], difference: Floats) -> Floats:
    flat = _flat(difference)
    product = (swapped.astype(flat.dtype) @ flat).astype(np.float64)
    return product.reshape(-1, *difference.shape[1:])


def _only(values: Any) -> float:
    return float(np.asarray(values).ravel()[0])
