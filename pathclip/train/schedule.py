"""Learning-rate schedules: a factor in [0, 1] as a function of the step."""

from __future__ import annotations

import math


def warmup_cosine(step: int, total: int, warmup: int | float = 0.1, floor: float = 0.0) -> float:
    """Linear warm-up, then half a cosine down to `floor` (Loshchilov & Hutter 2017).

    Args:
        step: 0-based.
        total: steps of the whole run.
        warmup: steps if a whole number, else a share of the run.
        floor: factor at the end.
    """
    rise = warmup if isinstance(warmup, int) else round(warmup * total)
    rise = min(rise, max(total - 1, 0))
    if step < rise:
        return (step + 1) / (rise + 1)
    done = min(1.0, (step - rise) / max(1, total - rise))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


def constant(step: int, total: int) -> float:
    """The same learning rate throughout."""
    return 1.0
