"""How many threads are worth starting."""

from __future__ import annotations

import os
from pathlib import Path


def available_cores() -> int:
    """Physical cores that this process may use: affinity, siblings and a container's quota considered.

    Two threads on one physical core share its multipliers, so that more threads than cores slow a
    matrix product down.
    """
    try:
        logical = sorted(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return max(1, os.cpu_count() or 1)
    cores = {_siblings(cpu) for cpu in logical}
    return max(1, min(len(cores), _quota() or len(cores)))


def _siblings(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _quota() -> int | None:
    """Whole CPUs that the control group allows, or None if it sets no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else max(1, round(int(quota) / int(period)))
    except (OSError, ValueError):
        return None
