"""A clock that a product shows replaces a told one that is lower, and nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pathclip.runtime import clock
from pathclip.runtime.clock import with_measured_clock
from pathclip.runtime.cpu import cpu, from_fields

ZEN_4 = from_fields(
    {"vendor_id": "AuthenticAMD", "cpu family": "25", "cpu mhz": "2500", "flags": "avx2 avx512_vnni"}, 2
)


def measures(monkeypatch, answer):
    def run(*_, **__):
        if isinstance(answer, Exception):
            raise answer
        return subprocess.CompletedProcess([], 0, answer)

    monkeypatch.setattr(subprocess, "run", run)


def test_a_product_shows_a_higher_clock(monkeypatch):
    measures(monkeypatch, f"{3300e6 * 16}\n")  # 16 float products per cycle: a quarter of 64 of int8
    found = with_measured_clock(ZEN_4)
    assert found.clock == pytest.approx(3300) and found.int8_peak == pytest.approx(128 * 2 * 3300e6)
    assert "3300 MHz (at least, as a float product" in found.how


@pytest.mark.parametrize(
    "answer",
    [
        f"{2000e6 * 16}\n",  # a busy machine
        f"{50_000e6 * 16}\n",  # a unit for matrices, which the estimate does not know of
        "",
        "nan\n",
        OSError(),
        subprocess.TimeoutExpired([], 30),
    ],
)
def test_what_tells_nothing_new_changes_nothing(monkeypatch, answer):
    measures(monkeypatch, answer)
    assert with_measured_clock(ZEN_4) == ZEN_4


def test_a_processor_of_unknown_instructions_is_not_measured(monkeypatch):
    measures(monkeypatch, AssertionError("started"))
    unknown = from_fields({"cpu mhz": "1000"}, 1)
    assert with_measured_clock(unknown) == unknown


def test_this_machine_has_a_clock_that_can_be():
    assert cpu().clock <= with_measured_clock(cpu()).clock < 6_500


def test_the_product_is_made_by_one_thread_and_takes_as_long_as_a_processor_needs():
    done = subprocess.run(
        [sys.executable, "-c", clock._PROBE],
        env=os.environ | clock._ONE_THREAD,
        capture_output=True,
        text=True,
    )
    # One core does two to 64 float products per cycle, at half a gigahertz to seven.
    assert 1e9 < float(done.stdout) < 64 * 7e9
