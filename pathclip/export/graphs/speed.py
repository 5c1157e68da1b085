"""How fast an ONNX graph is beside another, both timed in turn, so that a busy machine slows both alike."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pathclip.export.graphs.session import open_session

# Two timings that differ by less are called equally fast: a busy machine moves them by as much.
EQUALLY_FAST = 0.03
ROUNDS = 7
LEAST_ROUNDS = 3
SECONDS = 4.0  # no more rounds begin after this


def speed_ratio(fp32: Path, int8: Path, feed: Mapping[str, np.ndarray]) -> float:
    """Samples per second of int8 over those of fp32: the median of the ratios of paired rounds.

    Args:
        fp32: ONNX file.
        int8: another one of the same inputs.
        feed: one batch.
    """
    sessions = [open_session(fp32), open_session(int8)]
    for session in sessions:
        session.run(None, dict(feed))  # the first run lays out memory
    ratios: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(ratios) < LEAST_ROUNDS or (len(ratios) < ROUNDS and time.perf_counter() < end):
        taken = []
        for session in sessions:
            start = time.perf_counter()
            session.run(None, dict(feed))
            taken.append(time.perf_counter() - start)
        ratios.append(taken[0] / taken[1])
    return float(np.median(ratios))
