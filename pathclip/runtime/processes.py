"""Processes that work for this one."""

from __future__ import annotations

import os
import threading
import time


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
