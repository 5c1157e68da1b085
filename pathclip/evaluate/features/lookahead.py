"""Work that runs ahead of the one who needs it: a reader, some threads, a bounded number of items."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    items: Iterator[Item], work: Callable[[Item], Result], threads: int, ahead: int
) -> Generator[Result, None, None]:
    """Yields `work(item)` of each item, in order.

    One thread draws the items, `threads` others work on them. Close the iterator, or use it up: then no
    thread is left. What `items` or `work` raises is raised here, at that item's place.

    Args:
        items: drawn in one thread.
        work: run in several.
        threads: that work.
        ahead: items at most that are drawn and whose result is not yet taken.
    """
    waiting: queue.SimpleQueue[Future[Result] | None] = queue.SimpleQueue()
    free = threading.Semaphore(ahead)
    stopped = threading.Event()
    pool = ThreadPoolExecutor(threads, "pathclip-prepare")

    def draw() -> None:
        try:
            while not stopped.is_set():
                free.acquire()
                if stopped.is_set():
                    return
                try:
                    item = next(items)
                except StopIteration:
                    return
                waiting.put(pool.submit(work, item))
        except BaseException as error:
            failed: Future[Result] = Future()
            failed.set_exception(error)
            waiting.put(failed)
        finally:
            waiting.put(None)

    reader = threading.Thread(target=draw, name="pathclip-read", daemon=True)
    reader.start()
    try:
        while (future := waiting.get()) is not None:
            result = future.result()
            free.release()
            yield result
    finally:
        stopped.set()
        free.release()
        reader.join()
        pool.shutdown(wait=True, cancel_futures=True)
