"""Two processes that share a batch train as one process that has it whole."""

import pytest
import torch
from safetensors.torch import load_file

from pathclip.launch import compose
from pathclip.model.towers import load_towers
from pathclip.model_folder import open_model_folder
from pathclip.train.run_folder import read_metrics
from pathclip.train.train import train
from tests import tiny_shards

from .processes import run_in

STEPS = 20
LOSSES = {
    "clip": ["loss=clip"],
    "clip_whole_matrix": ["loss=clip", "loss.local_loss=false"],
    "multi_positive": ["loss=multi_positive"],
    "multi_positive_whole_matrix": ["loss=multi_positive", "loss.local_loss=false"],
    "siglip": ["loss=siglip", "model.logit_scale=10", "model.logit_bias=-10"],
    "hard_negative": ["loss=hard_negative"],
    "distill": ["loss=distill", "teacher={teacher}", "loss.feature_weight=100"],
    "coca": ["model=coca_tiny", "loss=coca"],
    "micro_batches": ["loss=clip", "micro_batch=2"],
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "train"
    tiny_shards.write(folder, n=48)
    return folder


@pytest.fixture(scope="module")
def teacher(shards, tmp_path_factory):
    run = tmp_path_factory.mktemp("teacher")
    return train(compose("train", overrides(shards, run, "seed=5", "trainer.max_steps=1"))).model


def overrides(shards, out, *more):
    return ["model=tiny", f"data.train={shards}", "data.batch_size=8", "data.workers=0", f"out={out}", *more]


def run_all(commands):
    """Trains as each of the commands says, in the processes that call this together."""
    for command in commands:
        train(compose("train", command))


QUICK = ("clip", "multi_positive")
EACH = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in LOSSES]


@pytest.fixture(scope="module")
def quick_runs(shards, tmp_path_factory):
    """The folder of runs of the most used losses, by one process and by two."""
    return run_losses(shards, None, QUICK, tmp_path_factory.mktemp("quick"))


@pytest.fixture(scope="module")
def slow_runs(shards, teacher, tmp_path_factory):
    """Likewise of the others."""
    return run_losses(shards, teacher, [*LOSSES.keys() - {*QUICK}], tmp_path_factory.mktemp("slow"))


@pytest.fixture
def runs(request, loss):
    return request.getfixturevalue("quick_runs" if loss in QUICK else "slow_runs")


def run_losses(shards, teacher, names, folder):
    for world in (1, 2):
        commands = []
        for name in names:
            changes = LOSSES[name]
            out = folder / f"{name}_{world}"
            more = [
                *(change.format(teacher=teacher) for change in changes),
                f"trainer.max_steps={STEPS}",
                "trainer.max_epochs=-1",
                f"trainer.devices={world}",
                f"trainer.strategy={'ddp' if world > 1 else 'auto'}",
            ]
            commands.append(overrides(shards, out, *more))
        assert run_in(world, run_all, (commands,)) == [0] * world
    return folder


def losses(run):
    return [row["train/loss"] for row in read_metrics(run) if "train/loss" in row]


@pytest.mark.parametrize("loss", EACH)
def test_two_processes_have_the_losses_of_one(runs, loss):
    one, two = losses(runs / f"{loss}_1"), losses(runs / f"{loss}_2")
    assert len(one) == len(two) == STEPS
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) < 1e-5
    assert max(one) - min(one) > 1e-2, "a loss that stands still would prove nothing"


@pytest.mark.parametrize("loss", EACH)
def test_two_processes_have_the_weights_of_one(runs, loss):
    one, two = (load_file(runs / f"{loss}_{n}" / "model" / "open_clip_model.safetensors") for n in (1, 2))
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=2e-3, rtol=0, msg=name)


@pytest.mark.slow
def test_weights_split_over_two_processes_train_as_those_of_one(quick_runs, shards, tmp_path):
    """FSDP2, as `trainer=fsdp` configures it, on CPUs."""
    more = [
        *("trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32-true"),
        *("loss=clip", f"trainer.max_steps={STEPS}", "trainer.max_epochs=-1"),
    ]
    assert run_in(2, run_all, ([overrides(shards, tmp_path / "run", *more)],)) == [0, 0]
    one, split = losses(quick_runs / "clip_1"), losses(tmp_path / "run")
    assert max(abs(a - b) for a, b in zip(one, split, strict=True)) < 1e-4
    load_towers(open_model_folder(tmp_path / "run" / "model"))
