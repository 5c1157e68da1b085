import json

import open_clip
import pytest
import torch

from pathclip.config import build
from pathclip.errors import ConfigError, DataError, PathclipError
from pathclip.launch import compose
from pathclip.model_folder import open_model_folder
from pathclip.runtime.tokenizer import Tokenizer
from pathclip.train.run_folder import read_metrics
from pathclip.train.train import train

from .tiny_run import config, same_weights


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


LOCKED = [
    *("model=lite", "model.image=test_efficientnet", "model.image_size=64"),
    *("model.pretrained=false", "+model.text_layers=1"),
]


def test_a_locked_tower_has_no_dropout_and_the_other_one_learns_from_the_first_step_on(
    shards, tmp_path, monkeypatch
):
    from pathclip.train.task import ContrastiveTask

    modes = []
    original = ContrastiveTask.training_step

    def step(self, batch, index):
        trunks = self.model.visual.trunk, self.model.text.transformer
        modes.append(tuple({part.training for part in trunk.modules()} for trunk in trunks))
        return original(self, batch, index)

    monkeypatch.setattr(ContrastiveTask, "training_step", step)
    result = train(config(shards, tmp_path / "first", *LOCKED, "trainer.max_steps=2"))
    again = ["model=folder", f"model.path={result.model}", "model.lock=[text]", "trainer.max_steps=1"]
    train(config(shards, tmp_path / "second", *again))
    assert modes == [({True}, {False})] * 3


def test_a_locked_text_tower_trains_with_the_features_that_it_gives_in_use(shards, tmp_path, monkeypatch):
    from pathclip.train.frozen_text import FrozenText

    held = []
    monkeypatch.setattr(FrozenText, "__init__", _keeping(FrozenText.__init__, held))
    train(config(shards, tmp_path, *LOCKED, "trainer.max_steps=2"))
    (frozen,) = held
    model = frozen._text.eval()
    for row, pooled in frozen._held.items():
        tokens = torch.frombuffer(bytearray(row), dtype=torch.int64)[None]
        torch.testing.assert_close(frozen._pool(tokens)[0], pooled, atol=1e-5, rtol=1e-5)
    assert frozen._held and not model.training


def test_a_locked_text_tower_gives_a_caption_the_same_features_in_any_company(shards, tmp_path):
    """A run that goes on meets its captions in other batches than the run that was not interrupted."""
    from pathclip.train.frozen_text import FrozenText

    towers = build(config(shards, tmp_path, *LOCKED, "++model.text_layers=2").model)
    tokenizer = Tokenizer(towers.tokenizer_json.encode(), towers.context_length, towers.pad_id)
    texts = ["a", "a gland with goblet cells", "tumour " * 20, "nests of atypical squamous cells"]
    tokens = torch.from_numpy(tokenizer(texts))
    towers.model.eval()
    together = FrozenText(towers.model)(tokens)
    alone = torch.cat([FrozenText(towers.model)(row[None]) for row in tokens])
    backwards = FrozenText(towers.model)(tokens.flip(0)).flip(0)
    for held in (together, backwards):
        torch.testing.assert_close(held, alone, atol=1e-6, rtol=0)
    first, second = FrozenText(towers.model), FrozenText(towers.model)
    first(tokens)
    second(tokens[2:])
    second(tokens)
    assert all(torch.equal(first._held[key], second._held[key]) for key in first._held)


def test_what_the_loss_does_not_use_is_not_waited_for(shards, tmp_path):
    result = train(config(shards, tmp_path, "model.logit_bias=-3", "loss=clip", "trainer.max_steps=2"))
    assert open_model_folder(result.model).card["logit_bias"] == -3


def _keeping(init, held):
    def wrapped(self, *arguments, **named):
        init(self, *arguments, **named)
        held.append(self)

    return wrapped


def test_the_logit_scale_stays_at_most_100_in_checkpoints_too(shards, tmp_path):
    towers = build(config(shards, tmp_path).model)
    towers.model.logit_scale.data.fill_(6.0)
    towers.save(tmp_path / "hot")
    overrides = ["model=folder", f"model.path={tmp_path / 'hot'}", "callbacks.checkpoints.every_n_steps=1"]
    result = train(config(shards, tmp_path / "run", *overrides, "trainer.max_steps=1"))
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["state_dict"]["model.logit_scale"].exp() <= 100.001
    assert open_model_folder(result.model).card["logit_scale"] <= 100.001


