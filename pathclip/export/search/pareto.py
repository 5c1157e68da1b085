"""Which of several trials to take, when one is faster and another nearer to fp32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pathclip.export.graphs.speed import EQUALLY_FAST


class Judged(Protocol):
    """What has a speed and a fidelity; more is better of both. What is not safe is for want of what is."""

    @property
    def speed(self) -> float:
        """Samples per second over those of fp32."""

    @property
    def faithful(self) -> float:
        """1 for fp32 itself."""

    @property
    def safe(self) -> bool:
        """Whether it computes the same on a CPU without VNNI, where sums of 16 bits may saturate."""


def eligible(trials: Sequence[Judged]) -> list[int]:
    """Numbers of the trials that may be taken: those that are safe, or all if none is."""
    return [number for number, one in enumerate(trials) if one.safe] or list(range(len(trials)))


def best(trials: Sequence[Judged]) -> int:
    """The number of the most faithful trial that may be taken; of equals the fastest, of those the first."""
    return max(eligible(trials), key=lambda number: (trials[number].faithful, trials[number].speed, -number))


def front(trials: Sequence[Judged]) -> list[int]:
    """Numbers of the eligible trials that none other beats in speed or fidelity without losing in the other.

    Of trials alike in both the first is taken.
    """
    kept, numbers = [], eligible(trials)
    for number in numbers:
        one = trials[number]
        beaten = any(
            other.speed >= one.speed
            and other.faithful >= one.faithful
            and (other.speed > one.speed or other.faithful > one.faithful or place < number)
            for place, other in ((place, trials[place]) for place in numbers)
            if place != number
        )
        if not beaten:
            kept.append(number)
    return kept


def choose(trials: Sequence[Judged], tolerance: float) -> int:
    """The number of the fastest eligible trial whose fidelity is within `tolerance` of the best one's.

    Trials within 3 % of the fastest of these count as equally fast, and of them the most faithful is taken.
    It always lies on the front.

    Args:
        trials: at least one.
        tolerance: fidelity that may be given up for speed.
    """
    least = trials[best(trials)].faithful - tolerance
    near = [number for number in eligible(trials) if trials[number].faithful >= least]
    fastest = max(trials[number].speed for number in near)
    alike = [number for number in near if trials[number].speed >= fastest * (1 - EQUALLY_FAST)]
    return max(alike, key=lambda number: (trials[number].faithful, trials[number].speed, -number))
