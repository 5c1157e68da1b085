"""Every config composes, and what it describes can be built."""

from __future__ import annotations

import pytest

from pathclip.config import build, config_dir
from pathclip.errors import ConfigError
from pathclip.launch import compose

VERBS = ("curate", "train", "evaluate", "export")


def options(group):
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_composes_with_defaults_alone(verb):
    assert compose(verb).out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_the_tiny_debug_config(verb):
    assert compose(verb, ["debug=tiny"]).limit == 64


@pytest.mark.parametrize("model", options("model"))
def test_every_model_config_describes_something_that_can_be_built(model):
    # The constructors are called by the training tests; here only names, keys and types are checked.
    cfg = compose("train", [f"model={model}", *(["model.path=x"] if model == "folder" else [])])
    build({**cfg.model, "_partial_": True}, "model")


@pytest.mark.parametrize("loss", options("loss"))
def test_every_loss_builds(loss):
    build(compose("train", [f"loss={loss}"]).loss, "loss")


@pytest.mark.parametrize("group", ["optim", "schedule", "trainer", "logger", "callbacks", "data"])
def test_every_other_training_config_describes_something_that_can_be_built(group):
    for name in options(group):
        node = compose("train", [f"{group}={name}", "data.train=x", "out=x"])[group]
        leaves = [node] if "_target_" in node else list(node.values())
        for leaf in leaves:
            build({**leaf, "_partial_": True}, group)


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_composes_and_opens_with_its_command(experiment):
    cfg = compose("train", [f"experiment={experiment}"])
    assert cfg.curate and "experiment" not in cfg, "the experiment's keys must reach the whole config"
    first = (config_dir() / "experiment" / f"{experiment}.yaml").read_text().splitlines()[0]
    assert first.startswith(f"# pathclip train experiment={experiment}")


@pytest.mark.parametrize("source", options("source"))
def test_every_source_composes(source):
    assert compose("curate", [f"source={source}"]).source


@pytest.mark.parametrize("task", options("task"))
def test_every_task_composes_and_says_where_it_comes_from(task):
    described = compose("evaluate", [f"task={task}"]).tasks[task]
    assert described.licence and described.citation


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optm.lr=1"], r"'optm\.lr'.*optim\.lr"),
        (["lr=1"], r"optim\.lr"),
        (["loss=multipositive"], "multi_positive"),
        (["trainer.max_epoch=1"], "max_epochs"),
        (["data.batchsize=1"], "batch_size"),
        (["modle=lite"], "model"),
        (["model.nothing_like_it=1"], "no such key"),
    ],
)
def test_a_wrong_key_gets_one_line_with_the_nearest_valid_one(overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        compose("train", overrides)
    assert "\n" not in str(caught.value)
