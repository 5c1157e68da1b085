"""Scripts that start a training elsewhere, run here: with stand-ins for SLURM's commands, and a local Ray."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from pathclip.train.run_folder import read_metrics
from tests import tiny_shards

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
TINY = ("model=tiny", "data.batch_size=8", "data.workers=0", "loss=clip")
# On this machine `srun` is its command, and the job's only machine is this one.
STAND_INS = {
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "scontrol": 'if [[ $1 == show ]]; then echo 127.0.0.1; else echo "$@" >> "$CALLS"; fi',
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    tiny_shards.write(folder, n=40)
    return folder


def losses(out):
    return [row["train/loss"] for row in read_metrics(out) if "train/loss" in row]


@pytest.fixture
def slurm(tmp_path):
    """Environment of a job of SLURM with two processes on this machine."""
    for name, body in STAND_INS.items():
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(f"#!/bin/bash\n{body}\n")
        command.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "PYTHON": sys.executable,
        "RUNS": str(tmp_path / "runs"),
        "OMP_NUM_THREADS": "1",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NAME": "pathclip",
        "SLURM_JOB_NODELIST": "here",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_GPUS_ON_NODE": "2",
    }


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="SLURM's machines run Linux")
def test_a_job_of_slurm_asks_to_come_back_and_then_goes_on_from_its_checkpoint(tmp_path, shards, slurm):
    out = tmp_path / "runs" / f"pathclip-{slurm['SLURM_JOB_ID']}"
    last = out / "checkpoints" / "last.ckpt"
    command = [
        *("bash", str(SCRIPTS / "slurm.sbatch"), *TINY, f"data.train={shards}", "trainer=cpu"),
        *("trainer.devices=2", "callbacks.checkpoints.every_n_steps=2"),
    ]
    with (tmp_path / "log").open("wb") as log:
        first = subprocess.Popen([*command, "trainer.max_epochs=500"], env=slurm, stdout=log, stderr=log)
        try:
            wait_for(last.is_file, first)
            first.send_signal(signal.SIGUSR1)
            wait_for((tmp_path / "calls").is_file, first)
        finally:
            kill_all(first.pid)  # what SLURM does to the steps of a job that comes back
            first.wait()
    assert (tmp_path / "calls").read_text().split() == ["requeue", slurm["SLURM_JOB_ID"]]
    done = torch.load(last, weights_only=True)["global_step"]
    again = subprocess.run(
        [*command, f"trainer.max_steps={done + 4}", "trainer.max_epochs=500"],
        env=slurm, capture_output=True, text=True,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr[-2000:]
    assert (out / "model").is_dir() and len(list((out / "logs").iterdir())) == 2
    assert read_metrics(out)[-1]["step"] == done + 4 - 1


def kill_all(process):
    """torchrun gives each of its processes a session of its own, so a group's signal does not reach them."""
    tree = [*psutil.Process(process).children(recursive=True), psutil.Process(process)]
    for one in tree:
        one.kill()
    psutil.wait_procs(tree)


def wait_for(happened, process, seconds=200):
    end = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_two_workers_of_ray_train_as_one_process_does(tmp_path, shards):
    pytest.importorskip("ray.train")
    given = [*TINY, f"data.train={shards}", "trainer.max_epochs=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [
            *(sys.executable, str(SCRIPTS / "train_on_ray.py"), "--workers", "2", "--restarts", "0"),
            *(*given, f"out={tmp_path / 'ray'}"),
        ],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    alone = subprocess.run(
        [sys.executable, "-m", "pathclip.train", *given, f"out={tmp_path / 'alone'}"], env=environment
    )
    assert alone.returncode == 0
    assert len(losses(tmp_path / "ray")) == 5
    assert losses(tmp_path / "ray") == pytest.approx(losses(tmp_path / "alone"), abs=1e-5)


def test_a_misspelt_key_is_told_before_ray_starts(tmp_path):
    run = subprocess.run(
        [sys.executable, str(SCRIPTS / "train_on_ray.py"), "--workers", "2", f"out={tmp_path}", "sed=1"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 1
    assert run.stderr.startswith("train_on_ray: 'sed'") and run.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def scaling():
    spec = importlib.util.spec_from_file_location("scaling_table", SCRIPTS / "scaling_table.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling_table"] = module
    spec.loader.exec_module(module)
    return module


def test_the_scaling_table_counts_the_operations_of_the_real_model(scaling):
    counted = scaling.count("ViT-B-32")
    # By hand: 24 width² for each token of a block, 4 tokens² width for its attention; backward twice that.
    image = 12 * (50 * 24 * 768**2 + 4 * 50**2 * 768)
    text = 12 * (77 * 24 * 512**2 + 4 * 77**2 * 512)
    patches = 2 * 49 * 3072 * 768  # nobody asks for the gradient of the pixels
    assert counted.flops == pytest.approx(3 * (image + text) + 2 * patches, rel=0.002)
    assert counted.parameters == 151_277_313 and counted.tokens == (50, 77)
    assert counted.checkpointed < counted.activations / 5


def test_what_does_not_fit_is_computed_in_parts(scaling, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scaling_table", "--gpus", "1", "64", "--batch", "16384"])
    scaling.main()
    one, many = capsys.readouterr().out.splitlines()[-2:]
    assert "micro_batch=" in one and "strategy=ddp" not in one
    assert "micro_batch" not in many and "+trainer.num_nodes=8" in many
