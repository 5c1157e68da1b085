"""`python -m pathclip.train key=value …`, which `pathclip train` becomes."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pathclip.launch import SweepJob, launch


def _run(cfg: Any) -> float | None:
    from pathclip.train.train import train

    return train(cfg).metrics.get("val/loss")


def _after_sweep(folder: Path, jobs: Sequence[SweepJob]) -> None:
    from pathclip.train.sweep import report_sweep

    report_sweep(folder, jobs)


if __name__ == "__main__":
    sys.exit(launch("train", _run, after_sweep=_after_sweep))
