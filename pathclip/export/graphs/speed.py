"""How fast an ONNX graph is beside another, both timed in turn, so that a busy machine slows both alike."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathclip.export.graphs.session import open_session

# Two timings that differ by less are called equally fast: a busy machine moves them by as much.
EQUALLY_FAST = 0.03
ROUNDS = 7
LEAST_ROUNDS = 3
SECONDS = 4.0  # no more rounds begin after this
LEAST_OF_ROUND = 0.02  # seconds of each graph: a shorter one tells more of the machine than of the graph


@dataclass(frozen=True, slots=True)
class Speeds:
    """Of two graphs that were timed in turn.

    Attributes:
        ratio: samples per second of the second over those of the first: the median over paired rounds.
        first: median of seconds for one batch.
        second: likewise.
    """

    ratio: float
    first: float
    second: float


def time_in_turn(fp32: Path, int8: Path, feed: Mapping[str, np.ndarray]) -> Speeds:
    """Times both graphs on one batch.

    Args:
        fp32: ONNX file.
        int8: another one of the same inputs.
        feed: one batch.
    """
    sessions = [open_session(fp32), open_session(int8)]
    calls = []
    for session in sessions:
        session.run(None, dict(feed))  # the first run lays out memory
        calls.append(max(1, round(LEAST_OF_ROUND / _seconds(session, feed, 1))))
    rounds: list[list[float]] = []
    end = time.perf_counter() + SECONDS
    while len(rounds) < LEAST_ROUNDS or (len(rounds) < ROUNDS and time.perf_counter() < end):
        rounds.append([_seconds(one, feed, times) for one, times in zip(sessions, calls, strict=True)])
    taken = np.array(rounds)
    first, second = np.median(taken, axis=0)
    return Speeds(float(np.median(taken[:, 0] / taken[:, 1])), float(first), float(second))


def _seconds(session: Any, feed: Mapping[str, np.ndarray], calls: int) -> float:
    """Of one call, over so many."""
    start = time.perf_counter()
    for _ in range(calls):
        session.run(None, dict(feed))
    return max(time.perf_counter() - start, 1e-9) / calls
