import csv
import math
import subprocess
import sys
from pathlib import Path

import pytest

from pathclip.launch import SweepJob
from pathclip.train.sweep import report_sweep
from tests import tiny_shards


def sweep(folder, *overrides):
    tiny_shards.write(folder / "train", n=40)
    tiny_shards.write(folder / "val", n=16)
    command = [
        *(sys.executable, "-m", "pathclip.train", "-m", "model=tiny", f"data.train={folder / 'train'}"),
        *(f"data.val={folder / 'val'}", "data.batch_size=8", "data.workers=0", "trainer.max_epochs=1"),
        *(f"hydra.sweep.dir={folder / 'sweep'}", *overrides),
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    with (folder / "sweep" / "sweep.csv").open(newline="") as lines:
        return run, list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def learning_rates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    return folder / "sweep", *sweep(folder, "optim.lr=1e-9,1e-2,no")


def test_a_sweep_ends_with_a_table_of_its_jobs_the_best_first(learning_rates):
    _, run, rows = learning_rates
    losses = [float(row["val/loss"]) for row in rows[:2]]
    assert losses == sorted(losses) and losses[0] < losses[1]
    assert {(row["optim.lr"], row["folder"]) for row in rows[:2]} == {("1e-09", "0"), ("0.01", "1")}
    assert run.stdout.index("Sorted by val/loss") > run.stdout.rindex("model folder:")


def test_a_failed_job_is_a_row_with_its_message_and_the_status_says_so(learning_rates):
    _, run, rows = learning_rates
    assert run.returncode == 1
    assert rows[2]["optim.lr"] == "no" and "optim" in rows[2]["failed"] and not rows[2]["val/loss"]


def test_the_printed_table_lies_in_the_sweeps_folder(learning_rates):
    folder, run, _ = learning_rates
    assert (folder / "sweep.md").read_text() in run.stdout


def jobs(folder, *losses, config=None, name="val/loss", overrides=()):
    made = []
    for number, loss in enumerate(losses):
        logs = folder / str(number) / "logs" / "0"
        logs.mkdir(parents=True)
        (logs / "metrics.csv").write_text(f"step,{name}\n0,5.0\n1,{loss}\n")
        made.append(
            SweepJob(("model=tiny", f"seed={number}", *overrides), folder / str(number), config or {})
        )
    return made


def first_column(folder):
    with (folder / "sweep.csv").open(newline="") as lines:
        return [row["seed"] for row in csv.DictReader(lines)]


def test_a_loss_that_is_no_number_comes_last(tmp_path):
    report_sweep(tmp_path, jobs(tmp_path, math.nan, 2.0, 1.0))
    assert first_column(tmp_path) == ["2", "1", "0"]


def test_of_a_score_the_highest_comes_first(tmp_path):
    score = "val/text_to_image_recall@5"
    report_sweep(tmp_path, jobs(tmp_path, 0.2, 0.9, 0.5, name=score, config={"sweep_metric": score}))
    assert first_column(tmp_path) == ["1", "2", "0"]


def test_without_validation_the_training_loss_decides(tmp_path):
    report_sweep(tmp_path, jobs(tmp_path, 0.2, 0.1, name="train/loss"))
    assert first_column(tmp_path) == ["1", "0"]
    assert (tmp_path / "sweep.md").read_text().startswith("Sorted by train/loss.")


def test_overrides_that_all_jobs_share_take_no_column(tmp_path):
    report_sweep(tmp_path, jobs(tmp_path, 1.0, 2.0))
    assert (
        "| seed |" in (tmp_path / "sweep.md").read_text()
        and "tiny" not in (tmp_path / "sweep.md").read_text()
    )


def test_a_bar_in_an_override_does_not_break_the_table(tmp_path):
    one, two = jobs(tmp_path, 1.0, 2.0)
    report_sweep(
        tmp_path, [SweepJob(("licence=a|b",), one.folder, {}), SweepJob(("licence=c",), two.folder, {})]
    )
    assert "| a\\|b |" in (tmp_path / "sweep.md").read_text()


def test_only_the_first_of_several_processes_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    report_sweep(tmp_path, jobs(tmp_path, 1.0))
    assert not Path(tmp_path / "sweep.md").exists()


def test_folders_are_named_within_the_sweeps_own_wherever_it_was_started(tmp_path, monkeypatch):
    """Hydra gives the sweep's folder as it was asked for, and those of the jobs from the root."""
    monkeypatch.chdir(tmp_path)
    report_sweep(Path(), jobs(tmp_path, 1.0, 2.0))
    assert (tmp_path / "sweep.csv").read_text().splitlines()[1].endswith(",0")


def test_the_metric_that_decides_comes_first_and_ranks_in_their_order(tmp_path):
    (job,) = jobs(tmp_path, 1.0)
    names = ["val/recall@10", "val/recall@5", "train/loss", "val/loss"]
    (job.folder / "logs" / "0" / "metrics.csv").write_text(f"step,{','.join(names)}\n0,1,1,1,1\n")
    report_sweep(tmp_path, [job])
    header = (tmp_path / "sweep.csv").read_text().splitlines()[0]
    assert header == "val/loss,train/loss,val/recall@5,val/recall@10,folder"


@pytest.mark.slow
def test_out_names_the_folder_of_a_sweep(tmp_path):
    out = tmp_path / "here"
    tiny_shards.write(tmp_path / "train", n=16)
    command = [sys.executable, "-m", "pathclip.train", "-m", "model=tiny", "seed=1,2", f"out={out}"]
    command += [f"data.train={tmp_path / 'train'}", "data.batch_size=8", "data.workers=0"]
    subprocess.run([*command, "trainer.max_epochs=1"], check=True, cwd=tmp_path)
    assert (out / "sweep.md").is_file() and (out / "1" / "model").is_dir()
    assert not (tmp_path / "outputs").exists()
