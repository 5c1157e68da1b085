"""How fast a run is, how long it waits for its pictures, and how much memory it takes."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from pathclip.shards.collate import Batch

_GB = 1e9


class Meters(Callback):
    """Logs throughput, data wait and memory every `log_every_n_steps` of the trainer.

    - `train/images_per_second`: of all processes together, over the batches since the last log.
    - `train/data_wait`: share of that time, as this process sees it, that went by between a batch and the
      next one, which is the loader's; near 0 where the loader keeps up.
    - `train/memory_gb`: 10⁹ bytes at most so far: allocated on the GPU, or resident in this process.
      Loader processes are not in it.

    A batch in or before which the run validated or wrote a checkpoint is left out whole, and so is the first,
    for which loader processes start: the figures are those of plain training, also of a continued run.
    A GPU is waited for only where something is logged.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._ended: float | None = None  # when the batch before ended
        self._started, self._waiting = 0.0, 0.0
        self._disturbed, self._counts = False, False
        self._pairs, self._waited, self._worked = 0, 0.0, 0.0
        self._logged_at = -1

    def on_train_start(self, trainer: Any, task: Any) -> None:
        """A run begins, or goes on."""
        self._forget()

    def on_validation_start(self, *_: Any) -> None:
        """What comes before the next batch is not the loader alone."""
        self._disturbed = True

    def on_save_checkpoint(self, *_: Any) -> None:
        """Likewise; this may come before or after this callback's end of a batch."""
        self._disturbed = True

    def on_train_batch_start(self, trainer: Any, task: Any, batch: Batch, index: int) -> None:
        """The loader has delivered."""
        self._started = time.perf_counter()
        self._counts = not self._disturbed and self._ended is not None
        self._waiting = self._started - self._ended if self._ended is not None else 0.0
        self._disturbed = False

    def on_train_batch_end(self, trainer: Any, task: Any, outputs: Any, batch: Batch, index: int) -> None:
        """Counts the batch; logs where it is time to."""
        step = trainer.global_step
        due = step % trainer.log_every_n_steps == 0 and step != self._logged_at
        if due and task.device.type == "cuda":
            torch.cuda.synchronize(task.device)  # otherwise it is the time to launch kernels, not to run them
        self._ended = time.perf_counter()
        if self._counts and not self._disturbed:
            self._waited += self._waiting
            self._worked += self._ended - self._started
            self._pairs += len(batch)
        self._disturbed = False
        if due and self._pairs:
            self._log(trainer, task)
            self._logged_at = step

    def _log(self, trainer: Any, task: Any) -> None:
        seconds = self._waited + self._worked
        figures = {
            "train/images_per_second": self._pairs * trainer.world_size / seconds,
            "train/data_wait": self._waited / seconds,
            "train/memory_gb": peak_memory(task.device) / _GB,
        }
        task.log_dict(figures, batch_size=1)
        self._pairs, self._waited, self._worked = 0, 0.0, 0.0


def peak_memory(device: torch.device) -> int:
    """Bytes at most so far: allocated by torch on a GPU, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform.startswith("linux"):
        # Not ru_maxrss: a process inherits that of the one it was started from.
        with Path("/proc/self/status").open() as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
