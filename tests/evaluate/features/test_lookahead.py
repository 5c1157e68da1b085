from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest

from pathclip.evaluate.features.lookahead import in_threads


def threads():
    return [one.name for one in threading.enumerate() if one.name.startswith("pathclip-")]


def test_results_come_in_the_order_of_the_items():
    def slow_at_first(number):
        time.sleep(0.02 if number == 0 else 0)
        return number * number

    assert list(in_threads(iter(range(50)), slow_at_first, 4, 8)) == [n * n for n in range(50)]
    assert threads() == []


def test_no_more_is_drawn_ahead_than_allowed():
    drawn = []

    def items():
        for number in range(100):
            drawn.append(number)
            yield number

    with closing(in_threads(items(), str, 2, 5)) as results:
        assert next(results) == "0"
        time.sleep(0.1)
        assert 5 <= len(drawn) <= 7


@pytest.mark.parametrize("where", ["work", "items"])
def test_an_exception_comes_at_its_place_and_no_thread_is_left(where):
    def items():
        for number in range(20):
            if where == "items" and number == 3:
                raise KeyError("three")
            yield number

    def work(number):
        if where == "work" and number == 3:
            raise KeyError("three")
        return number

    results = in_threads(items(), work, 2, 4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="three"):
        next(results)
    assert threads() == []


def test_closing_early_leaves_no_thread_even_of_an_endless_source():
    def endless():
        while True:
            yield 1

    with closing(in_threads(endless(), str, 2, 4)) as results:
        next(results)
    assert threads() == []


def test_an_interrupt_ends_it_at_once():
    code = """
import time
from pathclip.evaluate.features.lookahead import in_threads
for number in in_threads(iter(range(1000)), lambda n: time.sleep(0.05), 2, 4):
    print(number, flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        _, err = process.communicate(timeout=10)
    assert time.monotonic() - start < 5
    assert "KeyboardInterrupt" in err
