"""The clock that the processor has at least: a virtual machine often tells its base alone."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

from pathclip.runtime.cpu import Cpu
from pathclip.runtime.macs import float_peak
from pathclip.runtime.processes import own_code_only

_SIDE = 512  # of the matrices: they fit the caches
_SECONDS = 0.4
# A BLAS reads its number of threads when it is imported, so it gets a process of its own.
_ONE_THREAD = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
_PROBE = f"""
import time, numpy
a = numpy.full(({_SIDE}, {_SIDE}), 0.5, numpy.float32)
best, end = 9e9, time.perf_counter() + {_SECONDS}
while (start := time.perf_counter()) < end:
    a @ a
    best = min(best, time.perf_counter() - start)
print({_SIDE}**3 / best)
"""
_HIGHEST = 6_500.0  # MHz; above it the product ran on units that `Cpu` does not know of


def with_measured_clock(machine: Cpu) -> Cpu:
    """The processor with the clock that a float product of one core shows, where that is above the told one.

    A product of matrices comes to nine tenths of what the units can do, so the clock is a tenth higher still.

    Args:
        machine: as the system tells it.
    """
    per_core = float_peak(replace(machine, clock=1.0, cores=1)) / 2  # products at 1 MHz
    if not per_core:
        return machine
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env=own_code_only() | _ONE_THREAD,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        clock = float(done.stdout) / per_core
    except (OSError, ValueError, subprocess.SubprocessError):
        return machine
    if not machine.clock < clock < _HIGHEST:
        return machine
    return replace(machine, clock=clock, clock_source="at least, as a float product on one core shows")
