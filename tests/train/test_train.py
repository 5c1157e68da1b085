import json

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from pathclip.errors import ConfigError, DataError, PathclipError
from pathclip.launch import compose
from pathclip.model_folder import open_model_folder
from pathclip.train.callbacks import read_metrics
from pathclip.train.train import train
from tests import tiny_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    tiny_shards.write(folder / "train", n=40)
    tiny_shards.write(folder / "val", n=24)
    return folder


def config(shards, out, *overrides):
    return compose(
        "train",
        [
            "model=tiny",
            f"data.train={shards / 'train'}",
            f"data.val={shards / 'val'}",
            "data.batch_size=8",
            "data.workers=0",
            "callbacks.checkpoints.every_n_steps=3",
            f"out={out}",
            *overrides,
        ],
    )


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory):
    return train(config(shards, tmp_path_factory.mktemp("run") / "whole", "trainer.max_epochs=2"))


def test_a_run_writes_a_model_folder_that_open_clip_loads(undisturbed):
    open_model_folder(undisturbed.model)
    open_clip.create_model(f"local-dir:{undisturbed.model}")


def test_the_card_says_what_it_was_trained_on(undisturbed):
    training = open_model_folder(undisturbed.model).card["training"]
    assert training["pairs"] == 40 and training["steps"] == 10 and len(training["data_hash"][0]) == 64


def test_the_run_folder_says_what_was_run(undisturbed):
    record = json.loads((undisturbed.out / "run.json").read_text())
    assert record["config"]["data"]["batch_size"] == 8
    assert record["packages"]["torch"] == torch.__version__.split("+")[0]


def test_the_loss_is_logged_at_every_step(undisturbed):
    losses = [row["train/loss"] for row in read_metrics(undisturbed.out) if "train/loss" in row]
    assert len(losses) == 10
    assert {"val/loss", "val/text_to_image_recall@5"} <= set(undisturbed.metrics)


def test_every_epoch_has_an_order_of_its_own(shards, tmp_path, monkeypatch):
    from pathclip.train.task import ContrastiveTask

    seen = []
    original = ContrastiveTask.training_step
    monkeypatch.setattr(
        ContrastiveTask,
        "training_step",
        lambda self, batch, index: (
            seen.append((batch.position.epoch, batch.group.tolist())) or original(self, batch, index)
        ),
    )
    train(config(shards, tmp_path, "trainer.max_epochs=2"))
    assert [epoch for epoch, _ in seen] == [0] * 5 + [1] * 5
    assert [groups for _, groups in seen[:5]] != [groups for _, groups in seen[5:]]


def test_training_learns(shards, tmp_path):
    result = train(config(shards, tmp_path, "trainer.max_epochs=12", "optim.lr=0.003", "data.augment=null"))
    losses = [row["train/loss"] for row in read_metrics(result.out) if "train/loss" in row]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_the_same_seed_gives_the_same_weights(shards, undisturbed, tmp_path):
    again = train(config(shards, tmp_path, "trainer.max_epochs=2"))
    assert same_weights(again.model, undisturbed.model)


@pytest.mark.parametrize("steps", [3, 5, 7])
def test_a_continued_run_ends_with_the_weights_of_an_undisturbed_one(shards, undisturbed, tmp_path, steps):
    # The schedule must know the whole length, so the run is broken off from within.
    class Broken(Exception):
        pass

    from pathclip.train.task import ContrastiveTask

    original = ContrastiveTask.training_step
    seen = 0

    def step(self, batch, index):
        nonlocal seen
        seen += 1
        if seen > steps:
            raise Broken
        return original(self, batch, index)

    ContrastiveTask.training_step = step
    try:
        with pytest.raises(Broken):
            train(config(shards, tmp_path, "trainer.max_epochs=2"))
    finally:
        ContrastiveTask.training_step = original
    continued = train(config(shards, tmp_path, "trainer.max_epochs=2", "ckpt=last", "data.workers=1"))
    assert same_weights(continued.model, undisturbed.model)


def test_untrained_weights_are_kept_where_asked(shards, tmp_path):
    result = train(config(shards, tmp_path, "trainer.max_steps=1", "save_untrained=true"))
    assert not same_weights(tmp_path / "untrained", result.model)


def test_the_logit_scale_stays_at_most_100(shards, tmp_path):
    result = train(config(shards, tmp_path, "trainer.max_steps=3", "optim.lr=3.0", "schedule=constant"))
    assert open_model_folder(result.model).card["logit_scale"] <= 100.001


def test_a_loss_that_is_no_number_ends_the_run_with_advice(shards, tmp_path):
    with pytest.raises(PathclipError, match=r"lower optim\.lr"):
        train(config(shards, tmp_path, "optim.lr=1e30", "trainer.max_epochs=3", "schedule=constant"))


def test_another_batch_size_cannot_continue(shards, undisturbed):
    with pytest.raises(ConfigError, match="began with"):
        train(config(shards, undisturbed.out, "ckpt=last", "data.batch_size=4", "trainer.max_epochs=3"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ckpt=last", "no checkpoint"),
        ("data.train=nowhere", "no such folder"),
        ("data.batch_size=400", "lower data.batch_size"),
        ("optim.lr=fast", "optim.lr"),
        ("data.augment.hue=3.0", "hue"),
        ("+optim.learning_rate=1", "unknown key"),
        ("loss.positives=all", "loss.positives"),
    ],
)
def test_a_mistake_gets_one_clear_line(shards, tmp_path, override, message):
    with pytest.raises((ConfigError, DataError), match=message):
        train(config(shards, tmp_path, override))


def same_weights(first, second):
    a, b = (load_file(folder / "open_clip_model.safetensors") for folder in (first, second))
    return all(torch.equal(a[name], b[name]) for name in a)
