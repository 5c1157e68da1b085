"""Processes that work for this one."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path


def end_with_parent(parent: int) -> None:
    """Ends this process soon after its parent: one that is killed cannot tell its workers.

    Args:
        parent: its process id. Told by itself: by the time a worker asks, it may be gone.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Holds Ctrl-C back from this process for a moment, and for good from the workers that it starts.

    The terminal sends it to all of them, and one that is still importing would print a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def own_code_only() -> dict[str, str]:
    """The environment for `python -m pathclip.…`, in which nothing is imported from the working directory.

    `python -m` looks there first, and a file of the user's named `numpy.py` would be run in place of the
    package. PYTHONSAFEPATH forbids that, for what that process starts in turn too (Lightning's further
    ranks). A checkout that is not installed, and so was found in the working directory itself, stays found.
    """
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    root = Path(__file__).resolve().parents[2]
    lasting = sys.path if sys.flags.safe_path else sys.path[1:]
    if root not in {Path(entry).resolve() for entry in lasting}:
        given = os.environ.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{given}{os.pathsep}{root}" if given else str(root)
    return environment
