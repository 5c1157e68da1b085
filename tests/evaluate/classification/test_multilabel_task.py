"""The multi-label task on squares whose colour mixes the classes they show; grey shows none."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
from sklearn.metrics import f1_score

from pathclip.errors import DataError
from pathclip.evaluate.classification.multilabel_task import MultiLabel
from pathclip.evaluate.comparison.compare import _recalls, mean_recall
from pathclip.evaluate.comparison.measurements import measurements
from pathclip.evaluate.datasets import MultiLabelData, MultiLabelImages
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Settings
from pathclip.train.training_pictures import from_hashes
from tests.evaluate.encoders import BrokenEncoder, ColourEncoder, ConstantEncoder
from tests.tiny_shards import COLOURS, jpeg

NAMES = ("red", "green", "blue")
CLASSES = {name: [name, f"{name} square"] for name in NAMES}
SETTINGS = Settings(resamples=100, code_version="test")
GOOD = Subject("model", ColourEncoder(), "abc")
POOR = Subject("model", ColourEncoder(noise=2.0, precision="int8"), "abc")
COLLAPSED = Subject("untrained", ConstantEncoder(), "def")


def pictures(n, kind, grouped=True, labels=None):
    """Every set of classes in turn, in groups of two."""
    sets = labels or [
        frozenset(name for bit, name in enumerate(NAMES) if (number // 2) >> bit & 1) for number in range(n)
    ]
    files = []
    for number, shown in enumerate(sets):
        mix = np.mean([COLOURS[name] for name in sorted(shown & {*COLOURS})] or [COLOURS["grey"]], axis=0)
        files.append(jpeg(tuple(mix), 1000 * len(kind) + number))

    def contents(numbers):
        return (files[number] for number in numbers)

    names = tuple(f"{kind}{number}.jpg" for number in range(len(sets)))
    groups = tuple(f"{kind}{number // 2}" if grouped else "" for number in range(len(sets)))
    return MultiLabelImages(names, tuple(sets), groups, kind, contents)


@pytest.fixture(scope="module")
def data():
    return MultiLabelData(pictures(64, "test"), pictures(48, "validation"))


@pytest.fixture(scope="module")
def result(data):
    task = MultiLabel(data, CLASSES, ["{}", "a {} tile"])
    return task.run("mixed", [POOR, GOOD, COLLAPSED], SETTINGS)


def find(result, name, variant="plain", **where):
    found = [
        one
        for one in result.scores
        if one.name == name
        and one.context["variant"] == variant
        and all(one.context.get(key) == value for key, value in where.items())
    ]
    assert len(found) == 1, found
    return found[0]


def of(result, name, **where):
    return find(result, name, method="multi_label", **where)


def test_an_encoder_that_knows_colours_ranks_every_class_well(result):
    for name in NAMES:
        assert of(result, "auroc", precision="fp32", role="model", **{"class": name}).value > 0.85
    good, poor = (
        of(result, "mean_average_precision", precision=one, role="model") for one in ("fp32", "int8")
    )
    assert good.value > 0.85 > poor.value and good.n == 64
    assert of(result, "macro_f1", precision="fp32", role="model").value > 0.8


def test_a_collapsed_encoder_is_at_chance(result):
    assert of(result, "macro_auroc", role="untrained").value == 0.5
    # All pictures tie: the share of the classes. A random order is expected to reach a little more.
    assert of(result, "mean_average_precision", role="untrained").value == pytest.approx(0.5)
    assert find(result, "mean_average_precision", method="chance").value > 0.5


def test_every_score_says_what_it_was_measured_with(result):
    for one in result.scores:
        assert one.context["task"] == "mixed" and one.context["groups"] == 32
        assert len(one.context["data_hash"]) == 64 and one.context["code_version"] == "test"
        assert one.context["prompts"]["classes"] == CLASSES
        if one.context["method"] == "multi_label":
            assert one.context["model_hash"] and one.context["runtime"] == "numpy"


@pytest.mark.parametrize("variant", ["plain", "randomised_colour"])
def test_baselines_stand_beside_every_variant(result, variant):
    assert find(result, "macro_auroc", variant, method="chance").value == 0.5
    assert find(result, "exact_match", variant, method="majority").value == pytest.approx(1 / 8)
    colour = find(result, "macro_auroc", variant, method="colour_only")
    assert colour.value > (0.9 if variant == "plain" else 0.3)
    assert find(result, "macro_f1", variant, method="colour_only").n == 64


def test_what_colour_solves_is_marked(result):
    assert any(line.startswith("Plain: solved by colour. colours (fp32") for line in result.remarks)
    assert "solved by colour" in of(result, "macro_f1", precision="fp32", role="model").context["marks"]
    assert "marks" not in of(result, "macro_f1", role="untrained").context


def test_differences_are_paired(result):
    found = find(result, "mean_average_precision_difference", by="int8 minus fp32")
    values = [
        of(result, "mean_average_precision", precision=one, role="model").value for one in ("int8", "fp32")
    ]
    assert found.value == pytest.approx(values[0] - values[1]) and found.high < 0
    assert find(result, "macro_auroc_difference", by="model fp32 minus untrained fp32").low > 0


def test_thresholds_come_from_validation_and_are_told(result):
    context = of(result, "macro_f1", precision="fp32", role="model").context
    assert context["thresholds_fitted_on"] == "validation"
    assert set(context["thresholds"]) == {*NAMES}
    assert result.about["thresholds_fitted_on"] == "validation"
    assert "validation; of colour only, which learns from these rows, on: the other half of the groups." in (
        result.sections[0].caption
    )
    assert "learnt_from_test" not in find(result, "macro_f1", method="majority").context
    assert result.about["without_class"] == 8 and result.about["per_class"] == dict.fromkeys(NAMES, 32)


def test_without_validation_halves_fit_each_other_and_this_is_said(data):
    task = MultiLabel(MultiLabelData(data.test), CLASSES, variants=["plain"])
    result = task.run("mixed", [GOOD], SETTINGS)
    score = of(result, "macro_f1")
    assert score.context["thresholds_fitted_on"] == "the other half of the groups" and score.value > 0.7
    assert any("No validation rows: thresholds are fitted on one half" in line for line in result.remarks)
    assert find(result, "macro_auroc", method="colour_only").context["cross_validated"]
    assert find(result, "macro_f1", method="majority").context["learnt_from_test"]
    assert any("the majority of pictures show is that of the test rows" in line for line in result.remarks)
    assert result.sections[0].caption.endswith("thresholds fitted on: the other half of the groups.")


def test_wordings_of_absence_are_taken_off(data):
    plain = MultiLabel(data, CLASSES, ["{}"], variants=["plain"]).run("m", [GOOD], SETTINGS)
    negatives = {"red": ["blue"], "green": ["red"]}
    task = MultiLabel(data, CLASSES, ["{}"], negatives, variants=["plain"])
    found = task.run("m", [GOOD], SETTINGS)
    assert found.about["prompts"]["negatives"] == negatives
    for name in NAMES:
        before, after = (of(one, "auroc", **{"class": name}).value for one in (plain, found))
        assert (before > after + 0.05) == (name != "blue"), name  # a mix is both, and so nothing is left


def test_trained_pictures_are_counted_and_marked(data):
    content = list(data.test.contents(range(5)))
    seen = from_hashes([hashlib.sha256(one).hexdigest() for one in content], [0] * 5)
    subject = Subject("model", ColourEncoder(), "", seen)
    result = MultiLabel(data, CLASSES, variants=["plain"]).run("mixed", [subject, COLLAPSED], SETTINGS)
    score = of(result, "macro_auroc", role="model")
    assert "leak" in find(result, "macro_auroc_difference").context["marks"]
    assert score.context["leaked"] == 5 and "leak" in score.context["marks"]
    assert any(line.startswith("LEAK: colours was trained on 5 of these 64") for line in result.remarks)


def test_validation_rows_that_are_tested_on_are_left_out_and_counted(data):
    tested, other = (list(part.contents(range(len(part)))) for part in (data.test, data.validation))
    files = tested[:10] + other[10:]
    spoiled = dataclasses.replace(data.validation, contents=lambda numbers: (files[i] for i in numbers))
    result = MultiLabel(MultiLabelData(data.test, spoiled), CLASSES, ["{}"]).run("m", [GOOD], SETTINGS)
    (line,) = [line for line in result.remarks if line.startswith("Leaking split")]
    assert "10 of 48 validation pictures were left out: 10 are themselves" in line
    kept = data.validation.take(range(10, 48))
    clean = MultiLabel(MultiLabelData(data.test, kept), CLASSES, ["{}"]).run("m", [GOOD], SETTINGS)
    assert [one.value for one in result.scores] == [one.value for one in clean.scores]
    assert not any(line.startswith("Leaking") for line in clean.remarks)


def test_validation_rows_that_are_all_of_tested_groups_are_as_none(data):
    same = dataclasses.replace(data.validation, groups=data.test.groups[:48])
    result = MultiLabel(MultiLabelData(data.test, same), CLASSES, variants=["plain"]).run("m", [], SETTINGS)
    assert "48 more are of groups that are tested on" in result.remarks[0]
    assert result.about["thresholds_fitted_on"] == "the other half of the groups"


def test_answers_are_kept_class_by_class_and_can_be_compared(data, result):
    sheets = [
        one
        for one in measurements(result.answers).items()
        if (one[0].role, one[0].precision, one[0].variant) == ("model", "fp32", "plain")
    ]
    assert [what.detail for what, _ in sheets] == [f"class {name}" for name in NAMES]
    decided = np.array([[said == "present" for said in sheet.answer] for _, sheet in sheets]).T
    shown = np.array([[name in labels for name in NAMES] for labels in data.test.labels])
    score = of(result, "macro_f1", precision="fp32", role="model")
    assert f1_score(shown, decided, average="macro") == pytest.approx(score.value)
    assert all(sheet.groups == data.test.groups and len({*sheet.items}) == 64 for _, sheet in sheets)
    assert mean_recall(_recalls(sheets[0][1], np.arange(64), np.zeros(64, int)).sum(axis=0)) > 0.7


def test_few_groups_are_said(data):
    settings = dataclasses.replace(SETTINGS, limit=8)
    result = MultiLabel(MultiLabelData(data.test), CLASSES, variants=["plain"]).run("m", [], settings)
    assert [line for line in result.remarks if "8 groups" in line]


def test_unknown_groups_are_said():
    unknown = MultiLabel(MultiLabelData(pictures(32, "test", grouped=False)), CLASSES, variants=["plain"])
    assert any("Groups are not known" in line for line in unknown.run("m", [], SETTINGS).remarks)


def test_a_class_that_no_validation_row_shows_is_said_to_be_never_said(data):
    rows = pictures(0, "validation", labels=[frozenset({"red"}), frozenset({"green"})] * 8)
    task = MultiLabel(MultiLabelData(data.test, rows), CLASSES, variants=["plain"])
    result = task.run("m", [GOOD], SETTINGS)
    assert "No validation row shows 'blue', so it is never said to be there." in result.remarks
    assert of(result, "macro_f1").context["thresholds"]["blue"] == float("inf")


RED = frozenset({"red"})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([RED, frozenset()], "task m: class 'green' is shown by none of the 2 pictures to test on"),
        ([frozenset(NAMES), frozenset({*NAMES})], "task m: class 'red' is shown by all of the 2 pictures"),
        ([RED, frozenset({"violet"})], "task m: test1.jpg: its class 'violet' is none of red, green, blue"),
    ],
)
def test_classes_that_cannot_be_measured_are_refused_before_encoding(labels, message):
    images = dataclasses.replace(pictures(0, "test", labels=labels), contents=None)
    with pytest.raises(DataError, match=message):
        MultiLabel(MultiLabelData(images), CLASSES).run("m", [GOOD], SETTINGS)


@pytest.mark.parametrize(
    ("negatives", "message"),
    [
        ({"violet": ["x"]}, "negatives: 'violet' is none of the classes"),
        ({"red": []}, "negatives: class 'red' has no wording"),
        ({"red": ["red square"]}, "'red' and 'absence of red' share the prompt"),
        ({"red": [" "]}, "'absence of red' has an empty prompt"),
    ],
)
def test_wordings_of_absence_that_do_not_fit_are_named(data, negatives, message):
    with pytest.raises(DataError, match=message):
        MultiLabel(data, CLASSES, negatives=negatives).run("m", [GOOD], SETTINGS)


def test_an_absence_whose_embedding_is_not_a_number_is_named(data):
    task = MultiLabel(data, CLASSES, negatives={"red": ["nothing"]})
    with pytest.raises(DataError, match="the absence of 'red' is not a number"):
        task.run("m", [Subject("model", BrokenEncoder("nothing"))], SETTINGS)


def test_a_limit_keeps_every_set_of_classes(data):
    settings = dataclasses.replace(SETTINGS, limit=16)
    result = MultiLabel(data, CLASSES, variants=["plain"]).run("m", [GOOD], settings)
    assert of(result, "macro_auroc").n == 16 and result.about["without_class"] == 2


def test_the_sections_have_a_row_for_each_class(result):
    figures, classes = result.sections
    assert "<svg" in figures.html and "Prompts, licence, citation" in figures.html
    for name in NAMES:
        assert f"<td>{name}</td>" in classes.html
