import json
import random

import pytest
import torch
from safetensors.torch import load_file

from pathclip.config import build
from pathclip.launch import compose
from pathclip.shards.writer import Sample, write_shards
from pathclip.train import diagnosis
from pathclip.train.diagnosis import StuckLoss
from pathclip.train.train import train
from tests import tiny_shards

SMALL_NORMED = [
    *("model=lite", "model.image=test_efficientnet", "model.image_size=64"),
    *("model.pretrained=false", "+model.text_layers=1"),
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    good = tiny_shards.samples(240)
    texts = [sample.text for sample in good]
    random.Random(0).shuffle(texts)
    kinds = {
        "matching": good,
        "shuffled": [Sample(s.key, s.image, t, dict(s.meta)) for s, t in zip(good, texts, strict=True)],
        "black": [Sample(s.key, tiny_shards.jpeg((0, 0, 0), 0), s.text, dict(s.meta)) for s in good],
    }
    for name, samples in kinds.items():
        write_shards(folder / name, samples, 24)
    return folder


def config(shards, kind, out, *overrides, look=30):
    target = "pathclip.train.diagnosis.StuckLoss"
    return compose(
        "train",
        [
            *("model=tiny", f"data.train={shards / kind}", "data.batch_size=8", "data.workers=0"),
            *("data.augment=null", "schedule=constant", f"out={out}", f"trainer.max_steps={look + 2}"),
            f"++callbacks.stuck_loss={{_target_: {target}, after: [{look}]}}",
            *overrides,
        ],
    )


def diagnose(cfg):
    """Trains and gives what the callback wrote, or None."""
    result = train(cfg)
    file = result.out / "diagnosis.json"
    return json.loads(file.read_text()) if file.is_file() else None


def likeliest(cfg):
    found = diagnose(cfg)
    assert found, "nothing was said"
    return found["causes"][0]["name"]


def test_a_run_that_learns_is_not_talked_about(shards, tmp_path, capsys):
    assert diagnose(config(shards, "matching", tmp_path, "optim.lr=0.001")) is None
    assert "no better than chance" not in capsys.readouterr().err


@pytest.mark.parametrize(("last", "said"), [(4.0, False), (8.0, True)])
def test_a_loss_above_chance_that_falls_is_not_talked_about(shards, tmp_path, monkeypatch, last, said):
    """As with a sharp scale on new data; chance is 2.08 for these batches."""

    def made_up(trainer):
        return torch.tensor(8.0 + (last - 8.0) * trainer.global_step / 100)

    monkeypatch.setattr(diagnosis, "contrastive_loss", made_up)
    longer = ("optim.lr=0.001", "trainer.max_epochs=9")
    found = diagnose(config(shards, "matching", tmp_path, *longer, look=100))
    assert (found is not None) is said


def test_a_slow_run_that_begins_to_tell_pairs_apart_is_not_talked_about(shards, tmp_path, monkeypatch):
    """Its loss is at chance, but the true pairs are closer than the others by more than chance."""
    monkeypatch.setattr(diagnosis, "contrastive_loss", lambda _: torch.tensor(2.08))
    slow = diagnose(config(shards, "matching", tmp_path / "a", "optim.lr=0.001", look=30))
    shuffled = diagnose(config(shards, "shuffled", tmp_path / "b", "optim.lr=0.001", look=30))
    assert slow is None and shuffled is not None


def test_a_learning_rate_too_low_is_named_with_one_that_works(shards, tmp_path, capsys):
    found = diagnose(config(shards, "matching", tmp_path, "optim.lr=1e-9", look=12))
    assert found["causes"][0]["name"] == "lr_too_low"
    assert found["update"] < 1e-6
    said = capsys.readouterr().err
    assert "looks most like lr too low" in said and "optim.lr=1e-0" in said
    assert len([line for line in said.splitlines() if "no better than chance" in line]) == 1


@pytest.mark.slow
def test_a_learning_rate_too_high_is_named(shards, tmp_path):
    assert likeliest(config(shards, "matching", tmp_path, "optim.lr=0.3")) == "lr_too_high"


def test_locked_towers_are_named(shards, tmp_path):
    cfg = config(shards, "matching", tmp_path, "optim.lr=0.001", "model.lock=[image,text]", look=12)
    assert likeliest(cfg) == "frozen_tower"


def test_shuffled_captions_are_named(shards, tmp_path):
    assert likeliest(config(shards, "shuffled", tmp_path, "optim.lr=0.001")) == "shuffled_captions"


@pytest.mark.slow
def test_pictures_that_are_all_alike_are_named_as_collapsed_embeddings(shards, tmp_path):
    found = diagnose(config(shards, "black", tmp_path, "optim.lr=0.001", look=20))
    assert found["causes"][0]["name"] == "collapsed_embeddings"
    assert found["image_cosine"] > 0.99 and found["pixel_spread"] < 0.05


@pytest.mark.slow
def test_a_logit_scale_too_low_is_named_as_temperature(shards, tmp_path):
    towers = build(config(shards, "matching", tmp_path).model)
    towers.model.logit_scale.data.fill_(0.0)
    towers.save(tmp_path / "cold")
    cold = ["model=folder", f"model.path={tmp_path / 'cold'}", "optim.lr=5e-5", "data.batch_size=64"]
    cfg = config(shards, "matching", tmp_path / "run", *cold, "trainer.max_epochs=9", look=10)
    assert likeliest(cfg) == "temperature"


def test_looking_does_not_change_the_weights(shards, tmp_path):
    overrides = [*SMALL_NORMED, "optim.lr=0.001", "data.batch_size=16"]
    assert diagnose(config(shards, "shuffled", tmp_path / "with", *overrides, look=10)), "it did not look"
    without = config(shards, "shuffled", tmp_path / "without", *overrides, "~callbacks.stuck_loss", look=10)
    train(without)
    first, second = (
        load_file(tmp_path / name / "model" / "open_clip_model.safetensors") for name in ("with", "without")
    )
    assert [name for name in first if not first[name].equal(second[name])] == []


def test_stop_ends_the_training_at_the_look(shards, tmp_path):
    overrides = ["optim.lr=1e-9", "++callbacks.stuck_loss.action=stop", "trainer.max_steps=40"]
    cfg = config(shards, "matching", tmp_path, *overrides, look=10)
    diagnose(cfg)
    card = json.loads((tmp_path / "model" / "pathclip.json").read_text())
    assert 10 <= card["training"]["steps"] <= 11


@pytest.mark.parametrize(
    ("named", "message"), [({"after": [5]}, "10 steps"), ({"tolerance": 0}, "tolerance")]
)
def test_settings_that_cannot_work_are_refused(named, message):
    with pytest.raises(ValueError, match=message):
        StuckLoss(**named)
