import signal
import subprocess
import sys

import pytest

from pathclip import launch
from pathclip.errors import ConfigError
from tests import tiny_shards


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


def test_a_misspelt_group_gets_the_group():
    with pytest.raises(ConfigError, match=r"Did you mean .*experiment"):
        launch.compose("train", ["experimnt=demo"])


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_an_interrupted_training_says_that_it_stopped_and_how_to_go_on(tmp_path):
    tiny_shards.write(tmp_path / "train", n=80)
    command = [
        *(sys.executable, "-m", "pathclip.train", "model=tiny", f"data.train={tmp_path / 'train'}"),
        *(f"out={tmp_path / 'run'}", "data.batch_size=8", "trainer.max_epochs=500"),
        "callbacks.checkpoints.every_n_steps=5",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("epoch 2 of 500: train/loss "):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert rest.splitlines()[-2:] == [
        f"ckpt=last out={tmp_path / 'run'} goes on from the last checkpoint",
        "pathclip train: stopped",
    ]
