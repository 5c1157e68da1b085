"""`python -m pathclip.export key=value …`."""

from __future__ import annotations

import sys

from pathclip.export.export import export
from pathclip.launch import launch

if __name__ == "__main__":
    sys.exit(launch("export", export, out_is_run_folder=False))
