"""The README says what the card holds, and names what it does not hold."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from pathclip.export.gate.gate import Gate, Line
from pathclip.export.reporting.card import NOT_RECORDED, readme
from tests.evaluate.reporting.test_report import figures

BARE = {
    "name": "lite",
    "preprocess": {"size": 160},
    "context_length": 64,
    "embed_dim": 256,
    "logit_scale": 13.2,
}
FULL = {
    **BARE,
    "licence": "CC0",
    "starting_weights": "tf_efficientnet_lite0",
    "training": {
        "shards": ["/home/somebody/shards/train", "more"],
        "factors": [1.0, 2.0],
        "data_hash": ["a" * 64, None],
        "val_hash": "b" * 64,
        "pairs": 3093,
        "epochs": 8,
        "steps": 384,
        "seed": 5,
        "pictures": {"different": 3000},
    },
    "calibration": {"t": {"int8": {"n": 5}, "fp32": {"n": 5}}},
    "scores": [asdict(one) for one in figures("t", ["leak"])],
    "export": {"from": "c" * 64},
}
PASSED = Gate((Line("image cosine, mean", 0.99, 0.97, True, 100),), {"cpu": "a CPU", "recipes": {}})
SECTIONS = (
    *("Intended use", "Data", "Training", "Evaluation", "int8 against fp32", "Limits", "Versions"),
    "To reproduce",
)


@pytest.mark.parametrize("card", [BARE, FULL])
def test_every_section_stands_there_whatever_the_card_holds(card):
    text = readme(card, PASSED)
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == list(SECTIONS)
    assert "None" not in text and "not for diagnosis" in text and "Not for: diagnosis" in text


def test_the_command_of_the_export_is_whole_but_for_paths():
    words = ["search=full", "calibration.shards=[/home/somebody/shards/train,more]", "recipe=naive"]
    text = readme({**BARE, "export": {"overrides": words}}, PASSED)
    assert "out=… search=full 'calibration.shards=[path/to/train,more]' recipe=naive\n" in text
    assert "/home" not in text


def test_what_the_card_does_not_hold_is_called_so():
    text = readme(BARE, PASSED)
    for item in (
        "Pairs trained on",
        "Starting weights",
        "Scores",
        "Calibration",
        "Consent and ethics",
        "Curation",
    ):
        line = next(line for line in text.splitlines() if item in line)
        assert NOT_RECORDED in line, item


def test_data_and_training_are_named_by_hash_and_number_and_no_path_of_a_machine():
    text = readme(FULL, PASSED)
    assert "| train | 1.0 | `aaaaaaaaaaaaaaaa` |" in text and f"| more | 2.0 | {NOT_RECORDED} |" in text
    assert "/home" not in text
    for said in (
        "3093 pairs, 8 epochs, 384 steps; seed 5",
        "3000 different pictures",
        "`bbbbbbbbbbbbbbbb`",
        "seed=5",
    ):
        assert said in text
    assert "fitted on t (int8, fp32)" in text and "from the model `cccccccccccccccc`" in text


def test_recorded_scores_show_headlines_beside_twin_and_baselines_with_their_marks():
    text = readme(FULL, PASSED)
    row = next(line for line in text.splitlines() if line.startswith("| t | balanced accuracy"))
    for said in ("0.900 [0.800, 1.000] (leak)", "0.600 [0.500, 0.700]", "0.850", "0.500", "-0.010"):
        assert said in row
    assert "| accuracy" not in text and "Marked 'leak': t." in text
    assert "pathclip evaluate model=this-folder task=t" in text


def test_a_score_without_context_or_number_is_shown_all_the_same():
    old = {**BARE, "scores": [{"name": "accuracy", "value": None, "low": 0.1, "high": 0.2, "n": 3}]}
    assert "| accuracy | nan | 0.100–0.200 | 3 |" in readme(old, PASSED)


def test_a_failed_gate_stands_at_the_top():
    failed = Gate((Line("image cosine, mean", 0.5, 0.97, False, 100),), {"cpu": "a CPU"})
    text = readme(FULL, failed)
    assert "failed its export gate" in text.split("## Intended use")[0]
    assert "| image cosine, mean | 0.5000 |  | 0.97 | 100 | FAILED |" in text and "failed" not in readme(
        FULL, PASSED
    )


def test_where_the_pairs_of_the_gate_come_from_stands_below_them():
    gate = Gate(PASSED.lines, {"held_out": {"source": "validation shards"}})
    assert "with held-out pairs of the validation shards; " in readme(BARE, gate)
    assert "with held-out pairs; " in readme(BARE, PASSED)


def test_a_score_without_interval_has_a_dash():
    old = {**BARE, "scores": [{"name": "accuracy", "value": 0.9, "low": None, "high": None, "n": 3}]}
    assert "| accuracy | 0.900 | – | 3 |" in readme(old, PASSED)


def test_an_interval_stands_beside_its_figure():
    line = Line("image cosine, mean", 0.99, 0.97, True, 100, "", 0.985, 0.994)
    rows = readme(BARE, Gate((line,), {})).splitlines()
    assert "| image cosine, mean | 0.9900 | 0.9850–0.9940 | 0.97 | 100 | passed |" in rows
