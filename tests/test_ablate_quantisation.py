"""The script that says what each ingredient of a recipe is worth: on pairs of its own."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

from pathclip.errors import ConfigError, DataError
from pathclip.export.calibration.samples import Samples
from pathclip.runtime.preprocess import Preprocess
from tests import tiny_shards

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "ablate_quantisation.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("ablate_quantisation", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pairs(groups):
    n = len(groups)
    preprocess = Preprocess(size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    tokens = np.arange(n, dtype=np.int64)[:, None]
    return Samples(np.zeros((n, 8, 8, 3), np.uint8), tokens, ("",) * n, preprocess, tuple(groups))


@pytest.mark.parametrize("kind", ["the folder", "a copy"])
def test_it_does_not_judge_on_the_pairs_that_it_calibrates_on(script, tmp_path, kind):
    train, val = tmp_path / "train", tmp_path / "train" / ".." / "train"
    tiny_shards.write(train)
    if kind == "a copy":
        val = shutil.copytree(train, tmp_path / "copy")
    with pytest.raises(ConfigError, match="the same pairs as --train"):
        script.refuse_same(train, val)


def test_held_out_pairs_of_a_group_that_was_calibrated_on_are_left_out(script):
    held_out = pairs([f"group {number}" for number in range(12)])
    kept = script.of_other_groups(held_out, pairs(["group 3", "group 7", "elsewhere"]))
    assert set(held_out.groups) - set(kept.groups) == {"group 3", "group 7"}
    with pytest.raises(DataError, match="0 of 12 pairs"):
        script.of_other_groups(held_out, held_out)
