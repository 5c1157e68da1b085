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


def test_what_a_strangers_name_tells_the_terminal_is_shown_not_obeyed(tmp_path):
    missing = f"{tmp_path}/a\x1b[31mb"
    command = [sys.executable, "-m", "pathclip.export", f'model="{missing}"', f"out={tmp_path / 'out'}"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1 and "a\\x1b[31mb" in run.stderr and "\x1b" not in run.stderr
    taken = tmp_path / "c\x1bd"
    taken.touch()
    command[2:] = ["pathclip.train", "data.train=shards", f'out="{taken}"']
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1 and "c\\x1bd" in run.stderr and "\x1b" not in run.stderr


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


def test_an_output_folder_whose_log_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "run" / "launch.log").mkdir(parents=True)
    command = [sys.executable, "-m", "pathclip.evaluate", f"out={tmp_path / 'run'}", "task=lc25000"]
    run = subprocess.run([*command, f"model={tmp_path}"], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith(f"pathclip evaluate: {tmp_path / 'run'}") and run.stderr.count("\n") == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="nobody can make a folder in /proc")
def test_an_output_folder_that_nobody_can_make_is_one_line(tmp_path):
    command = [sys.executable, "-m", "pathclip.evaluate", "out=/proc/nowrite", "task=lc25000"]
    run = subprocess.run([*command, f"model={tmp_path}"], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith("pathclip evaluate: /proc/nowrite: cannot be written to (")
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("task", "typed", "written"),
    [
        ("folders", "tasks.folders.dataset.group=^[^_]+", "tasks.folders.dataset.group='^[^_]+'"),
        (
            *("lc25000", "tasks.lc25000.classes.lung adenocarcinoma=[]"),
            "tasks.lc25000.classes={lung adenocarcinoma: []}",
        ),
        (
            *("oral_oscc", "tasks.oral_oscc.classes={normal oral epithelium: [a], gastric cancer: [b]}"),
            "+tasks.oral_oscc.classes={gastric cancer: …}",
        ),
        ("oral_oscc", "tasks.oral_oscc.classes.gastric=[b]", "+tasks.oral_oscc.classes.gastric=…"),
    ],
)
def test_what_hydra_does_not_take_is_told_in_the_form_that_it_takes(task, typed, written):
    with pytest.raises(ConfigError) as caught:
        launch.compose("evaluate", [f"task={task}", typed])
    assert written in str(caught.value) and "\n" not in str(caught.value)
    launch.compose("evaluate", [f"task={task}", written.replace("…", "[a]")])


def test_a_sweep_is_told_the_form_that_hydra_takes_too():
    with pytest.raises(ConfigError, match=r"inner quotes .*\"tasks\.folders\.dataset\.group='\^a'\""):
        launch._check("evaluate", ["-m", "task=folders", "tasks.folders.dataset.group=^a"])


def test_a_group_without_a_name_gets_the_names_that_there_are():
    with pytest.raises(ConfigError, match=r"measure=: name at least one\. Known: calibration, few_shot"):
        launch.compose("evaluate", ["measure="])


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
