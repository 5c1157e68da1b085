"""Checkpoints: the last two states of a run, the best one, and copies of them elsewhere."""

from __future__ import annotations

import math
import shutil
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from pathclip import atomic
from pathclip.errors import ConfigError, DataError
from pathclip.shards import storage
from pathclip.train.metric_names import Mode, better

FOLDER = "checkpoints"
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, to the disk, and renames it: a kill leaves the old or the new."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """As the base class, for a local path."""
        with atomic.staged_file(Path(path)) as staging:
            torch.save(checkpoint, staging)


class Checkpoints(Checkpoint):
    """Keeps `last.ckpt`, the one before it as `previous.ckpt`, and `best.ckpt` by a metric.

    A state is written after a whole optimiser step only, so that a run can go on from it bit for bit.

    Args:
        out: the run folder.
        every_minutes: how often; by the clock, because a step takes milliseconds or seconds.
        every_n_steps: how often in steps instead.
        monitor: metric of the validation that says which state is the best; None keeps no best one.
        mode: whether more of it is better ('max') or less ('min'); None for less of a loss, more of the rest.
        remote: an address that fsspec knows, as 's3://bucket/run': every checkpoint is copied there too.

    Raises:
        ValueError: an interval that is not above 0, or an unknown mode.
    """

    def __init__(
        self,
        out: str,
        every_minutes: float = 2.0,
        every_n_steps: int | None = None,
        monitor: str | None = None,
        mode: Mode | None = None,
        remote: str | None = None,
    ):
        if every_minutes <= 0 or (every_n_steps is not None and every_n_steps < 1):
            raise ValueError("checkpoints are written every so many minutes or steps, a number above 0")
        self.folder = Path(out) / FOLDER
        self.every_minutes, self.every_n_steps = every_minutes, every_n_steps
        self.monitor, self.mode = monitor, better(monitor or "", mode)
        self.best: float | None = None
        self.remote = RemoteCopy(remote) if remote else None
        self._written_at = time.monotonic()
        self._seen_step = 0
        self._owed = False
        self._last_is_sound = False

    def on_train_start(self, trainer: Any, _: Any) -> None:
        """Counts from here on.

        Raises:
            DataError: the processes went on from different checkpoints.
        """
        steps = trainer.strategy.all_gather(
            torch.tensor(trainer.global_step, device=trainer.strategy.root_device)
        )
        if int(steps.min()) != int(steps.max()):
            raise DataError(
                "ckpt=last: the processes found different checkpoints; let out lie on a file system that all "
                "of them see, or name one: ckpt=…"
            )
        self._written_at, self._seen_step = time.monotonic(), trainer.global_step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Writes the state if it is time; at the end of an epoch after its validation."""
        if trainer.global_step == self._seen_step:  # gradients of a step that is not whole yet
            return
        self._seen_step = trainer.global_step
        self._owed = self._owed or self._is_due(trainer)
        # One written here would make a run that goes on from it leave out the validation that is due.
        if self._owed and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._write_last(trainer)

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        """Writes the state that is due, and that in which a run ends, early or not."""
        ends = trainer.should_stop or self._is_last_epoch(trainer)
        if (self._owed or ends) and trainer.global_step == self._seen_step:
            self._write_last(trainer)

    def on_validation_end(self, trainer: Any, _: Any) -> None:
        """Writes the state as the best one if the metric says so.

        Raises:
            ConfigError: there is no such metric.
        """
        if self.monitor is None or trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(map(str, trainer.callback_metrics)))
            raise ConfigError(
                f"callbacks.checkpoints.monitor={self.monitor}: no such metric; there are {known}"
            )
        # The first process's figure for all: on others its last bits may differ, and so the decision.
        value = float(trainer.strategy.broadcast(float(trainer.callback_metrics[self.monitor])))
        is_best = self.best is None or (value > self.best if self.mode == "max" else value < self.best)
        if is_best and not math.isnan(value):
            self.best = value
            self._write(trainer, BEST)

    def on_fit_end(self, *_: Any) -> None:
        """Waits for the last copy."""
        if self.remote:
            self.remote.wait()

    def on_exception(self, *_: Any) -> None:
        """Likewise."""
        self.on_fit_end()

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self.best, "monitor": self.monitor}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on comparing with the best value of the run, where the metric is still the same."""
        if state_dict.get("monitor") == self.monitor:
            self.best = state_dict.get("best")

    def _is_last_epoch(self, trainer: Any) -> bool:
        epochs, steps = trainer.max_epochs, trainer.max_steps
        return (epochs not in (None, -1) and trainer.current_epoch + 1 >= epochs) or (
            steps != -1 and trainer.global_step >= steps
        )

    def _is_due(self, trainer: Any) -> bool:
        if self.every_n_steps is not None:
            return trainer.global_step % self.every_n_steps == 0
        due = time.monotonic() - self._written_at >= 60 * self.every_minutes
        # The first process's clock decides for all, or some would wait in vain for the others.
        return bool(trainer.strategy.broadcast(due)) if trainer.world_size > 1 else due

    def _write_last(self, trainer: Any) -> None:
        self._owed, self._written_at = False, time.monotonic()
        self._write(trainer, LAST)

    def _write(self, trainer: Any, name: str) -> None:
        fresh = self.folder / f"new-{name}"
        trainer.save_checkpoint(fresh)  # every process takes part
        if trainer.is_global_zero:
            old = self.folder / LAST
            # One that was found damaged must not take the place of the one before it.
            if name == LAST and old.is_file() and (self._last_is_sound or damage(old) is None):
                old.replace(self.folder / PREVIOUS)
            fresh.replace(self.folder / name)
            self._last_is_sound = self._last_is_sound or name == LAST
            if self.remote:
                self.remote.send(self.folder / name)
        trainer.strategy.barrier()


class RemoteCopy:
    """Copies files to an fsspec address, one after another, while the training goes on.

    A copy that fails is told and tried again with the next checkpoint: a run is not lost for it.
    """

    def __init__(self, address: str):
        self.address = address.rstrip("/")
        self._thread: threading.Thread | None = None

    def send(self, file: Path) -> None:
        """Begins to copy; waits first for the copy before it."""
        self.wait()
        # Opened now: the name may mean the next checkpoint before this one has been read.
        stream = file.open("rb")
        self._thread = threading.Thread(target=self._copy, args=(stream, file.name), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Returns when nothing is under way."""
        if self._thread:
            self._thread.join()
            self._thread = None

    def _copy(self, stream: Any, name: str) -> None:
        target = f"{self.address}/{name}"
        try:
            with stream:
                system, path = storage.open_store(target)
                if target.startswith(("file://", "local://")):  # a bucket is not made by a slip of the pen
                    system.makedirs(path.rpartition("/")[0], exist_ok=True)
                with system.open(f"{path}.part", "wb") as there:
                    shutil.copyfileobj(stream, there, 16 * 1024 * 1024)
                system.mv(f"{path}.part", path)
        except Exception as error:  # every file system has errors of its own
            print(f"{target}: the checkpoint was not copied ({error})", file=sys.stderr)


