"""Trainings in processes of their own, started quickly: some meet, some are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# A server that has imported torch and runs nothing forks each process: half a second instead of ten.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["pathclip.train.train", "pathclip.launch", "open_clip", "hydra.main"])


def train_in(
    world: int,
    overrides: Sequence[str],
    kill: Callable[[], None] | None = None,
    stderr: Path | None = None,
    timeout: float = 240,
) -> list[int]:
    """Runs `train` with these overrides in `world` processes that meet; returns their exit codes.

    Args:
        world: number of processes.
        overrides: of the config.
        kill: called in each process before the training; sets the trap that kills it.
        stderr: a file that gets what they print there.
        timeout: seconds, after which all are killed and the test fails.
    """
    return run_in(world, _train, (list(overrides), kill, stderr), timeout)


def run_in(world: int, function: Callable[..., None], arguments: tuple, timeout: float = 240) -> list[int]:
    """Runs a function in `world` processes with the environment that torchrun gives."""
    port = _free_port()
    processes = [
        _SERVER.Process(target=_meet, args=(rank, world, port, function, arguments)) for rank in range(world)
    ]
    for process in processes:
        process.start()
    killed = False
    for process in processes:
        # Others would wait for one that was killed until their own time is up.
        process.join(5 if killed else timeout)
        if process.is_alive():
            if not killed:
                raise AssertionError("a training did not end")
            process.kill()
            process.join()
        killed = killed or process.exitcode == -signal.SIGKILL
    return [process.exitcode for process in processes]


def _meet(rank: int, world: int, port: int, function: Callable[..., None], arguments: tuple) -> None:
    import torch

    os.setpgid(0, 0)
    torch.set_num_threads(1)
    if world > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world),
            "LOCAL_WORLD_SIZE": str(world),
            "GROUP_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RUN_ID": "test",
        }
    function(*arguments)


def _train(overrides: list[str], kill: Callable[[], None] | None, stderr: Path | None) -> None:
    from pathclip.launch import compose
    from pathclip.train.train import train

    if stderr:
        os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    if kill:
        kill()
    train(compose("train", overrides))


class KillAfterStep:
    """Kills the process and its loader workers when so many optimiser steps are done and kept."""

    def __init__(self, step: int):
        self.step = step

    def __call__(self) -> None:
        from pathclip.train.checkpoints import Checkpoints

        original = Checkpoints.on_train_batch_end

        def killing(checkpoints: Any, trainer: Any, *rest: Any) -> None:
            original(checkpoints, trainer, *rest)
            if trainer.global_step >= self.step:
                os.killpg(0, signal.SIGKILL)

        Checkpoints.on_train_batch_end = killing  # type: ignore[method-assign]


class KillAtRename:
    """Kills the process at the n-th time that a checkpoint would take its place."""

    def __init__(self, number: int):
        self.number = number

    def __call__(self) -> None:
        original = Path.replace
        seen = 0

        def killing(path: Path, target: Any) -> Any:
            nonlocal seen
            if str(target).endswith(".ckpt"):
                seen += 1
                if seen == self.number:
                    os.killpg(0, signal.SIGKILL)
            return original(path, target)

        Path.replace = killing  # type: ignore[method-assign]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
