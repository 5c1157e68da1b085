"""`pathclip evaluate` from the config to the files, on a model of a few kilobytes."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from pathclip.errors import ConfigError, DataError, ModelFolderError
from pathclip.evaluate.__main__ import task_list
from pathclip.evaluate.evaluate import _cache_folder, code_version, evaluate
from pathclip.evaluate.outputs import record
from pathclip.evaluate.reporting.terminal import print_scores
from pathclip.evaluate.subjects import load_subjects
from pathclip.evaluate.task import TaskResult
from pathclip.launch import compose
from pathclip.model_folder import open_model_folder
from pathclip.types import Score
from tests import tiny_shards
from tests.tiny_model import ONNX_FILES, write_tiny_model

BOTH = (*ONNX_FILES, "onnx/image_fp32.onnx", "onnx/text_fp32.onnx")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "both", BOTH)


@pytest.fixture
def run(model, squares, tmp_path):
    def evaluate_with(*overrides):
        tiny_shards.write(tmp_path / "shards", n=12)
        return evaluate(
            compose(
                "evaluate",
                [
                    f"model={model}",
                    "task=[patches_csv,shards]",
                    f"tasks.patches_csv.dataset.csv={squares}",
                    "tasks.patches_csv.dataset.group=group",
                    "tasks.patches_csv.dataset.split=split",
                    f"tasks.shards.dataset.folder={tmp_path / 'shards'}",
                    f"out={tmp_path / 'report'}",
                    "bootstrap.resamples=100",
                    *overrides,
                ],
            )
        )

    return evaluate_with


def test_one_run_measures_every_task_precision_and_variant_and_writes_both_reports(run, model, capsys):
    result = run()
    content = json.loads(result.json.read_text())
    assert set(content["tasks"]) == {"patches_csv", "shards"}
    assert [one["precision"] for one in content["models"]] == ["int8", "fp32"]
    assert content["models"][0]["model_hash"] == open_model_folder(model).hash
    found = {
        (score["context"].get("precision"), score["context"]["variant"])
        for score in content["scores"]
        if score["name"] == "balanced_accuracy" and score["context"]["method"] == "zero_shot"
    }
    assert found == {(p, v) for p in ("int8", "fp32") for v in ("plain", "randomised_colour")}
    page = result.html.read_text()
    assert "patches_csv: confusion matrix" in page and "shards: retrieved pictures" in page
    printed = capsys.readouterr().out
    assert "balanced accuracy" in printed and f"report: {result.html}" in printed


def test_a_long_name_stands_above_the_table_once_and_not_folded_into_its_rows(capsys):
    name = "vit_large_patch14_reg4_dinov2+a-text-tower-with-a-long-name-of-its-own-by-somebody"
    context = {"task": "t", "variant": "plain", "role": "model", "model": name, "runtime": "onnx"}
    print_scores(
        [
            Score(
                "balanced_accuracy", 0.9, 10, 0.8, 1.0, {**context, "precision": one, "by": f"{name} ({one})"}
            )
            for one in ("int8", "fp32")
        ]
    )
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == f"model: {name}"
    assert re.split(r" {2,}", lines[2]) == [
        *("t", "balanced accuracy", "model int8 (onnx)", "0.900 [0.800, 1.000]", "10")
    ]
    assert len(lines) == 4 and max(map(len, lines[1:])) < 80


def test_the_same_run_gives_the_same_report(run):
    first = run().json.read_bytes()
    assert run().json.read_bytes() == first


def test_a_limit_shortens_every_task_and_is_told(run, capsys):
    result = run("limit=8")
    assert max(score.n for score in result.scores) == 8
    assert "8 pictures of each split at most" in result.html.read_text()
    assert "limit=8: a trial" in capsys.readouterr().out
    assert {score.n for score in result.scores if score.name == "balanced_accuracy"} == {8}


def test_a_fault_in_a_later_task_keeps_what_earlier_ones_gave(run, tmp_path, capsys):
    with pytest.raises(ConfigError, match="definitions"):
        run("tasks.shards.definitions=[any]")
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert set(content["tasks"]) == {"patches_csv"} and content["scores"]
    assert "report.html holds what was finished: patches_csv" in capsys.readouterr().err


def test_recording_puts_the_scores_into_the_card_and_leaves_the_hash(run, tmp_path):
    own = write_tiny_model(tmp_path / "own")
    before = open_model_folder(own).hash
    result = run(f"model={own}", "record=true")
    folder = open_model_folder(own)
    assert len(folder.card["scores"]) == len(result.scores)
    assert folder.hash == before


def test_recording_keeps_what_other_tasks_and_precisions_gave(tmp_path):
    context = {"task": "other", "variant": "plain"}
    own = write_tiny_model(
        tmp_path / "own",
        scores=[{"name": "accuracy", "context": context}, {"name": "old", "context": {"task": "t"}}],
        calibration={"other": {"int8": {"n": 1}}, "t": {"fp32": {"n": 2}, "int8": {"n": 3}}},
    )
    new = Score("accuracy", 0.9, 10, 0.8, 1.0, {"task": "t"})
    record(str(own), [new], {"t": TaskResult((new,), (), (), {}, fitted={"int8": {"n": 4}})})
    card = open_model_folder(own).card
    assert [one["name"] for one in card["scores"]] == ["accuracy", "accuracy"]
    assert card["calibration"] == {"other": {"int8": {"n": 1}}, "t": {"fp32": {"n": 2}, "int8": {"n": 4}}}


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["model_folder=null"], ConfigError, "model: name a model folder"),
        (["model=/no/such/folder"], ModelFolderError, "no such folder"),
        (["precision=int4"], ConfigError, "precision: 'int4' is none of all, int8, fp32"),
        (["bootstrap.resamples=0"], ConfigError, "bootstrap.resamples"),
        (["limit=0"], ConfigError, "limit: expected"),
        (["limit=abc"], ConfigError, "limit: expected .* got 'abc'"),
        (["seed=abc"], ConfigError, "^seed: expected int of at least 0, got 'abc'"),
        (["seed=-1"], ConfigError, "^seed: expected int of at least 0, got -1"),
        (["batch_size=1.5"], ConfigError, "^batch_size: expected int of at least 1, got 1.5"),
        (["record=true", "limit=8"], ConfigError, "^record: figures of limit=8 are not kept"),
        (["record=no"], ConfigError, r"^record: expected bool \(true or false\), got 'no'"),
        (["tasks.patches_csv.templates=[tissue]"], DataError, "'tissue' has no {}"),
        (["tasks.patches_csv.variants=[grey]"], ConfigError, "variants: 'grey' is none of plain"),
        (["tasks.shards.definitions=[any]"], ConfigError, "definitions: 'any' is none of"),
        (["tasks.patches_csv.dataset.image=picture"], DataError, "there is no column 'picture'"),
    ],
)
def test_a_wrong_value_gets_one_clear_line(overrides, error, message, run):
    with pytest.raises(error, match=message) as caught:
        run(*overrides)
    assert "\n" not in str(caught.value)


def test_a_file_where_the_report_should_go_is_named(run, tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ConfigError, match=r"^out: .*notes\.txt is a file"):
        run(f"out={tmp_path / 'notes.txt'}")


def test_without_a_task_the_known_ones_are_listed(model):
    with pytest.raises(ConfigError, match=r"Known: atlas, bach, .* lc25000, .* oral_oscc"):
        evaluate(compose("evaluate", [f"model={model}"]))


def test_several_tasks_with_a_comma_are_one_run_unless_a_sweep_is_asked_for():
    assert task_list(["task=a,b", "out=x"]) == ["task=[a,b]", "out=x"]
    assert task_list(["task=a"]) == ["task=a"]
    assert task_list(["-m", "task=a,b"]) == ["-m", "task=a,b"]


def test_the_command_ends_with_the_path_of_the_report(model, tmp_path):
    tiny_shards.write(tmp_path / "shards", n=6)
    words = [
        f"model={model}",
        "task=shards",
        f"tasks.shards.dataset.folder={tmp_path / 'shards'}",
        "bootstrap.resamples=10",
        f"out={tmp_path / 'report'}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pathclip.evaluate", *words], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"report: {tmp_path / 'report' / 'report.html'}"


def test_a_folder_with_int8_alone_gives_int8_alone(tmp_path):
    subjects = load_subjects(str(write_tiny_model(tmp_path / "m")))
    assert [one.key for one in subjects] == ["model int8"]


def test_the_untrained_model_is_measured_in_fp32_where_it_has_that(model, tmp_path):
    subjects = load_subjects(str(model), precision="int8", untrained=str(model))
    assert [one.key for one in subjects] == ["model int8", "untrained fp32"]


def test_the_code_version_names_the_release():
    from pathclip import __version__

    assert code_version().startswith(f"{__version__}+")


def test_features_are_kept_where_the_user_keeps_things_or_nowhere(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PATHCLIP_CACHE", "")
    assert _cache_folder("auto") is None and _cache_folder(None) is None and _cache_folder("here") == "here"
    monkeypatch.setenv("PATHCLIP_CACHE", str(tmp_path / "kept"))
    run()
    assert any((tmp_path / "kept" / "features").iterdir())
