"""Which states of a run are kept, where, and which one a run goes on from; kills are in test_resume."""

import json
import zipfile

import fsspec
import pytest
import torch
from safetensors.torch import load_file

from pathclip.errors import ConfigError, DataError
from pathclip.model_folder import open_model_folder
from pathclip.train.checkpoints import Checkpoints, damage, find_checkpoint
from pathclip.train.run_folder import read_metrics
from pathclip.train.train import train

from .tiny_run import config, same_weights


def state(path):
    return torch.load(path, weights_only=True)


def test_the_last_two_states_and_the_best_one_are_kept(shards, tmp_path):
    monitor = "callbacks.checkpoints.monitor=val/loss"
    overrides = [monitor, "trainer.max_epochs=3", "optim.lr=0.05"]
    result = train(config(shards, tmp_path, *overrides))
    kept = {path.name: state(path)["global_step"] for path in (tmp_path / "checkpoints").iterdir()}
    losses = {row["step"]: row["val/loss"] for row in read_metrics(tmp_path) if "val/loss" in row}
    best = min(losses, key=losses.__getitem__)
    assert kept == {"last.ckpt": 15, "previous.ckpt": 12, "best.ckpt": int(best) + 1}
    card = open_model_folder(tmp_path / "best").card
    assert card["training"]["steps"] == best + 1
    weights = load_file(tmp_path / "best" / "open_clip_model.safetensors")
    saved = state(tmp_path / "checkpoints" / "best.ckpt")["state_dict"]
    assert all(torch.equal(saved[f"model.{name}"], value) for name, value in weights.items())
    assert same_weights(result.model, tmp_path / "best") is (best == max(losses))


def test_a_metric_that_does_not_exist_is_one_line_with_those_that_do(shards, tmp_path):
    with pytest.raises(
        ConfigError, match=r"monitor=val/los: no figure of the validation. Did you mean val/loss"
    ):
        train(config(shards, tmp_path, "callbacks.checkpoints.monitor=val/los", "trainer.max_epochs=1"))


def test_every_checkpoint_is_copied_and_a_lost_machine_goes_on_from_the_copy(shards, tmp_path):
    remote = f"file://{tmp_path / 'elsewhere'}"
    copied = f"callbacks.checkpoints.remote={remote}"
    whole = train(config(shards, tmp_path / "whole", "trainer.max_epochs=2"))
    train(config(shards, tmp_path / "first", copied, "trainer.max_epochs=1", "schedule=constant"))
    assert {path.name for path in (tmp_path / "elsewhere").iterdir()} == {"last.ckpt"}
    again = config(shards, tmp_path / "new", copied, "ckpt=last", "trainer.max_epochs=2")
    result = train(again)
    assert state(tmp_path / "elsewhere" / "last.ckpt")["global_step"] == 10
    assert open_model_folder(result.model).card["training"]["steps"] == 10
    assert open_model_folder(whole.model).card["training"]["steps"] == 10


def test_a_copy_that_fails_is_told_and_the_run_goes_on(shards, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    remote = f"callbacks.checkpoints.remote=file://{tmp_path / 'file' / 'inside'}"
    train(config(shards, tmp_path / "run", remote, "trainer.max_epochs=1"))
    assert "the checkpoint was not copied" in capfd.readouterr().err


def test_a_checkpoint_at_an_address_is_fetched(shards, tmp_path):
    train(config(shards, tmp_path / "run", "trainer.max_epochs=1"))
    with fsspec.open("memory://run/last.ckpt", "wb") as there:
        there.write((tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes())
    found = find_checkpoint("memory://run/last.ckpt", str(tmp_path / "other"))
    assert state(found)["global_step"] == 5
    with pytest.raises(DataError, match=r"memory://run/none\.ckpt: cannot be read"):
        find_checkpoint("memory://run/none.ckpt", str(tmp_path / "other"))


@pytest.mark.parametrize("harm", ["cut off", "one bit", "no archive"])
def test_damage_is_noticed(tmp_path, harm):
    path = tmp_path / "a.ckpt"
    torch.save({"weights": torch.arange(1000.0)}, path)
    assert damage(path) is None
    content = bytearray(path.read_bytes())
    if harm == "cut off":
        del content[-200:]
    elif harm == "one bit":
        with zipfile.ZipFile(path) as archive:
            inner = next(info for info in archive.infolist() if info.filename.endswith("data/0"))
        content[inner.header_offset + 2000] ^= 1
    else:
        content = bytearray(b"nothing of the kind")
    path.write_bytes(content)
    assert damage(path)


@pytest.mark.parametrize("values", [{"every_minutes": 0}, {"every_n_steps": 0}])
def test_an_interval_of_nothing_is_refused(tmp_path, values):
    with pytest.raises(ValueError, match="above 0"):
        Checkpoints(str(tmp_path), **values)


def test_a_run_that_goes_on_with_other_values_is_told_so(shards, tmp_path, capfd):
    train(config(shards, tmp_path, "trainer.max_epochs=1"))
    train(config(shards, tmp_path, "trainer.max_epochs=2", "ckpt=last", "optim.lr=0.1"))
    said = capfd.readouterr().err
    assert "not as the run began: optim.lr=0.1 (was 0.0005)" in said and "max_epochs" not in said
    assert json.loads((tmp_path / "run.1.json").read_text())["config"]["optim"]["lr"] == 0.1


def test_a_damaged_checkpoint_does_not_take_the_place_of_the_one_before_it(shards, tmp_path):
    train(config(shards, tmp_path, "trainer.max_epochs=2"))
    folder = tmp_path / "checkpoints"
    (folder / "last.ckpt").write_bytes(b"damaged")
    train(
        config(
            shards, tmp_path, "trainer.max_epochs=2", "ckpt=last", "callbacks.checkpoints.every_n_steps=50"
        )
    )
    assert damage(folder / "last.ckpt") is None and damage(folder / "previous.ckpt") is None


def test_the_validation_of_an_epoch_is_not_left_out_when_a_checkpoint_falls_on_its_end(shards, tmp_path):
    class Killed(Exception):
        pass

    def kill(*_):
        raise Killed

    every = "callbacks.checkpoints.every_n_steps=5"
    original = Checkpoints._write_last
    Checkpoints._write_last = lambda self, trainer: (original(self, trainer), kill())
    try:
        with pytest.raises(Killed):
            train(config(shards, tmp_path, every, "trainer.max_epochs=2"))
    finally:
        Checkpoints._write_last = original
    train(config(shards, tmp_path, every, "trainer.max_epochs=2", "ckpt=last"))
    assert [row["step"] for row in read_metrics(tmp_path) if "val/loss" in row] == [4, 9]


def test_an_address_that_hides_another_is_refused(tmp_path):
    with pytest.raises(DataError, match="no object store"):
        find_checkpoint("simplecache::s3://bucket/last.ckpt", str(tmp_path))


def test_a_run_begun_anew_does_not_keep_the_record_of_one_that_left_nothing(shards, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "diagnosis.json").write_text("{}")
    train(config(shards, tmp_path, "trainer.max_epochs=1"))
    assert json.loads((tmp_path / "run.json").read_text())["config"]["seed"] == 0
    assert not (tmp_path / "run.1.json").exists() and not (tmp_path / "diagnosis.json").exists()
