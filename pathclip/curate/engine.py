"""Spreads a pure function over processes: the same results, in order, for any number of workers."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_partitions(
    function: Callable[[Sequence[Item]], list[Result]],
    items: Sequence[Item],
    workers: int | None = None,
    size: int = 32,
) -> Iterator[Result]:
    """Yields `function`'s result for every item, in the order of the items.

    Args:
        function: from some items to as many results; pure, and picklable by its name.
        items: all of them.
        workers: processes; all cores of this process where None, none besides this one where 1.
        size: items per call. The results do not depend on it.
    """
    parts = [items[start : start + size] for start in range(0, len(items), size)]
    workers = min(workers or _cores(), len(parts))
    if workers <= 1 or len(parts) <= 2:
        for part in parts:
            yield from function(part)
        return
    # Spawned, not forked: the caller may hold threads (torch), and a fork of those can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting: deque[Future[list[Result]]] = deque()
        for part in parts:
            waiting.append(pool.submit(function, part))
            if len(waiting) > 2 * workers:  # bounded memory, whatever the number of items
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
