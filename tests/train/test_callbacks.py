import math

import pytest
import torch
from safetensors.torch import load_file

from pathclip.errors import ConfigError
from pathclip.model_folder import open_model_folder
from pathclip.train.callbacks import Ema
from pathclip.train.run_folder import read_metrics
from pathclip.train.train import train

from .tiny_run import config, same_weights


def test_the_model_folder_holds_the_average_of_the_weights_of_all_steps(shards, tmp_path, monkeypatch):
    from pathclip.train.task import ContrastiveTask

    seen = []
    original = ContrastiveTask.optimizer_step

    def step(self, *arguments, **named):
        original(self, *arguments, **named)
        seen.append({name: value.detach().clone() for name, value in self.model.state_dict().items()})

    monkeypatch.setattr(ContrastiveTask, "optimizer_step", step)
    result = train(config(shards, tmp_path, "callbacks.ema.decay=0.5", "trainer.max_epochs=1"))
    average = seen[0]
    for n, weights in enumerate(seen[1:], 1):
        decay = min(0.5, (1 + n) / (10 + n))
        average = {name: decay * value + (1 - decay) * weights[name] for name, value in average.items()}
    saved = load_file(result.model / "open_clip_model.safetensors")
    for name, value in average.items():
        torch.testing.assert_close(saved[name], value, atol=1e-6, rtol=1e-5, msg=name)
    assert not torch.equal(saved["visual.proj"], seen[-1]["visual.proj"])


def test_validation_looks_at_the_average_and_training_goes_on_with_the_weights(shards, tmp_path):
    plain = train(config(shards, tmp_path / "plain", "trainer.max_epochs=2"))
    averaged = train(config(shards, tmp_path / "ema", "trainer.max_epochs=2", "callbacks.ema.decay=0.9"))
    rows = [
        {row["step"]: row for row in read_metrics(run.out) if name in row}
        for name in ("train/loss", "val/loss")
        for run in (plain, averaged)
    ]
    assert [row["train/loss"] for row in rows[0].values()] == [row["train/loss"] for row in rows[1].values()]
    for step in rows[2]:
        assert rows[2][step]["val/loss"] != pytest.approx(rows[3][step]["val/loss"], abs=1e-6)  # nor NaN
        assert math.isfinite(rows[3][step]["val/loss"])
    assert not same_weights(plain.model, averaged.model)


def test_whole_numbers_are_not_averaged():
    ema = Ema(0.5)
    assert torch.equal(ema._average(torch.tensor(5), torch.tensor(7), 3), torch.tensor(7))


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_a_decay_that_keeps_all_or_nothing_is_refused(decay):
    with pytest.raises(ValueError, match="between 0 and 1"):
        Ema(decay)


def test_a_run_that_stands_still_ends_early(shards, tmp_path):
    overrides = ["callbacks.early_stopping.monitor=val/loss", "callbacks.early_stopping.patience=2"]
    result = train(config(shards, tmp_path, *overrides, "optim.lr=0.0", "trainer.max_epochs=9"))
    assert open_model_folder(result.model).card["training"]["steps"] == 15


def test_an_average_of_split_weights_is_refused(shards, tmp_path):
    fsdp = ["trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=1", "trainer.precision=32-true"]
    with pytest.raises(ConfigError, match=r"callbacks\.ema\.decay"):
        train(config(shards, tmp_path, *fsdp, "callbacks.ema.decay=0.9"))


@pytest.mark.parametrize(("began", "now"), [("null", "0.9"), ("0.9", "null")])
def test_a_run_does_not_go_on_with_or_without_an_average_unless_it_began_so(shards, tmp_path, began, now):
    train(config(shards, tmp_path, f"callbacks.ema.decay={began}", "trainer.max_epochs=1"))
    with pytest.raises(ConfigError, match="go on as it began"):
        train(config(shards, tmp_path, f"callbacks.ema.decay={now}", "trainer.max_epochs=2", "ckpt=last"))


@pytest.mark.parametrize("callback", ["checkpoints", "early_stopping"])
def test_a_metric_of_the_validation_needs_validation_pairs(shards, tmp_path, callback):
    with pytest.raises(ConfigError, match=r"no validation pairs; name data\.val"):
        train(config(shards, tmp_path, f"callbacks.{callback}.monitor=val/loss", "data.val=null"))
