"""Intervals the plain way, that those of the package are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate import stats


def bootstrap_mean(
    values: NDArray[Any], index: NDArray[np.int64], resamples: int, seed: int
) -> stats.Interval:
    """Interval of the mean of one value per image, images [n] in groups `index` [n]."""
    pairs = np.stack([np.asarray(values, np.float64), np.ones(len(values))], axis=1)
    return stats.bootstrap(stats.group_sums(pairs, index), stats.ratio, resamples, seed)


def bootstrap_median(
    values: NDArray[Any], index: NDArray[np.int64], resamples: int, seed: int
) -> tuple[stats.Interval, int]:
    """Interval of the median (the lower one of two) of one value per image, and the resamples used.

    The median is no function of sums, so this costs n numbers per resample; beyond some ten thousand
    images fewer resamples are drawn than asked for, at least 200.
    """
    resamples = min(resamples, max(200, 500_000_000 // max(1, len(values))))
    order = np.argsort(values, kind="stable")
    ordered, groups = np.asarray(values)[order], index[order]
    drawn = []
    step = max(1, 4_000_000 // len(values))
    for rows in stats.weights(int(index.max()) + 1, resamples, seed):
        for start in range(0, len(rows), step):
            cumulative = np.cumsum(rows[start : start + step, groups], axis=1)
            middle = np.argmax(cumulative >= cumulative[:, -1:] / 2, axis=1)
            drawn.append(ordered[middle])
    low, high = stats.quantiles(
        stats.of_groups(np.concatenate(drawn).astype(np.float64), int(index.max()) + 1)
    )
    return stats.Interval(float(ordered[(len(ordered) - 1) // 2]), low, high), resamples
