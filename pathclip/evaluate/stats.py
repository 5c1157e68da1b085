"""Bootstrap intervals over groups.

Images of one group (a slide, a case, a source tile) are no independent observations: an interval over
images would be too narrow. So whole groups are drawn with replacement (the cluster bootstrap; Efron and
Tibshirani 1993, chapter 8; Field and Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x).

Drawing a group twice is giving it the weight 2. A statistic that is a function of sums over images needs
only the sums per group, so a resample is one row of a matrix product and ten thousand take a moment.
Two encoders compared on the same images get the same weights: the difference is paired by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Any]
# Numbers drawn at once: 32 MB of int64.
_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A point estimate and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


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

    The same arguments give the same rows.
    """
    rng = np.random.default_rng([seed, n_groups])
    step = max(1, min(resamples, _AT_ONCE // max(1, n_groups)))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, n_groups, (rows, n_groups)) + n_groups * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n_groups)
        yield counts.reshape(rows, n_groups).astype(np.float64)


def bootstrap(
    sums: Floats | Sequence[Floats], statistic: Callable[..., Any], resamples: int, seed: int
) -> Interval:
    """Percentile interval of a statistic of sums.

    Args:
        sums: [G, …] per group, from `group_sums`; or several of the same groups, for a statistic of
            several arguments: the difference between two encoders, say.
        statistic: maps sums [..., …] (any leading dimensions) to values [...].
        resamples: at least 1; 10,000 give a stable second digit of the ends.
        seed: of the draws.

    Returns:
        The statistic of all images, and the 2.5 % and 97.5 % quantiles over resamples, those for which
        the statistic is not defined left out.
    """
    parts = [sums] if isinstance(sums, np.ndarray) else list(sums)
    value = float(statistic(*(part.sum(axis=0) for part in parts)))
    drawn = np.concatenate(
        [
            np.atleast_1d(statistic(*(np.tensordot(rows, part, axes=1) for part in parts)))
            for rows in weights(len(parts[0]), resamples, seed)
        ]
    )
    low, high = quantiles(drawn)
    return Interval(value, low, high)


def bootstrap_mean(values: NDArray[Any], index: NDArray[np.int64], resamples: int, seed: int) -> Interval:
    """Interval of the mean of one value per image, images [n] in groups `index` [n]; see `bootstrap`."""
    pairs = np.stack([np.asarray(values, np.float64), np.ones(len(values))], axis=1)
    return bootstrap(group_sums(pairs, index), ratio, resamples, seed)


def bootstrap_median(
    values: NDArray[Any], index: NDArray[np.int64], resamples: int, seed: int
) -> tuple[Interval, int]:
    """Interval of the median (the lower one of two) of one value per image, and the resamples used.

    The median is no function of sums, so this costs n numbers per resample; beyond some ten thousand
    images fewer resamples are drawn than asked for, at least 200.
    """
    resamples = min(resamples, max(200, 500_000_000 // max(1, len(values))))
    order = np.argsort(values, kind="stable")
    ordered, groups = np.asarray(values)[order], index[order]
    drawn = []
    step = max(1, _AT_ONCE // len(values))
    for rows in weights(int(index.max()) + 1, resamples, seed):
        for start in range(0, len(rows), step):
            cumulative = np.cumsum(rows[start : start + step, groups], axis=1)
            middle = np.argmax(cumulative >= cumulative[:, -1:] / 2, axis=1)
            drawn.append(ordered[middle])
    low, high = quantiles(np.concatenate(drawn).astype(np.float64))
    return Interval(float(ordered[(len(ordered) - 1) // 2]), low, high), resamples


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
