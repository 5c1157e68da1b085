"""Progress, and the average of the weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ProgressBar, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from pathclip.train.metric_names import Mode, better


class Ema(EMAWeightAveraging):
    """An exponential moving average of the weights, which validation and the model folder use.

    The average of the first steps would be mostly the starting weights; so the decay rises with the steps n
    as (1 + n) / (10 + n) until it reaches `decay` (as in TensorFlow's ExponentialMovingAverage).

    Args:
        decay: per step, in (0, 1).

    Raises:
        ValueError: another decay.
    """

    def __init__(self, decay: float = 0.999):
        if not 0 < decay < 1:
            raise ValueError(f"decay is {decay}; it must lie between 0 and 1")
        super().__init__(decay=decay)
        self.decay = decay
        self._kwargs["avg_fn"] = self._average

    def _average(self, averaged: Tensor, current: Tensor, seen: Tensor | int) -> Tensor:
        if not averaged.dtype.is_floating_point:  # counters and indices have no average
            return current
        n = int(seen)
        mixed = torch.lerp(averaged, current, 1 - min(self.decay, (1 + n) / (10 + n)))
        # An attention mask holds -inf, of which no mean can be taken.
        return torch.where(averaged == current, averaged, mixed)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Nothing yet: the figures of the validation are made after this, from the average too."""

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Puts the weights in training back."""
        super().on_validation_epoch_end(trainer, pl_module)


def ema(decay: float | None = None) -> Ema | None:
    """An average of the weights, or none; see `Ema`."""
    return None if decay is None else Ema(decay)


def early_stopping(
    monitor: str | None = None, mode: Mode | None = None, patience: int = 3
) -> EarlyStopping | None:
    """Ends a run whose metric has not become better for so many validations; None without a metric."""
    if monitor is None:
        return None
    return EarlyStopping(monitor=monitor, mode=better(monitor, mode), patience=patience)


class EpochLines(ProgressBar):
    """One line on stderr at the end of each epoch: for logs, where a bar would be thousands of lines."""

    _validated = -1

    def disable(self) -> None:
        """Nothing to do: only the first process prints."""

    def enable(self) -> None:
        """Likewise."""

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        """From now on the figures of a validation are those of this epoch."""
        self._validated = trainer.current_epoch

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        """Epoch, and the losses after it; none of a validation that an earlier epoch had."""
        names = ("train/loss", "val/loss") if self._validated == trainer.current_epoch else ("train/loss",)
        losses = [
            f"{name} {float(trainer.callback_metrics[name]):.3f}"
            for name in names
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
    # At every step: figures of steps before a checkpoint, lost with a kill, would not come again.
    return CSVLogger(
        save_dir=out, name="logs", version=str(max(taken, default=-1) + 1), flush_logs_every_n_steps=1
    )
