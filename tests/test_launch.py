import subprocess
import sys

import pytest

from pathclip import launch
from pathclip.errors import ConfigError


@pytest.mark.parametrize(
    "sweep",
    [
        "optim.lr=1e-4,1e-5",
        "optim.lr=shuffle(1e-4,1e-5)",
        "seed=range(1,4)",
        "loss=glob(*)",
        "licence='a,b',c",
        "data.augment.scale=[0.5,1.0],[0.2,1.0]",
        "experiment=demo,atlas_trial",
    ],
)
def test_every_kind_of_sweep_is_let_through(sweep):
    launch._check("train", ["-m", "data.train=shards", sweep])


def test_a_wrong_key_in_a_sweep_is_told():
    with pytest.raises(ConfigError, match=r"Did you mean .*optim\.lr"):
        launch._check("train", ["-m", "data.train=shards", "optim.lrr=1,2"])


def test_a_wrong_first_choice_of_a_sweep_is_told():
    with pytest.raises(ConfigError, match="Did you mean clip"):
        launch._check("train", ["-m", "loss=clipp,multi_positive"])


def test_configs_of_ones_own_are_left_to_hydra(tmp_path):
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim" / "mine.yaml").write_text("_target_: torch.optim.SGD\n_partial_: true\nlr: 0.25\n")
    command = [sys.executable, "-m", "pathclip.train", "--config-dir", str(tmp_path), "--cfg", "job"]
    right = subprocess.run([*command, "optim=mine"], capture_output=True, text=True)
    assert "lr: 0.25" in right.stdout
    wrong = subprocess.run([*command, "optim=yours"], capture_output=True, text=True)
    assert wrong.returncode == 1 and "Traceback" not in wrong.stderr and "yours" in wrong.stderr


@pytest.mark.parametrize("verb", ["curate", "train", "evaluate", "export"])
def test_a_file_where_the_output_folder_should_be_is_one_line(tmp_path, verb):
    (tmp_path / "taken").touch()
    command = [sys.executable, "-m", f"pathclip.{verb}", f"out={tmp_path / 'taken'}"]
    given = {
        "curate": ["source=synthetic"],
        "train": ["data.train=shards"],
        "evaluate": [f"model={tmp_path}", "task=lc25000"],
        "export": [f"model={tmp_path}"],
    }
    run = subprocess.run([*command, *given[verb]], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith(f"pathclip {verb}: ") and run.stderr.count("\n") == 1
