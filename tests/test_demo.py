import json

import pytest

from pathclip import cli
from pathclip.demo import _remove_run


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_second_demo_in_the_same_folder_is_about_its_own_feed_alone(tmp_path, capsys):
    out = tmp_path / "demo"
    for seed in (0, 1):
        assert cli.main(["demo", "--out", str(out), "--posts", "240", "--seed", str(seed)]) == 0
        printed = capsys.readouterr().out
        assert "search “lobules of mature fat”: " in printed
        assert printed.rstrip().endswith(f"report: {out / 'report.html'}")
    indexed = [json.loads(line)["path"] for line in (out / "tiles.index" / "entries.jsonl").open()]
    tested = json.loads((out / "shards" / "test" / "manifest.json").read_text())["samples"]
    assert len(indexed) == tested
    html = (out / "report.html").read_text(encoding="utf-8")
    for title in ("what falls out", "Training: loss", "confusion matrix", "Two tiles classified", "Search: "):
        assert title in html


@pytest.mark.parametrize(("trained_on", "goes"), [("demo/shards/train", True), ("mine/train", False)])
def test_only_the_training_of_a_demo_makes_room_for_the_next_one(tmp_path, trained_on, goes):
    training = tmp_path / "demo" / "training"
    training.mkdir(parents=True)
    record = {"config": {"data": {"train": str(tmp_path / trained_on)}}}
    (training / "run.json").write_text(json.dumps(record))
    _remove_run(training, tmp_path / "demo" / "shards")
    assert training.exists() is not goes
