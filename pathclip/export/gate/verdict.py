"""How a figure of the gate is judged, with its interval.

The rule, for every line alike:

- The point estimate must hold the limit; the interval beside it is a 95 % bootstrap over groups.
- One exception: what int8 *lost* against fp32 on the same samples. One query of eight is more than any
  sensible limit. So a loss over the limit fails only if its interval excludes zero, that is if it can be told
  from chance.
- What passed although its interval reaches past the limit is not proven. It says so in its note, and
  `gate.json` lists it under `not_proven`: few samples never pass in silence.
- A bootstrap of answers that are all alike has no width, which is no certainty. Then the rule of three
  stands in (Hanley and Lippman-Hand 1983, doi:10.1001/jama.1983.03330370053031): what was not seen in n
  samples may, at 95 %, be as frequent as 3 / n.
- A figure at its limit holds it, whatever its last bits say: 0.97 of a float is not 0.97.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pathclip.evaluate.stats import Interval

NOT_PROVEN = "holds, but its interval reaches past the limit: more samples would tell"
ROUNDING = 1e-9  # by which a figure may miss its limit: sums of floats end a few bits to either side
BY_CHANCE = "over the limit, but its interval contains zero: too few samples to tell a loss from chance"


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of the gate.

    Attributes:
        name: what was measured.
        value: the figure; None where it could not be measured.
        threshold: the limit; None where the figure is for information.
        passed: whether it holds; None where it is for information or was not measured.
        n: samples.
        note: what else to know.
        low: lower end of the 95 % interval; None where there is none.
        high: upper end.
        proven: of what passed and has an interval, whether all of the interval holds the limit.
    """

    name: str
    value: float | None
    threshold: float | None = None
    passed: bool | None = None
    n: int = 0
    note: str = ""
    low: float | None = None
    high: float | None = None
    proven: bool | None = None


def at_least(
    name: str, value: float, limit: float, n: int = 0, note: str = "", interval: Interval | None = None
) -> Line:
    """A line whose figure must reach the limit."""
    low, high = _ends(interval)
    passed = bool(value >= limit - ROUNDING)
    proven = None if not passed or low is None else low >= limit - ROUNDING
    return Line(name, value, limit, passed, n, _noted(note, proven), low, high, proven)


def at_most(name: str, value: float, limit: float, n: int = 0, note: str = "") -> Line:
    """A line whose figure, which is counted and not estimated, must not pass the limit."""
    return Line(name, value, limit, bool(value <= limit + ROUNDING), n, note)


def loss(name: str, interval: Interval, limit: float, n: int, note: str = "") -> Line:
    """A line of what int8 lost against fp32 on the same samples; see the module for the rule.

    Args:
        name: what was lost.
        interval: of the loss; positive means that int8 is worse.
        limit: the largest loss.
        n: samples.
        note: what else to know.
    """
    low, high = _ends(interval)
    holds = bool(interval.value <= limit + ROUNDING)
    if holds:
        proven = None if high is None else high <= limit + ROUNDING
        return Line(name, interval.value, limit, True, n, _noted(note, proven), low, high, proven)
    by_chance = low is not None and low <= ROUNDING
    if by_chance:
        note = f"{note}; {BY_CHANCE}" if note else BY_CHANCE
    return Line(name, interval.value, limit, by_chance, n, note, low, high, False if by_chance else None)


def unseen(groups: int) -> float:
    """How frequent, at 95 %, what was seen in none of so many groups may be: the rule of three.

    >>> unseen(30), unseen(2)
    (0.1, 1.0)
    """
    return min(1.0, 3 / groups) if groups else 1.0


def widened(interval: Interval, reach: float, lowest: float, highest: float) -> Interval:
    """The interval itself; if it has no width, one that reaches so far, within the figure's range.

    Args:
        interval: of a bootstrap; without ends (NaN) it stays so.
        reach: to either side, by the rule of three: see `unseen`.
        lowest: that the figure can be.
        highest: likewise.

    >>> widened(Interval(1.0, 1.0, 1.0), unseen(30), 0.0, 1.0)
    Interval(value=1.0, low=0.9, high=1.0)
    """
    if interval.low != interval.high:
        return interval
    value = interval.value
    return Interval(value, max(lowest, value - reach), min(highest, value + reach))


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    if interval is None or math.isnan(interval.low) or math.isnan(interval.high):
        return None, None
    return interval.low, interval.high


def _noted(note: str, proven: bool | None) -> str:
    if proven is not False:
        return note
    return f"{note}; {NOT_PROVEN}" if note else NOT_PROVEN
