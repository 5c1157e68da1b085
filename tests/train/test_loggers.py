import sys
from pathlib import Path

import pytest

from pathclip.config import build
from pathclip.errors import ConfigError
from pathclip.launch import compose
from pathclip.train.run_folder import read_metrics
from pathclip.train.train import train
from tests import tiny_shards


def run(folder, *overrides):
    tiny_shards.write(folder / "train", n=16)
    given = ["model=tiny", f"data.train={folder / 'train'}", "data.batch_size=8", "data.workers=0"]
    return train(compose("train", [*given, "trainer.max_epochs=1", f"out={folder / 'run'}", *overrides])).out


@pytest.fixture
def no_network(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def test_tensorboard_gets_the_loss_of_every_step_beside_the_csv(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = run(tmp_path, "logger=tensorboard")
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    logged = [row["train/loss"] for row in read_metrics(out) if "train/loss" in row]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(logged, rel=1e-6)
    assert len(logged) == 2


def test_wandb_writes_into_the_run_folder_without_a_network(tmp_path, no_network):
    for number in (1, 2):  # two jobs of a sweep are one process and two runs
        out = run(tmp_path / str(number), "logger=wandb")
        (record,) = out.glob("wandb/offline-run-*/run-*.wandb")
        assert b"train/loss" in record.read_bytes()
        assert any("train/loss" in row for row in read_metrics(out))
    assert not Path("wandb").exists()


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_missing_package_is_one_line_that_says_what_to_install(package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    cfg = compose("train", [f"logger={package}", f"out={tmp_path}"])
    with pytest.raises(ConfigError, match=f"pip install {package}") as error:
        build(cfg.logger, "logger")
    assert "\n" not in str(error.value)


def test_every_logger_leaves_the_csv(tmp_path):
    for name in ("csv", "tensorboard", "wandb"):
        assert "csv" in compose("train", [f"logger={name}"]).logger
