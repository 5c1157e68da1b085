"""The whole chain with `debug=tiny`, by its commands."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pathclip.model_folder import open_model_folder


def pathclip(*arguments, status=0):
    run = subprocess.run(
        [sys.executable, "-m", "pathclip", *map(str, arguments)], capture_output=True, text=True, timeout=250
    )
    assert run.returncode == status, run.stderr
    return run


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Folders of a run through curate, train and export."""
    out = tmp_path_factory.mktemp("chain")
    pathclip("train", "model=tiny", "debug=tiny", f"out={out / 'run'}")
    # Random towers are far from what the gate asks; the folder that it lets through is not the point here.
    pathclip(
        *("export", f"model={out / 'run' / 'model'}", f"out={out / 'int8'}", "debug=tiny", "force=true"),
        *("calibration.samples=16", "calibration.selection=16", "calibration.held_out=16", "search=false"),
    )
    return out


def test_a_run_without_any_data_curates_a_synthetic_feed_first(chain):
    assert (chain / "run" / "shards" / "funnel.json").is_file()
    assert open_model_folder(chain / "run" / "model").card["training"]["steps"] == 4


def test_the_exported_folder_is_whole_and_evaluates(chain):
    open_model_folder(chain / "int8")
    pathclip(
        *(
            "evaluate",
            f"model={chain / 'int8'}",
            "task=synthetic",
            "debug=tiny",
            f"out={chain / 'evaluation'}",
        ),
        f"tasks.synthetic.dataset.test={chain / 'run' / 'shards' / 'train'}",
        *("tasks.synthetic.without_example=leave_out", "bootstrap.resamples=200"),
    )
    report = json.loads((chain / "evaluation" / "report.json").read_text())
    variants = {score["context"]["variant"] for score in report["scores"]}
    assert variants == {"plain", "randomised_colour"}
    assert (chain / "evaluation" / "report.html").is_file()


def test_classify_index_and_search_work_on_the_exported_folder(chain):
    images = chain / "run" / "shards" / "feed" / "images"
    picture = min(images.glob("*.jpg"))
    answer = json.loads(
        pathclip("classify", chain / "int8", picture, "--labels", "keratin,fat", "--json").stdout
    )
    (classified,) = answer["images"]
    assert classified["path"] == str(picture) and not answer["failed"]
    assert {label["name"] for label in classified["labels"]} == {"keratin", "fat"}
    assert sum(label["probability"] for label in classified["labels"]) == pytest.approx(1, abs=1e-6)
    pathclip("index", chain / "int8", images, "--out", chain / "images.index")
    found = json.loads(
        pathclip("search", chain / "images.index", "keratin pearls", "-k", "3", "--json").stdout
    )
    assert found["query"] == {"text": "keratin pearls"}
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3]
    assert len({hit["path"] for hit in found["hits"]}) == 3
    assert all((images / hit["path"]).is_file() for hit in found["hits"])
    scores = [hit["score"] for hit in found["hits"]]
    assert scores == sorted(scores, reverse=True) and -1 <= scores[-1] <= scores[0] <= 1


def test_a_typing_mistake_is_one_line_and_a_failure(chain):
    for arguments in (
        ("train", "optm.lr=1"),
        ("train", "experiment=demoo"),
        ("evaluate", f"model={chain / 'nowhere'}", "task=shards", f"tasks.shards.dataset.folder={chain}"),
        ("evaluate", f"model={chain / 'int8'}", "task=synthetic"),
        ("evaluate", f"model={chain / 'int8'}", "task=synthetik"),
        ("export", f"model={chain}"),
        ("curate", "source=twitter", "source.posts=nowhere.jsonl"),
        ("classify", chain / "int8", "nowhere.jpg", "--labels", "a,b"),
        ("clasify", chain / "int8"),
    ):
        message = pathclip(*arguments, status=2 if arguments[0] == "clasify" else 1).stderr.strip()
        assert "Traceback" not in message and "\n" not in message, message
