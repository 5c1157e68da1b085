"""Spreads a pure function over processes or a cluster: the same results, in order, wherever it runs."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from pathclip.errors import ConfigError
from pathclip.runtime.processes import end_with_parent, interrupts_held

Item = TypeVar("Item")
Result = TypeVar("Result")
PartitionFunction = Callable[[list[Item]], list[Result]]
# Partitions per worker that are under way or done and not yet asked for: bounded memory, no idle worker.
AHEAD = 3
SECONDS_TO_CONNECT = 10


@dataclass(frozen=True, slots=True)
class Engine:
    """Where the partitions of a curation are worked on.

    Attributes:
        kind: 'local' takes processes of this machine, 'ray' the workers of a Ray cluster.
        workers: processes, or tasks at a time on the cluster; all cores where None. With 'local', 1 takes
            no process besides this one.
        address: of the Ray cluster; None joins the one of this machine's environment, or starts one here.
    """

    kind: Literal["local", "ray"] = "local"
    workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers: expected a number of at least 1, got {self.workers}")

    def map(
        self, function: PartitionFunction[Item, Result], items: Iterable[Item], size: int = 32
    ) -> Iterator[Result]:
        """Yields `function`'s result for every item, in the order of the items.

        Args:
            function: from some items to as many results; pure, and picklable by its name.
            items: taken as they are needed, so that they need not fit into memory.
            size: items per call. The results do not depend on it.

        Raises:
            ConfigError: Ray is asked for and not installed, or its cluster cannot be reached.
        """
        parts = _partitions(items, size)
        first = list(islice(parts, 2))
        if self.kind == "ray":
            results = _on_ray(function, chain(first, parts), self)
        elif self.workers == 1 or _cores() == 1 or len(first) < 2:
            results = (function(part) for part in chain(first, parts))
        else:
            results = _in_processes(function, chain(first, parts), self.workers or _cores())
        for result in results:
            yield from result


def _partitions(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def _in_processes(
    function: PartitionFunction[Item, Result], parts: Iterator[list[Item]], workers: int
) -> Iterator[list[Result]]:
    # Spawned, not forked: the caller may hold threads (torch), and a fork of those can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, end_with_parent, (os.getpid(),)) as pool:
        waiting: deque[Future[list[Result]]] = deque()
        try:
            for part in parts:
                with interrupts_held():
                    waiting.append(pool.submit(function, part))
                if len(waiting) > AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _on_ray(
    function: PartitionFunction[Item, Result], parts: Iterator[list[Item]], engine: Engine
) -> Iterator[list[Result]]:
    """Ray Data takes a bounded window of partitions at a time, so that no dump has to fit into its memory."""
    data = _ray_data(engine)
    # Each window is an execution of its own, which costs a tenth of a second.
    window = 8 * AHEAD * (engine.workers or _cluster_cores())
    work = partial(_work, function)
    while some := list(islice(parts, window)):
        rows = data.from_items([{"number": n, "bundle": _Bundle(part)} for n, part in enumerate(some)])
        compute = data.TaskPoolStrategy(size=min(engine.workers or len(some), len(some)))
        done = rows.repartition(len(some)).map(work, compute=compute)
        # Tasks end in any order; the number of a partition tells where its results belong.
        found = {row["number"]: row["bundle"] for row in done.iter_rows()}
        for number in range(len(some)):
            if found[number].error is not None:
                raise found[number].error
            yield found[number].items


@dataclass(frozen=True, slots=True)
class _Bundle:
    """Items that Ray carries as they are; lists and tuples it would turn into columns.

    An exception too is carried: raised in a task, it would come out as one of Ray's own.
    """

    items: list[Any]
    error: Exception | None = None


def _work(function: PartitionFunction[Any, Any], row: dict[str, Any]) -> dict[str, Any]:
    try:
        bundle = _Bundle(function(row["bundle"].items))
    except Exception as error:
        bundle = _Bundle([], error)
    return {"number": row["number"], "bundle": bundle}


def _ray_data(engine: Engine) -> Any:
    try:
        import ray
        import ray.data
    except ImportError:
        raise ConfigError("engine.kind=ray needs Ray: pip install 'pathclip[ray]'") from None
    if not ray.is_initialized():
        try:
            _knock(engine.address or "")
            ray.init(
                address=engine.address,
                log_to_driver=False,
                include_dashboard=False,
                logging_level=logging.ERROR,
            )
        except (OSError, ValueError, ray.exceptions.RayError) as error:
            raise ConfigError(f"engine.address={engine.address}: no Ray cluster there ({error})") from None
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # several lines for every window
    return ray.data


def _knock(address: str) -> None:
    """Fails at once where nobody answers; Ray itself would wait for minutes.

    Raises:
        OSError: nobody answers.
        ValueError: no port.
    """
    parts = urlsplit(address if "://" in address else f"//{address}")
    if parts.hostname and parts.port:
        socket.create_connection((parts.hostname, parts.port), timeout=SECONDS_TO_CONNECT).close()


def _cluster_cores() -> int:
    import ray

    return int(ray.cluster_resources().get("CPU", 1))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
