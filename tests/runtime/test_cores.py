from __future__ import annotations

import os

import pytest

from pathclip.runtime import cores

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")


@pytest.fixture
def machine(monkeypatch):
    """Pretends: the CPUs that may be used, the CPUs that share a core, the quota."""

    def pretend(cpus, siblings=lambda cpu: str(cpu), quota=None):
        monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(cpus))
        monkeypatch.setattr(cores, "_siblings", siblings)
        monkeypatch.setattr(cores, "_quota", lambda: quota)
        return cores.available_cores()

    return pretend


def test_two_threads_of_one_core_count_once(machine):
    assert machine(range(8), siblings=lambda cpu: str(cpu % 4)) == 4


def test_only_cores_that_the_process_may_use_count(machine):
    assert machine([2, 3]) == 2


def test_a_containers_quota_is_the_limit(machine):
    assert machine(range(64), quota=2) == 2


def test_a_quota_above_the_cores_changes_nothing(machine):
    assert machine([0], quota=8) == 1


def test_this_machine_has_at_least_one_core():
    assert 1 <= cores.available_cores() <= (os.cpu_count() or 1)
