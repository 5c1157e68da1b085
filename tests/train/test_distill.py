"""A student from a teacher folder, on pairs and on pictures without texts."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from pathclip.config import build
from pathclip.errors import ConfigError, DataError
from pathclip.launch import compose
from pathclip.model_folder import open_model_folder
from pathclip.runtime.tokenizer import Tokenizer
from pathclip.train.rehearsal import made_up_batch
from pathclip.train.run_folder import read_metrics
from pathclip.train.train import train
from pathclip.train.training_pictures import read_training_pictures
from tests import tiny_shards
from tests.tiny_model import write_tiny_model

from .processes import KillAfterStep, train_in
from .test_resume import KILLED, check_equal
from .tiny_run import config, same_weights


@pytest.fixture(scope="module")
def teacher(shards, tmp_path_factory):
    return train(
        config(shards, tmp_path_factory.mktemp("teacher") / "run", "seed=5", "trainer.max_steps=2")
    ).model


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(13):
        (folder / f"{number}.jpg").write_bytes(tiny_shards.jpeg((190, 90, 150), 500 + number))
    return folder


def student(teacher, pictures, *more):
    """A student of another length than its teacher, with pictures without texts."""
    return [
        "experiment=distill",
        "model=tiny",
        "model.overrides.embed_dim=24",
        f"teacher={teacher}",
        f"data.unlabelled={pictures}",
        "optim.lr=0.001",
        *more,
    ]


@pytest.fixture(scope="module")
def run(shards, teacher, pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("student") / "run"
    return train(config(shards, out, *student(teacher, pictures, "trainer.max_epochs=2")))


def test_every_term_is_logged(run):
    first = next(row for row in read_metrics(run.out) if "train/loss" in row)
    terms = [first[f"train/{name}"] for name in ("contrastive", "distillation", "feature", "unlabelled")]
    assert first["train/loss"] == pytest.approx(sum(terms), abs=1e-4) and min(terms) > 0


def test_the_map_to_the_teacher_is_in_the_checkpoint_and_not_in_the_model(run):
    state = torch.load(run.out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert state["loss.to_teacher.weight"].shape == (32, 24)
    assert not [name for name in load_file(run.model / "open_clip_model.safetensors") if "teacher" in name]


def test_the_map_is_learnt(run, shards, teacher, pictures, tmp_path):
    again = train(config(shards, tmp_path, *student(teacher, pictures, "trainer.max_steps=1")))
    first, last = (
        torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for out in (again.out, run.out)
    )
    assert (first["loss.to_teacher.weight"] - last["loss.to_teacher.weight"]).abs().max() > 1e-4


def test_the_card_tells_of_pictures_without_texts_and_their_hashes_are_kept(run, pictures):
    folder = open_model_folder(run.model)
    told = folder.card["training"]["unlabelled"]
    assert told["folders"] == [str(pictures)] and told["pictures"] == 13 and told["per_batch"] == 8
    seen = read_training_pictures(folder)
    assert len(seen) == 40 + 13 and seen.perceptual_known == 40 + 13


def test_a_student_comes_nearer_to_its_teacher_on_pictures_that_have_no_texts(
    shards, teacher, pictures, tmp_path
):
    overrides = student(teacher, pictures, "loss.contrastive_weight=0", "loss.distill_weight=0")
    result = train(config(shards, tmp_path, *overrides, "data.augment=null", "trainer.max_epochs=12"))
    features = [row["train/feature"] for row in read_metrics(result.out) if "train/feature" in row]
    assert sum(features[-5:]) < 0.5 * sum(features[:5])


def test_the_same_seed_gives_the_same_student(run, shards, teacher, pictures, tmp_path):
    again = train(config(shards, tmp_path, *student(teacher, pictures, "trainer.max_epochs=2")))
    assert same_weights(again.model, run.model)


def test_micro_batches_give_the_same_student(run, shards, teacher, pictures, tmp_path):
    parts = student(teacher, pictures, "trainer.max_epochs=2", "micro_batch=3")
    again = train(config(shards, tmp_path, *parts))
    losses = [
        [row["train/loss"] for row in read_metrics(one.out) if "train/loss" in row] for one in (run, again)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("teacher=null", "loss=distill: there is no teacher; name its model folder by teacher="),
        ("teacher=nowhere", "teacher: nowhere: no such folder"),
        ("data.unlabelled=nowhere", "data.unlabelled: nowhere: no such folder of pictures or of shards"),
        ("data.unlabelled=${out}/empty", "data.unlabelled: .*empty holds no pictures"),
        ("data.unlabelled_per_pair=0.1", r"data.unlabelled_per_pair=0\.1"),
        ("data.unlabelled=${data.val}", "its pictures stand in data.unlabelled"),
        ("loss=clip", "data.unlabelled: only loss=distill"),
    ],
)
def test_a_mistake_gets_one_clear_line(shards, teacher, pictures, tmp_path, override, message):
    (tmp_path / "empty").mkdir()
    keys = student(teacher, pictures, override)
    if override == "loss=clip":  # the experiment's own feature_weight is no key of it
        keys = ["model=tiny", f"data.unlabelled={pictures}", override]
    with pytest.raises((ConfigError, DataError), match=message) as caught:
        train(config(shards, tmp_path, *keys))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["another spelling", "a copy"])
def test_the_pictures_of_validation_are_none_to_learn_from(shards, teacher, tmp_path, kind):
    beside = shards / "val"
    if kind == "a copy":
        beside = shutil.copytree(shards / "val", tmp_path / "copy")
    keys = [*student(teacher, beside), f"data.val={shards}/val/"]
    with pytest.raises(ConfigError, match=r"its pictures stand in data\.unlabelled"):
        train(config(shards, tmp_path / "run", *keys))


def test_a_trial_step_holds_as_many_pictures_without_texts_as_the_run():
    towers = build(compose("train", ["model=tiny"]).model, "model")
    tokenizer = Tokenizer(towers.tokenizer_json.encode(), towers.context_length, towers.pad_id)
    shapes = [made_up_batch(towers, 4, tokenizer, share).unlabelled for share in (0.0, 0.1, 1.5)]
    assert shapes[0] is None and [len(one) for one in shapes[1:]] == [2, 6]


def overrides(shards, teacher, pictures, out, world, *more):
    return [
        *student(teacher, pictures, f"data.train={shards / 'train'}", "data.batch_size=8"),
        f"out={out}",
        "callbacks.ema.decay=0.9",
        "callbacks.checkpoints.every_n_steps=2",
        "trainer.max_epochs=2",
        f"trainer.devices={world}",
        f"trainer.strategy={'ddp' if world > 1 else 'auto'}",
        *more,
    ]


@pytest.mark.slow
def test_a_killed_student_goes_on_to_the_weights_of_an_undisturbed_one(shards, teacher, pictures, tmp_path):
    given = (shards, teacher, pictures)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert train_in(1, overrides(*given, whole, 1, "data.workers=0")) == [0]
    assert train_in(1, overrides(*given, broken, 1, "data.workers=0"), KillAfterStep(7)) == [KILLED]
    assert train_in(1, overrides(*given, broken, 1, "data.workers=2", "ckpt=last")) == [0]
    check_equal(broken, whole)


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(shards, teacher, pictures, tmp_path):
    losses = {}
    for world in (1, 2):
        out = tmp_path / str(world)
        told = overrides(shards, teacher, pictures, out, world, "data.workers=0")
        assert train_in(world, told) == [0] * world
        losses[world] = [row["train/loss"] for row in read_metrics(out) if "train/loss" in row]
    assert losses[1] == pytest.approx(losses[2], abs=1e-4) and len(losses[1]) == 10


def test_a_folder_without_torch_weights_teaches_too(shards, pictures, tmp_path):
    exported = write_tiny_model(tmp_path / "exported")
    result = train(config(shards, tmp_path / "run", *student(exported, pictures, "trainer.max_steps=2")))
    state = torch.load(result.out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert state["loss.to_teacher.weight"].shape == (8, 24)
