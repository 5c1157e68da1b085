"""A run that is killed at any moment goes on to the weights that it would have had, bit for bit."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from pathclip.train.run_folder import read_metrics

from .processes import KillAfterStep, KillAtRename, train_in

KILLED = -9


def overrides(shards, out, world=1, workers=0, *more):
    return [
        "model=tiny",
        "model.patch_dropout=0.25",  # draws of its own in every step
        "callbacks.ema.decay=0.9",
        f"data.train={shards / 'train'}",
        f"data.val={shards / 'val'}",
        "data.batch_size=8",
        f"data.workers={workers}",
        "callbacks.checkpoints.every_n_steps=2",
        "trainer.max_epochs=2",
        f"trainer.devices={world}",
        f"trainer.strategy={'ddp' if world > 1 else 'auto'}",
        f"out={out}",
        *more,
    ]


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory):
    """Runs of 10 steps by the number of processes."""
    runs = {}
    for world in (1, 2):
        runs[world] = tmp_path_factory.mktemp("undisturbed") / "run"
        assert train_in(world, overrides(shards, runs[world], world)) == [0] * world
    return runs


def state(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def check_equal(first, second):
    """Weights, averages, optimiser, schedule, position: everything that a run goes on from."""
    weights, others = (load_file(run / "model" / "open_clip_model.safetensors") for run in (first, second))
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    for key in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "global_step"):
        assert_same(state(first)[key], state(second)[key])
    assert state(first)["PairsDataModule"] == state(second)["PairsDataModule"]


def assert_same(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    else:
        assert a == b


QUICK = (1, 4, 5, 7)  # before the first checkpoint, at one, at the end of an epoch, between two


@pytest.mark.parametrize(
    "step", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in range(1, 10)]
)
def test_a_run_killed_after_any_step_ends_as_an_undisturbed_one(shards, undisturbed, tmp_path, step):
    run = tmp_path / "run"
    assert train_in(1, overrides(shards, run), KillAfterStep(step)) == [KILLED]
    more = [] if step == 1 else ["ckpt=last"]  # before the first checkpoint there is nothing to go on from
    assert train_in(1, overrides(shards, run, 1, 0, *more)) == [0]
    check_equal(run, undisturbed[1])
    logged = {row["step"] for row in read_metrics(run) if "train/loss" in row}
    assert {*range(10)} - logged <= {step - 1}  # killed after its checkpoint and before its figures


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_loader_workers_change_nothing(shards, undisturbed, tmp_path, workers):
    run = tmp_path / "run"
    assert train_in(1, overrides(shards, run, 1, workers), KillAfterStep(5)) == [KILLED]
    assert train_in(1, overrides(shards, run, 1, workers, "ckpt=last")) == [0]
    check_equal(run, undisturbed[1])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("step", [3, 5, 8])
def test_two_processes_go_on_too(shards, undisturbed, tmp_path, workers, step):
    run = tmp_path / "run"
    assert KILLED in train_in(2, overrides(shards, run, 2, workers), KillAfterStep(step))
    assert train_in(2, overrides(shards, run, 2, workers, "ckpt=last")) == [0, 0]
    check_equal(run, undisturbed[2])


@pytest.mark.parametrize("number", [*(pytest.param(n, marks=pytest.mark.slow) for n in (2, 5)), 4])
def test_a_kill_while_a_checkpoint_takes_its_place_leaves_one_to_go_on_from(
    shards, undisturbed, tmp_path, number
):
    # The first checkpoint takes two renames (to its full name, to its place), each later one three.
    run = tmp_path / "run"
    assert train_in(1, overrides(shards, run), KillAtRename(number)) == [KILLED]
    more = ["ckpt=last"] if list((run / "checkpoints").glob("[lp]*.ckpt")) else []
    assert train_in(1, overrides(shards, run, 1, 0, *more)) == [0]
    check_equal(run, undisturbed[1])


@pytest.mark.parametrize("harm", ["cut off", "changed"])
def test_of_a_damaged_checkpoint_the_one_before_it_is_used(shards, undisturbed, tmp_path, harm):
    run = tmp_path / "run"
    assert train_in(1, overrides(shards, run), KillAfterStep(7)) == [KILLED]
    last = run / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    if harm == "cut off":
        del content[-1000:]
    else:
        content[len(content) // 2] ^= 1
    last.write_bytes(content)
    said = tmp_path / "stderr"
    assert train_in(1, overrides(shards, run, 1, 0, "ckpt=last"), stderr=said) == [0]
    assert "the one before it is used" in said.read_text()
    check_equal(run, undisturbed[1])


def test_another_number_of_processes_is_refused_and_goes_on_at_the_epochs_start_where_asked(shards, tmp_path):
    run = tmp_path / "run"
    assert train_in(1, overrides(shards, run), KillAfterStep(8)) == [KILLED]
    shutil.copytree(run, tmp_path / "other")
    said = tmp_path / "stderr"
    assert 0 not in train_in(2, overrides(shards, run, 2, 0, "ckpt=last"), stderr=said)
    assert "resume=epoch" in said.read_text()
    assert train_in(2, overrides(shards, tmp_path / "other", 2, 0, "ckpt=last", "resume=epoch")) == [0, 0]
    # Steps 5 to 7 of the second epoch are repeated: 8 steps were done, then a whole epoch of 5.
    assert state(tmp_path / "other")["global_step"] == 13
