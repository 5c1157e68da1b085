"""Checkpoints, progress and the record of a run."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from omegaconf import OmegaConf

from pathclip import atomic
from pathclip.errors import DataError

LAST = "last.ckpt"


def checkpoints(out: str, every_n_steps: int = 200) -> ModelCheckpoint:
    """Keeps the newest state as `checkpoints/last.ckpt`, written under another name and renamed."""
    return ModelCheckpoint(
        dirpath=Path(out) / "checkpoints",
        filename="step{step}",
        auto_insert_metric_name=False,
        every_n_train_steps=every_n_steps,
        save_last=True,
        save_top_k=1,
        enable_version_counter=False,
    )


def find_checkpoint(ckpt: str | None, out: str) -> str | None:
    """The checkpoint to go on from: None, 'last' (of the run folder), or a file.

    Raises:
        DataError: there is none; says where it was looked for.
    """
    if ckpt is None:
        return None
    path = Path(out) / "checkpoints" / LAST if ckpt == "last" else Path(ckpt)
    if not path.is_file():
        hint = " Name the run's folder: out=outputs/train/…" if ckpt == "last" else ""
        raise DataError(f"ckpt={ckpt}: no checkpoint at {path}.{hint}")
    return str(path)


def progress_bar() -> Any:
    """Rich's bar with the time left where somebody looks; one line an epoch elsewhere."""
    return RichProgressBar(leave=True) if sys.stderr.isatty() else TQDMProgressBar(refresh_rate=0)


def csv_logger(out: str) -> CSVLogger:
    """A logger into `logs/<n>/metrics.csv`; a continued run gets the next n, so nothing is overwritten."""
    folder = Path(out) / "logs"
    taken = [int(p.name) for p in folder.glob("*") if p.name.isdigit()] if folder.is_dir() else []
    return CSVLogger(
        save_dir=out, name="logs", version=str(max(taken, default=-1) + 1), flush_logs_every_n_steps=10
    )


def read_metrics(out: str | Path) -> list[dict[str, float]]:
    """All logged rows of a run, over its continuations, as numbers by name."""
    import csv

    rows = []
    for file in sorted(Path(out).glob("logs/*/metrics.csv"), key=lambda p: int(p.parent.name)):
        with file.open(newline="") as lines:
            rows += [
                {key: float(value) for key, value in row.items() if value} for row in csv.DictReader(lines)
            ]
    return rows


def record_run(cfg: Any, out: str, data: dict[str, Any]) -> None:
    """Writes `run.json`: the config, the data's hashes, git commit, package versions, the command."""
    root = Path(__file__).resolve().parents[2]
    git = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    atomic.write_json(
        Path(out) / "run.json",
        {
            "command": sys.argv,
            "config": OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg,
            "data": data,
            "git_commit": git.stdout.strip() or None,
            "packages": {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"]},
            "python": sys.version.split()[0],
        },
    )
