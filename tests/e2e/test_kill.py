"""A training that is killed with SIGKILL goes on as if nothing had happened."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from tests import tiny_shards


def command(folder, out, *overrides):
    return [
        *(sys.executable, "-m", "pathclip.train", "model=tiny", f"data.train={folder}", f"out={out}"),
        *(
            "data.batch_size=8",
            "data.workers=1",
            "trainer.max_epochs=4",
            "callbacks.checkpoints.every_n_steps=2",
        ),
        *overrides,
    ]


@pytest.mark.slow
def test_a_killed_training_continues_to_the_same_weights(tmp_path):
    tiny_shards.write(tmp_path / "train", n=80)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(tmp_path / "train", whole), check=True, capture_output=True)

    process = subprocess.Popen(
        command(tmp_path / "train", killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    last = killed / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert last.exists() and not (killed / "model").exists(), "the run ended before it could be killed"

    subprocess.run(command(tmp_path / "train", killed, "ckpt=last"), check=True, capture_output=True)
    first, second = (load_file(run / "model" / "open_clip_model.safetensors") for run in (whole, killed))
    assert all(torch.equal(first[name], second[name]) for name in first)
