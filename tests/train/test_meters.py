import csv
import time

import pytest

from pathclip.launch import compose
from pathclip.shards.collate import Collate
from pathclip.train.meters import Meters
from pathclip.train.train import train
from tests import tiny_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    tiny_shards.write(folder / "train", n=80)
    tiny_shards.write(folder / "val", n=24)
    return folder


def measured(shards, out, *overrides):
    """What the meters logged, a row per log."""
    cfg = compose(
        "train",
        [
            *("model=tiny", "++callbacks.meters._target_=pathclip.train.meters.Meters"),
            *(f"data.train={shards / 'train'}", "data.batch_size=8", "data.workers=0"),
            *("data.augment=null", f"out={out}", "trainer.max_steps=8", *overrides),
        ],
    )
    train(cfg)
    rows = []
    for file in sorted(out.glob("logs/*/metrics.csv")):
        with file.open(newline="") as lines:
            rows += [row for row in csv.DictReader(lines) if row.get("train/images_per_second")]
    return [
        {name: float(row[f"train/{name}"]) for name in ("images_per_second", "data_wait", "memory_gb")}
        for row in rows
    ]


@pytest.fixture
def slow_loader(monkeypatch):
    original = Collate.__call__

    def slow(self, *arguments):
        time.sleep(0.8)
        return original(self, *arguments)

    monkeypatch.setattr(Collate, "__call__", slow)


def test_a_slow_loader_shows_as_data_wait(shards, tmp_path, slow_loader):
    rows = measured(shards, tmp_path)
    assert len(rows) == 7  # every step but the first
    assert sum(row["data_wait"] for row in rows) / len(rows) > 0.5
    assert all(row["images_per_second"] < 8 / 0.8 for row in rows)


def test_a_loader_that_keeps_up_shows_as_little_wait(shards, tmp_path):
    rows = measured(shards, tmp_path, "model.image_size=64")
    assert sorted(row["data_wait"] for row in rows)[len(rows) // 2] < 0.5
    assert all(row["memory_gb"] > 0.1 for row in rows)


def test_figures_are_logged_as_often_as_the_trainer_logs(shards, tmp_path):
    assert len(measured(shards, tmp_path, "trainer.log_every_n_steps=4")) == 2


def test_batches_with_a_checkpoint_are_left_out(shards, tmp_path):
    rows = measured(shards, tmp_path, "callbacks.checkpoints.every_n_steps=2")
    # Of 8 steps the first, and every second one, in or after which a checkpoint is written.
    # The logger repeats the last figures where there are no new ones.
    assert len({row["images_per_second"] for row in rows}) in (3, 4)


def test_validation_is_not_counted(monkeypatch):
    class Clock:
        now = 0.0

    monkeypatch.setattr("pathclip.train.meters.time.perf_counter", lambda: Clock.now)
    logged = []

    class Task:
        class device:
            type = "cpu"

        def log_dict(self, figures, **_):
            logged.append(figures)

    class Trainer:
        global_step, log_every_n_steps, world_size = 0, 3, 2

    meters, trainer, task = Meters(), Trainer(), Task()
    meters.on_train_start(trainer, task)
    for wait, validates in ((9, False), (1, False), (1, True), (50, False), (1, False), (1, False)):
        Clock.now += wait
        meters.on_train_batch_start(trainer, task, [0] * 8, 0)
        Clock.now += 3
        trainer.global_step += 1
        meters.on_train_batch_end(trainer, task, None, [0] * 8, 0)
        if validates:
            meters.on_validation_start(trainer, task)
            Clock.now += 100
    for figures in logged:  # two batches of 8 on 2 ranks in 2 * (1 + 3) seconds each time
        assert figures["train/images_per_second"] == pytest.approx(4.0)
        assert figures["train/data_wait"] == pytest.approx(0.25)
    assert len(logged) == 2
