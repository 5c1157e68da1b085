"""Where the time of an evaluation goes: seconds per part of the run, by wall clock and by processor.

What the main thread does adds up to the run, each second counted in the innermost part. What other threads
do beside it (decoding, say) is listed too, but lies under the main thread's seconds and must not be added.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

REST = "the rest"


@dataclass(frozen=True, slots=True)
class Part:
    """One row of a profile.

    Attributes:
        name: of the part: 'encoder', 'decoding' ….
        detail: which of several, such as the encoder's key; may be ''.
        beside: whether other threads than the main one did it, while that did something else.
        calls: how often it was entered.
        seconds: by wall clock, summed over threads; without the parts inside it.
        processor: seconds of processor time; of a main thread's part on all cores, so with the threads of
            an encoder, but without what was done beside meanwhile.
        share: of the run's wall time, in [0, 1]; None for what was done beside.
    """

    name: str
    detail: str
    beside: bool
    calls: int
    seconds: float
    processor: float
    share: float | None


class Profile:
    """Collects seconds; begins when it is made, in the thread that makes it. Threads may share it.

    >>> profile = Profile()
    >>> with profile.part("metrics"):
    ...     with profile.part("encoder", "model int8"):
    ...         pass
    >>> [(row.name, row.calls) for row in profile.table()]
    [('metrics', 1), ('encoder', 1), ('the rest', 1)]
    """

    def __init__(self) -> None:
        self._start, self._processor = time.perf_counter(), time.process_time()
        self._main = threading.get_ident()
        self._rows: dict[tuple[str, str, bool], list[float]] = {}
        self._beside = 0.0  # processor time of all parts beside that have ended
        self._lock = threading.Lock()
        self._inside = threading.local()

    @property
    def seconds(self) -> float:
        """Wall time since the beginning."""
        return time.perf_counter() - self._start

    @property
    def processor(self) -> float:
        """Processor time of the whole process since then, on all cores, the encoder's own threads too."""
        return time.process_time() - self._processor

    @contextmanager
    def part(self, name: str, detail: str = "") -> Iterator[None]:
        """Counts the block's time as that part's; parts inside it are taken off."""
        beside = threading.get_ident() != self._main
        with self._lock:  # the order of beginning is the order of the table
            row = self._rows.setdefault((name, detail, beside), [0, 0.0, 0.0])
        outer: list[float] | None = getattr(self._inside, "taken", None)
        taken = self._inside.taken = [0.0, 0.0]
        start, processor = time.perf_counter(), self._clock(beside)
        try:
            yield
        finally:
            spent = time.perf_counter() - start, self._clock(beside) - processor
            self._inside.taken = outer
            if outer is not None:
                outer[0] += spent[0]
                outer[1] += spent[1]
            with self._lock:
                row[0] += 1
                row[1] += spent[0] - taken[0]
                row[2] += spent[1] - taken[1]
                if beside:
                    self._beside += spent[1] - taken[1]

    def table(self) -> tuple[Part, ...]:
        """What took how long: the main thread's parts as they came, what is left of the run, the others."""
        total, processor = self.seconds, self.processor
        with self._lock:
            rows = [(key, tuple(values)) for key, values in self._rows.items()]
        parts = [
            Part(name, detail, beside, int(calls), wall, max(0.0, used), None if beside else wall / total)
            for (name, detail, beside), (calls, wall, used) in rows
        ]
        main = [part for part in parts if not part.beside]
        left = max(0.0, total - sum(part.seconds for part in main))
        other = max(0.0, processor - sum(part.processor for part in parts))
        rest = Part(REST, "", False, 1, left, other, left / total)
        return (*main, rest, *(part for part in parts if part.beside))

    def share(self, name: str = "encoder") -> float:
        """Part of the run's wall time that the main thread was in the parts of this name, in [0, 1]."""
        return sum(part.share or 0.0 for part in self.table() if part.name == name)

    def processor_share(self, name: str = "encoder") -> float:
        """Part of the process's processor time that the parts of this name took, in [0, 1]."""
        used = sum(part.processor for part in self.table() if part.name == name)
        return used / max(self.processor, 1e-9)

    def as_json(self) -> dict[str, Any]:
        """For `report.json`: the run's seconds, the encoder's share of them, and the table."""
        return {
            "seconds": self.seconds,
            "processor": self.processor,
            "encoder_share": self.share(),
            "encoder_processor_share": self.processor_share(),
            "parts": [asdict(part) for part in self.table()],
        }

    def _clock(self, beside: bool) -> float:
        """Processor time of this thread, or of the process without what has been done beside so far."""
        return time.thread_time() if beside else time.process_time() - self._beside


def measured(profile: Profile | None, name: str, detail: str = "") -> AbstractContextManager[None]:
    """`profile.part(name, detail)`, or nothing where there is no profile."""
    return profile.part(name, detail) if profile is not None else nullcontext()
