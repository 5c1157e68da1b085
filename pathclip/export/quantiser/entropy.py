"""The range of values whose 8-bit form keeps most of a tensor's distribution."""

from __future__ import annotations

import numpy as np

LEVELS = 128


def least_divergence_threshold(counts: np.ndarray, two_sided: bool) -> int:
    """The threshold at which clipping and rounding together change a distribution least.

    For each candidate the values beyond it are counted at it, the rest is merged into 128 levels, and the
    Kullback-Leibler divergence of the second from the first decides (Migacz 2017, "8-bit inference with
    TensorRT"; onnxruntime's calibrator does the same).

    Args:
        counts: of values in equal bins over [-limit, limit], an even number of bins.
        two_sided: whether there are values on both sides of zero; else all lie on one side of it.

    Returns:
        Number of bins from zero to the threshold, a multiple of 64 or 128.
    """
    half = len(counts) // 2
    # One side alone has all levels to itself.
    step = LEVELS // 2 if two_sided else LEVELS
    values = counts.astype(np.float64)
    # Zero, which ReLU gives in masses, is exact at every threshold and must not decide.
    values[half] = min(values[half], values[half + 1])
    if not two_sided:
        values = values[half:] if counts[half + 1 :].any() else values[:half][::-1]
    best = (float("inf"), half)
    for reach in range(step, half + 1, step):
        inside = slice(half - reach, half + reach) if two_sided else slice(0, reach)
        divergence = _divergence(values, inside)
        if divergence < best[0]:
            best = (divergence, reach)
    return best[1]


def _divergence(values: np.ndarray, inside: slice) -> float:
    """KL divergence in nats between the clipped values and the same in `LEVELS` levels."""
    kept = values[inside]
    clipped = kept.copy()
    clipped[0] += values[: inside.start].sum()
    clipped[-1] += values[inside.stop :].sum()
    groups = kept.reshape(LEVELS, -1)
    filled = clipped.reshape(LEVELS, -1) > 0
    spread = np.where(filled, (groups.sum(axis=1) / np.maximum(filled.sum(axis=1), 1))[:, None], 0.0).ravel()
    total, other = clipped.sum(), spread.sum()
    if total == 0 or other == 0:
        return float("inf")
    present = clipped > 0
    p, q = clipped[present] / total, spread[present] / other
    # What lies beyond the threshold may fall into a level that is empty inside it.
    return float((p * np.log(p / np.maximum(q, 1e-10))).sum())