def find_checkpoint(ckpt: str | None, out: str, remote: str | None = None) -> str | None:
    """The checkpoint to go on from.

    Args:
        ckpt: None, 'last' (of the run folder; where it has none, of `remote`), a file, or an fsspec address.
        out: the run folder.
        remote: where checkpoints are copied to.

    Raises:
        DataError: there is none that can be read; says where it was looked for.
        ConfigError: a new run would begin in the folder of an earlier one.
    """
    folder = Path(out) / FOLDER
    own = [folder / name for name in (LAST, PREVIOUS) if (folder / name).is_file()]
    if ckpt is None:
        if own:
            raise ConfigError(
                f"out={out}: holds a run already. ckpt=last goes on with it; a new run needs another out"
            )
        return None
    if ckpt != "last":
        return str(fetch(ckpt, folder) if "://" in ckpt else _readable(Path(ckpt), f"ckpt={ckpt}"))
    for path in own:
        reason = damage(path)
        if reason is None:
            return str(path)
        print(f"{path}: damaged ({reason}); the one before it is used", file=sys.stderr)
    if remote:
        return str(fetch(f"{remote.rstrip('/')}/{LAST}", folder))
    if own:
        raise DataError(f"ckpt=last: no checkpoint in {folder} can be read; begin anew with another out")
    raise DataError(
        f"ckpt=last: no checkpoint at {folder / LAST}. Name the run's folder: out=outputs/train/…"
    )


def fetch(address: str, folder: Path) -> Path:
    """Copies a remote checkpoint into the run folder.

    Raises:
        DataError: it is not there, or cannot be read.
    """
    target = folder / f"fetched-{address.rpartition('/')[2]}"
    system, path = storage.open_store(address)
    try:
        with (
            system.open(path, "rb") as there,
            atomic.staged_file(target) as staging,
            staging.open("wb") as here,
        ):
            shutil.copyfileobj(there, here, 16 * 1024 * 1024)
    except Exception as error:  # every file system has errors of its own
        raise DataError(f"ckpt={address}: cannot be read ({error or type(error).__name__})") from None
    return _readable(target, f"ckpt={address}")


def _readable(path: Path, name: str) -> Path:
    if not path.is_file():
        raise DataError(f"{name}: no checkpoint at {path}")
    if reason := damage(path):
        raise DataError(f"{path}: no readable checkpoint of a training ({reason})")
    return path


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file, None if it can be read and every part has its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is None:
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a changed byte of a name or a number raises nearly anything
        return _first_line(error)
    return f"checksum of {broken}" if broken else None


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__


def check_checkpoint(path: str, module: torch.nn.Module, averaged: bool, data: Any) -> int:
    """Refuses a checkpoint that is none, or belongs to another model or stream, before any work.

    Args:
        path: of the checkpoint.
        module: the task that is to go on from it.
        averaged: whether the run keeps an average of its weights.
        data: the data module, which learns from it where the stream goes on.

    Returns:
        Optimiser steps done.

    Raises:
        DataError: the file is no checkpoint of a training.
        ConfigError: it was made with another model, or with another order of the pairs.
    """
    try:
        whole = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        state = whole["state_dict"]
    except Exception as error:  # torch raises many kinds, all of which mean that it is no such file
        raise DataError(f"{path}: no readable checkpoint of a training ({type(error).__name__})") from error
    if averaged is not ("current_model_state" in whole):
        began = "without" if averaged else "with"
        raise ConfigError(f"callbacks.ema.decay: the run began {began} an average; go on as it began")
    own = module.state_dict()
    for name in sorted(own.keys() | state.keys()):
        there, here = (tuple(side[name].shape) if name in side else "missing" for side in (state, own))
        if there != here:
            raise ConfigError(
                f"{path}: made with another model ('{name}' is {there} there, {here} here); "
                "give the overrides that the run began with; run.json in its folder has them"
            )
    data.load_state_dict(whole.get(type(data).__qualname__, {}))
    return int(whole["global_step"])
