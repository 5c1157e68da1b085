from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pathclip

ROOT = Path(pathclip.__file__).resolve().parents[1]


def test_a_checkout_that_is_not_installed_finds_itself_without_the_working_directory():
    # -S: without the installed packages; -c puts the working directory first.
    program = (
        "import subprocess, sys; from pathclip.runtime.processes import own_code_only; "
        "sys.exit(subprocess.call([sys.executable, '-S', '-m', 'pathclip', '--version'], "
        "env=own_code_only(), cwd='/'))"
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=ROOT, env=clean, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"pathclip {pathclip.__version__}\n"), done.stderr
