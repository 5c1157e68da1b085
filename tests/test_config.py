from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Sequence
from typing import Literal

import pytest
from omegaconf import OmegaConf

from pathclip import config
from pathclip.config import build, check_values, config_dir, data_dir, nearest, output_folder
from pathclip.errors import ConfigError


class Optimiser:
    """Stands for any class that a config names."""

    def __init__(
        self,
        lr: float,
        steps: int = 10,
        name: Literal["adam", "sgd"] = "adam",
        betas: Sequence[float] = (0.9, 0.99),
        decay: float | None = None,
        inner: Optimiser | None = None,
        nesterov: bool = False,
    ) -> None:
        if lr < 0:
            raise ValueError("lr must not be negative")
        self.lr, self.steps, self.betas, self.inner = lr, steps, betas, inner


@pytest.fixture(autouse=True)
def allow_this_module(monkeypatch):
    monkeypatch.setattr(config, "ALLOWED_TARGETS", (*config.ALLOWED_TARGETS, f"{__name__}."))


def node(**arguments):
    return {"_target_": f"{__name__}.Optimiser", "lr": 0.1, **arguments}


def test_a_node_becomes_its_object_and_inner_nodes_theirs():
    built = build(node(inner=node(steps=3)), "optim")
    assert isinstance(built, Optimiser)
    assert (built.lr, built.inner.steps) == (0.1, 3)


def test_plain_values_stay_plain_and_nodes_in_lists_are_built():
    built = build({"a": 1, "b": [node(), "x"]})
    assert built["a"] == 1
    assert isinstance(built["b"][0], Optimiser)
    assert built["b"][1] == "x"


def test_code_may_give_arguments_that_the_config_cannot_hold():
    assert build({"_target_": f"{__name__}.Optimiser"}, "optim", lr=0.5).lr == 0.5


def test_partial_leaves_missing_arguments_to_the_caller():
    partial = build({"_target_": f"{__name__}.Optimiser", "_partial_": True, "steps": 4}, "optim")
    assert isinstance(partial, functools.partial)
    assert partial(lr=0.2).steps == 4


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.run",
        "pathclipx.evil",
        "torch.load",
        "torch.optimx.Adam",
        "torch.hub.load",
        "",
    ],
)
def test_a_target_outside_the_allowed_packages_is_refused(target):
    with pytest.raises(ConfigError, match=r"optim\._target_: .*is refused; targets must begin with"):
        build({"_target_": target}, "optim")


@pytest.mark.parametrize(
    "target",
    [
        "pathclip.atomic.os.system",
        "pathclip.atomic.shutil.rmtree",
        "pathclip.config.importlib.import_module",
        "pathclip.launch.sys.exit",
    ],
)
def test_what_an_allowed_module_merely_imports_is_refused(target):
    with pytest.raises(ConfigError, match="_target_"):
        build({"_target_": target}, "source")


def test_a_target_that_does_not_exist_is_named():
    with pytest.raises(ConfigError, match=r"optim\._target_: there is no 'pathclip\.config\.Adam'"):
        build({"_target_": "pathclip.config.Adam"}, "optim")


def test_an_unknown_key_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"optim\.step: unknown key\. Did you mean steps"):
        build(node(step=3), "optim")