def test_a_loss_that_is_no_number_ends_the_run_with_advice(shards, tmp_path):
    with pytest.raises(PathclipError, match=r"lower optim\.lr"):
        train(config(shards, tmp_path, "optim.lr=1e30", "trainer.max_epochs=3", "schedule=constant"))


def test_another_batch_size_cannot_continue(shards, undisturbed):
    with pytest.raises(ConfigError, match="began with"):
        train(config(shards, undisturbed.out, "ckpt=last", "data.batch_size=4", "trainer.max_epochs=3"))


def test_a_new_run_does_not_begin_in_the_folder_of_another(shards, undisturbed):
    with pytest.raises(ConfigError, match="ckpt=last goes on with it"):
        train(config(shards, undisturbed.out))


def test_a_broken_checkpoint_is_one_line(shards, undisturbed, tmp_path):
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes((undisturbed.out / "checkpoints" / "last.ckpt").read_bytes()[:1000])
    with pytest.raises(DataError, match=r"broken\.ckpt: no readable checkpoint"):
        train(config(shards, tmp_path / "run", f"ckpt={broken}"))


def test_the_checkpoint_of_another_model_is_one_line(shards, undisturbed, tmp_path):
    last = undisturbed.out / "checkpoints" / "last.ckpt"
    with pytest.raises(ConfigError, match="made with another model"):
        train(config(shards, tmp_path, f"ckpt={last}", "model.overrides.embed_dim=16"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_accelerator_is_one_line(shards, tmp_path):
    with pytest.raises(ConfigError, match=r"trainer: .*; trainer=cpu trains without"):
        train(config(shards, tmp_path, "trainer=gpu"))


@pytest.mark.slow
def test_shards_are_curated_once_and_not_reused_for_another_curation(tmp_path):
    tiny = ["model=tiny", "debug=tiny", f"out={tmp_path}", "trainer.max_steps=1"]
    train(compose("train", tiny))
    before = (tmp_path / "shards" / "train" / "manifest.json").stat().st_mtime_ns
    train(compose("train", [*tiny, "ckpt=last"]))
    assert (tmp_path / "shards" / "train" / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="other overrides"):
        other = "curate=['source=synthetic','source.synthetic.posts=130']"
        train(compose("train", [*tiny, "ckpt=last", other]))


def test_processes_that_start_together_do_not_curate(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="run `pathclip curate source=synthetic"):
        train(compose("train", ["model=tiny", "debug=tiny", f"out={tmp_path}"]))


def test_the_metrics_of_a_run_are_those_of_its_continuations_only(tmp_path):
    for number, steps in enumerate([range(0, 6), range(0, 4), range(3, 5)]):
        folder = tmp_path / "logs" / str(number)
        folder.mkdir(parents=True)
        rows = "".join(f"{step},{number}\n" for step in steps)
        (folder / "metrics.csv").write_text(f"step,train/loss\n{rows}")
    found = [(row["step"], row["train/loss"]) for row in read_metrics(tmp_path)]
    assert found == [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2)]


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
        ("save_untrained=no", "save_untrained: expected bool"),
        ("seed=-1", "seed: expected int of at least 0"),
        ("micro_batch=0", "micro_batch: expected int"),
        ("layer_decay=1.5", "layer_decay"),
        ("teacher=nowhere", "teacher: nowhere"),
        ("schedule.warmup=-1", "schedule.warmup=-1: 0 is the least"),
        ("loss=coca", "loss=coca: ViT-B-32 has no decoder"),
        ("callbacks.early_stopping.monitor=val/los", "monitor=val/los: no figure .* Did you mean val/loss"),
        ("+trainer.sync_batchnorm=true", "trainer.sync_batchnorm: BatchNorm sees"),
        ("data.val=${data.train}", "the same pairs as data.train"),
    ],
)
def test_a_mistake_gets_one_clear_line(shards, tmp_path, override, message):
    with pytest.raises((ConfigError, DataError), match=message):
        train(config(shards, tmp_path, override))
