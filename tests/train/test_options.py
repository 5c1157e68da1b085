"""Each key of a training changes what it should, and nothing else."""

import pytest
import torch
from safetensors.torch import load_file

from pathclip.train import task
from pathclip.train.run_folder import read_metrics
from pathclip.train.train import train

from .tiny_run import config


def run(shards, out, *overrides):
    """Losses by step and the weights of a short run."""
    result = train(config(shards, out, "trainer.max_steps=4", "schedule=constant", *overrides))
    losses = [row["train/loss"] for row in read_metrics(result.out) if "train/loss" in row]
    return losses, load_file(result.model / "open_clip_model.safetensors")


@pytest.fixture(scope="module")
def plain(shards, tmp_path_factory):
    return run(shards, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    "override",
    [
        "micro_batch=3",
        "grad_checkpointing=true",
        "channels_last=false",
        pytest.param("compile=true", marks=pytest.mark.slow),
    ],
)
def test_what_saves_memory_or_time_leaves_the_training_as_it_was(shards, plain, tmp_path, override):
    losses, weights = run(shards, tmp_path, override)
    assert losses == pytest.approx(plain[0], abs=1e-5)
    for name, value in plain[1].items():
        torch.testing.assert_close(weights[name], value, atol=1e-4, rtol=0, msg=name)


def test_bf16_is_near_the_training_in_fp32_but_not_the_same(shards, plain, tmp_path):
    losses, _ = run(shards, tmp_path, "trainer.precision=bf16-mixed")
    assert losses != plain[0] and losses == pytest.approx(plain[0], abs=0.1)


def test_the_text_tower_gets_no_columns_that_are_padding_alone(shards, plain, tmp_path, monkeypatch):
    """The captions of these shards have at most 9 tokens, the tiny model reads 32, and a rehearsal does."""
    encode, widths = task.encode_text, []

    def watched(model, tokens):
        widths.append(tokens.shape[1])
        return encode(model, tokens)

    monkeypatch.setattr(task, "encode_text", watched)
    run(shards, tmp_path / "cut")
    assert {32, 16} == set(widths) and widths.count(16) >= 4
    monkeypatch.setattr(task, "without_padding", lambda tokens, _: tokens)
    losses, weights = run(shards, tmp_path / "whole")
    assert widths[-1] == 32 and losses == pytest.approx(plain[0], abs=1e-5)
    for name, value in plain[1].items():
        torch.testing.assert_close(weights[name], value, atol=1e-4, rtol=0, msg=name)


def test_a_fused_optimiser_takes_the_same_steps_under_bf16_too(shards, tmp_path):
    bf16 = "trainer.precision=bf16-mixed"
    plain, _ = run(shards, tmp_path / "plain", bf16, "trainer.gradient_clip_val=0.01")
    fused, _ = run(shards, tmp_path / "fused", bf16, "trainer.gradient_clip_val=0.01", "optim.fused=true")
    unclipped, _ = run(shards, tmp_path / "unclipped", bf16, "optim.fused=true", "optim.lr=0.01")
    assert fused == pytest.approx(plain, abs=1e-3) and fused[1:] != pytest.approx(unclipped[1:], abs=1e-3)


def test_a_step_is_no_longer_than_the_gradient_may_be(shards, tmp_path):
    """SGD, because AdamW's steps do not depend on the length of the gradient."""
    sgd = ["optim._target_=torch.optim.SGD", "~optim.betas", "~optim.eps", "optim.weight_decay=0"]
    lengths = []
    for limit in (1.0, 1e-3):
        out = tmp_path / str(limit)
        clip = [f"trainer.gradient_clip_val={limit}", "optim.lr=0.1", "schedule=constant"]
        one = ["trainer.max_steps=1", "save_untrained=true", "data.val=null"]
        train(config(shards, out, *sgd, *clip, *one))
        weights, before = (
            load_file(out / name / "open_clip_model.safetensors") for name in ("model", "untrained")
        )
        lengths.append(sum((weights[name] - before[name]).square().sum().item() for name in before) ** 0.5)
    assert lengths[1] == pytest.approx(0.1 * 1e-3, rel=0.05) and lengths[0] > 10 * lengths[1]


def test_layers_below_learn_more_slowly(shards, tmp_path):
    train(config(shards, tmp_path, "layer_decay=0.5", "trainer.max_steps=1", "schedule=constant"))
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    rates = {group["lr"] for group in state["optimizer_states"][0]["param_groups"]}
    assert max(rates) == 0.0005 and {0.00025, 0.000125} <= rates


def test_norms_and_biases_do_not_decay(shards, tmp_path):
    train(config(shards, tmp_path, "trainer.max_steps=1"))
    groups = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]
    assert {group["weight_decay"] for group in groups["param_groups"]} == {0.05, 0.0}


def test_patch_dropout_changes_training_but_not_what_is_saved_of_the_model(shards, plain, tmp_path):
    losses, weights = run(shards, tmp_path, "model.patch_dropout=0.5")
    assert losses[0] != plain[0][0] and weights.keys() == plain[1].keys()


def test_accumulated_batches_make_one_step_of_several(shards, tmp_path):
    result = train(
        config(shards, tmp_path, "trainer.accumulate_grad_batches=2", "trainer.max_epochs=2", "data.val=null")
    )
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 6 and result.out == tmp_path  # 5 batches an epoch: 2, 2 and 1


def test_a_label_of_the_validation_pairs_gives_a_zero_shot_figure(shards, tmp_path):
    result = train(config(shards, tmp_path, "trainer.max_epochs=1"))
    assert 0 <= result.metrics["val/zero_shot_balanced_accuracy"] <= 1
    assert {"val/text_to_image_recall@1", "val/image_to_text_recall@10"} <= result.metrics.keys()