def test_a_missing_value_is_named():
    with pytest.raises(ConfigError, match=r"optim\.lr: a value is needed"):
        build({"_target_": f"{__name__}.Optimiser"}, "optim")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("lr", "fast", "float"),
        ("lr", True, "float"),
        ("lr", None, "float"),
        ("steps", 1.5, "int"),
        ("steps", True, "int"),
        ("name", "lion", "Literal"),
        ("betas", 0.9, "Sequence"),
        ("betas", "0.9,0.99", "Sequence"),
        ("nesterov", "yes", "bool"),
        ("decay", "none", "float"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_the_right_one(key, value, expected):
    with pytest.raises(ConfigError, match=rf"optim\.{key}: expected .*{expected}.*, got "):
        build(node(**{key: value}), "optim")


def test_a_whole_number_is_a_float_and_null_fits_an_optional():
    assert build(node(lr=1, decay=None), "optim").lr == 1


def test_a_value_that_the_constructor_refuses_keeps_its_reason():
    with pytest.raises(ConfigError, match="optim: lr must not be negative"):
        build(node(lr=-1.0), "optim")


def test_a_key_deep_in_a_list_is_named_by_its_path():
    with pytest.raises(ConfigError, match=r"callbacks\[1\]\.inner\.steps: expected int"):
        build([node(), node(inner=node(steps="x"))], "callbacks")


VALUES = {"force": False, "seed": 0, "limit": None, "classes": ["a"], "inner": {"samples": 8}}
EXPECTED = {
    "force": bool,
    "seed": int,
    "limit": int | None,
    "classes": list[str] | None,
    "inner.samples": int,
}


@pytest.mark.parametrize("kind", [dict, OmegaConf.create])
def test_values_of_the_expected_types_pass(kind):
    check_values(kind(VALUES), EXPECTED, at_least={"seed": 0, "limit": 1, "inner.samples": 8})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"force": "no"}, r"force: expected bool \(true or false\), got 'no'"),
        ({"force": 0}, "force: expected bool .*, got 0"),
        ({"seed": "abc"}, "seed: expected int of at least 0, got 'abc'"),
        ({"seed": -1}, "seed: expected int of at least 0, got -1"),
        ({"seed": True}, "seed: expected int of at least 0, got True"),
        ({"seed": None}, "seed: expected int of at least 0, got None"),
        ({"limit": 0}, "limit: expected int or null of at least 1, got 0"),
        ({"limit": "abc"}, "limit: expected .*, got 'abc'"),
        ({"classes": "abc"}, r"classes: expected list\[str\] or null, got 'abc'"),
        ({"inner": {"samples": 7.5}}, r"inner\.samples: expected int of at least 8, got 7\.5"),
        ({"inner": {}}, r"inner\.samples: a value is needed"),
        ({"inner": 3}, r"inner\.samples: a value is needed"),
    ],
)
@pytest.mark.parametrize("kind", [dict, OmegaConf.create])
def test_a_plain_value_of_the_wrong_type_or_too_small_is_named(kind, change, message):
    with pytest.raises(ConfigError, match=message):
        check_values(
            kind({**VALUES, **change}), EXPECTED, at_least={"seed": 0, "limit": 1, "inner.samples": 8}
        )


@pytest.mark.parametrize("named", ["new", "there", "there/new"])
def test_an_output_folder_may_be_there_or_not(tmp_path, named):
    (tmp_path / "there").mkdir()
    assert output_folder({"out": str(tmp_path / named)}) == tmp_path / named


@pytest.mark.parametrize("named", ["report.html", "report.html/inner"])
def test_a_file_where_an_output_folder_should_be_is_named(tmp_path, named):
    (tmp_path / "report.html").write_text("")
    with pytest.raises(ConfigError, match=r"^out: .*report\.html is a file, not a folder; name another$"):
        output_folder({"out": str(tmp_path / named)})


def test_an_output_folder_that_is_not_named_is_asked_for():
    for value in (None, " "):
        with pytest.raises(ConfigError, match="out: name a folder"):
            output_folder({"out": value})


def test_nearest_hints_at_what_was_meant_or_lists_the_little_there_is():
    assert nearest("los", ["loss", "optim"]) == " Did you mean loss?"
    assert nearest("zzz", ["loss", "optim"]) == " Known: loss, optim."
    assert nearest("zzz", [str(i) for i in range(30)]) == ""


def test_a_checkout_uses_its_own_configs():
    checkout = config._PACKAGE.parent
    assert (config_dir(), data_dir()) == (checkout / "conf", checkout / "data")


def test_building_needs_neither_hydra_nor_torch():
    code = (
        "import sys; from pathclip.config import build; build({'a': 1});"
        "sys.exit(any(m in sys.modules for m in ('hydra', 'omegaconf', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_message_names_no_type_that_a_config_cannot_hold():
    with pytest.raises(ConfigError, match=r"^optim\.lr: expected float, got 'abc'$"):
        build({"_target_": "torch.optim.AdamW", "_partial_": True, "lr": "abc"}, "optim")
