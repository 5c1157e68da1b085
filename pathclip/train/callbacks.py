"""Checkpoints, progress and the record of a run."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from omegaconf import OmegaConf

from pathclip import atomic
from pathclip.errors import ConfigError, DataError

LAST = "last.ckpt"


def checkpoints(out: str, every_minutes: float = 2.0, every_n_steps: int | None = None) -> ModelCheckpoint:
    """Keeps the newest state as `checkpoints/last.ckpt`, written under another name and renamed.

    Args:
        out: the run folder.
        every_minutes: how often; by the clock, because a step takes milliseconds or seconds.
        every_n_steps: how often in steps instead.

    Raises:
        ValueError: not above 0.
    """
    if every_minutes <= 0 or (every_n_steps is not None and every_n_steps < 1):
        raise ValueError("checkpoints are written every so many minutes or steps, a number above 0")
    return ModelCheckpoint(
        dirpath=Path(out) / "checkpoints",
        filename="step{step}",
        auto_insert_metric_name=False,
        train_time_interval=timedelta(minutes=every_minutes) if every_n_steps is None else None,
        every_n_train_steps=every_n_steps,
        save_last=True,
        save_top_k=1,
        enable_version_counter=False,
    )


def find_checkpoint(ckpt: str | None, out: str) -> str | None:
    """The checkpoint to go on from: None, 'last' (of the run folder), or a file.

    Raises:
        DataError: there is none; says where it was looked for.
        ConfigError: a new run would begin in the folder of an earlier one.
    """
    last = Path(out) / "checkpoints" / LAST
    if ckpt is None:
        if last.is_file():
            raise ConfigError(
                f"out={out}: holds a run already. ckpt=last goes on with it; a new run needs another out"
            )
        return None
    path = last if ckpt == "last" else Path(ckpt)
    if not path.is_file():
        hint = " Name the run's folder: out=outputs/train/…" if ckpt == "last" else ""
        raise DataError(f"ckpt={ckpt}: no checkpoint at {path}.{hint}")
    return str(path)


def check_checkpoint(path: str, module: torch.nn.Module) -> None:
    """Refuses a checkpoint that cannot be read or belongs to another model, before any work.

    Raises:
        DataError: the file is broken or no checkpoint of a training.
        ConfigError: it was made with another model.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
    except Exception as error:  # torch raises many kinds, all of which mean that it is no such file
        raise DataError(f"{path}: no readable checkpoint of a training ({type(error).__name__})") from error
    own = module.state_dict()
    for name in sorted(own.keys() | state.keys()):
        there, here = (tuple(side[name].shape) if name in side else "missing" for side in (state, own))
        if there != here:
            raise ConfigError(
                f"{path}: made with another model ('{name}' is {there} there, {here} here); "
                "give the overrides that the run began with"
            )


class EpochLines(ProgressBar):
    """One line on stderr at the end of each epoch: for logs, where a bar would be thousands of lines."""

    def disable(self) -> None:
        """Nothing to do: only the first process prints."""

    def enable(self) -> None:
        """Likewise."""

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        """Epoch, and the losses after it."""
        losses = [
            f"{name} {float(trainer.callback_metrics[name]):.3f}"
            for name in ("train/loss", "val/loss")
            if name in trainer.callback_metrics
        ]
        of = f" of {trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        if trainer.is_global_zero:
            print(f"epoch {trainer.current_epoch + 1}{of}: {', '.join(losses)}", file=sys.stderr, flush=True)


def progress_bar() -> Any:
    """Rich's bar with the time left where somebody looks; one line an epoch elsewhere."""
    return RichProgressBar(leave=True) if sys.stderr.isatty() else EpochLines()


def csv_logger(out: str) -> CSVLogger:
    """A logger into `logs/<n>/metrics.csv`; a continued run gets the next n, so nothing is overwritten."""
    folder = Path(out) / "logs"
    taken = [int(p.name) for p in folder.glob("*") if p.name.isdigit()] if folder.is_dir() else []
    return CSVLogger(
        save_dir=out, name="logs", version=str(max(taken, default=-1) + 1), flush_logs_every_n_steps=10
    )


def read_metrics(out: str | Path) -> list[dict[str, float]]:
    """All logged rows of a run, over its continuations, as numbers by name.

    A run that begins anew in the same folder begins anew at step 0: what was logged before is left out.
    """
    import csv

    rows: list[dict[str, float]] = []
    for file in sorted(Path(out).glob("logs/*/metrics.csv"), key=lambda p: int(p.parent.name)):
        with file.open(newline="") as lines:
            more = [
                {key: float(value) for key, value in row.items() if value} for row in csv.DictReader(lines)
            ]
        first = min((row["step"] for row in more if "step" in row), default=0.0)
        rows = [row for row in rows if row.get("step", 0.0) < first] + more
    return rows


def record_run(cfg: Any, out: str, data: dict[str, Any]) -> None:
    """Writes `run.json`: the config, the data's hashes, git commit, package versions, the command."""
    atomic.write_json(
        Path(out) / "run.json",
        {
            "command": sys.argv,
            "config": OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg,
            "data": data,
            "git_commit": _git_commit(),
            "packages": {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"]},
            "python": sys.version.split()[0],
        },
    )


def _git_commit() -> str | None:
    """The commit of this checkout; None for an installed package, which may lie in somebody else's."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        git = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
    except OSError:  # no git here
        return None
    return git.stdout.strip() or None
