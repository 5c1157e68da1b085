"""`python -m pathclip.export key=value …`."""

from __future__ import annotations

import signal
import sys
from typing import Any

from pathclip.export.export import export
from pathclip.launch import launch


def _stop(*_: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # As Ctrl-C, so that its temporary folder goes with it.
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(launch("export", export, out_is_run_folder=False))
