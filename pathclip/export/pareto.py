"""Which of several trials to take, when one is faster and another nearer to fp32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

# Two timings that differ by less are called equally fast: a busy machine moves them by as much.
EQUALLY_FAST = 0.03


class Judged(Protocol):
    """What has a speed and a fidelity; more is better of both."""

    @property
    def speed(self) -> float:
        """Samples per second over those of fp32."""

    @property
    def faithful(self) -> float:
        """1 for fp32 itself."""


def front(trials: Sequence[Judged]) -> list[int]:
    """Numbers of the trials that no other one beats in speed or fidelity without losing in the other.

    Of trials alike in both the first is taken.
    """
    kept = []
    for number, one in enumerate(trials):
        beaten = any(
            other.speed >= one.speed
            and other.faithful >= one.faithful
            and (other.speed > one.speed or other.faithful > one.faithful or place < number)
            for place, other in enumerate(trials)
            if place != number
        )
        if not beaten:
            kept.append(number)
    return kept


def choose(trials: Sequence[Judged], tolerance: float) -> int:
    """The number of the fastest trial whose fidelity is within `tolerance` of the best one's.

    Trials within 3 % of the fastest of these count as equally fast, and of them the most faithful is taken.
    It always lies on the front.

    Args:
        trials: at least one.
        tolerance: fidelity that may be given up for speed.
    """
    best = max(one.faithful for one in trials)
    near = [number for number, one in enumerate(trials) if one.faithful >= best - tolerance]
    fastest = max(trials[number].speed for number in near)
    alike = [number for number in near if trials[number].speed >= fastest * (1 - EQUALLY_FAST)]
    return max(alike, key=lambda number: (trials[number].faithful, trials[number].speed, -number))
