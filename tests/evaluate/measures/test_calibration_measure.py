"""Calibration as a measure, on drawn similarities whose right scale is 20, as the encoder's is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pathclip.errors import ConfigError
from pathclip.evaluate.features.encode import data_hash
from pathclip.evaluate.leaks import from_rows
from pathclip.evaluate.marks import Marks
from pathclip.evaluate.measures.calibration_measure import Calibration
from pathclip.evaluate.measures.calibration_sections import figure_words, reliability_diagram
from pathclip.evaluate.subjects import Subject
from pathclip.train.training_pictures import TrainingPictures
from tests.evaluate.encoders import ColourEncoder
from tests.evaluate.measured import measured, pictures, split

FP32 = Subject("model", ColourEncoder(), "abc")
INT8 = Subject("model", ColourEncoder(precision="int8"), "abc")
UNTRAINED = Subject("untrained", ColourEncoder(), "def")
N = 600


def part(kind, seed, keys=("model fp32",), per_group=3, scale=20.0, grouped=True, n=N):
    similarity, truth = pictures(n, seed, scale)
    groups = [f"{kind} {number // per_group}" if grouped else "" for number in range(n)]
    return split(similarity, truth, groups, list(keys), kind)


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


@pytest.fixture(scope="module")
def overconfident():
    """An encoder whose own scale is 20 on pictures whose right one is 5, with validation rows."""
    task = measured(part("test", 0, scale=5), part("validation", 1, scale=5), [FP32])
    return Calibration().run(task)


def test_the_temperature_of_validation_makes_the_test_better(overconfident):
    for name in ("ece", "adaptive_ece", "brier", "negative_log_likelihood"):
        before, after = (find(overconfident, f"{name}_{when}") for when in ("before", "after"))
        change = find(overconfident, f"{name}_change")
        assert after.value < before.value and change.value == pytest.approx(after.value - before.value)
        assert change.low <= change.value <= change.high < 0
    assert overconfident.about["temperature"]["fp32"] == pytest.approx(4, rel=0.25)
    assert overconfident.fitted["fp32"]["logit_scale"] == pytest.approx(5, rel=0.25)


def test_what_is_stored_says_what_it_was_fitted_on(overconfident):
    validation = part("validation", 1, scale=5)
    entry = overconfident.fitted["fp32"]
    assert entry["classes"] == {name: [name, f"{name}s"] for name in ("one", "two", "three", "four")}
    assert entry["templates"] == ["{}", "a {}"]
    assert (entry["n"], entry["groups"], entry["model_hash"], entry["code_version"]) == (
        N,
        200,
        "abc",
        "test",
    )
    expected = data_hash(validation.encoded.sha256, validation.images.labels, validation.images.groups)
    assert entry["data_hash"] == expected


def test_every_score_says_where_its_values_were_fitted(overconfident):
    assert {one.context["fitted_on"] for one in overconfident.scores} == {"validation"}
    assert {one.context["method"] for one in overconfident.scores} == {"calibration"}
    assert all(one.n > 0 and np.isfinite(one.value) for one in overconfident.scores)
    assert find(overconfident, "ece_after").context["bins"] == 15


def test_sets_cover_nine_of_ten_and_say_how_large_they_are(overconfident):
    coverage = find(overconfident, "conformal_coverage")
    assert coverage.value == pytest.approx(0.9, abs=0.05) and coverage.low < coverage.value < coverage.high
    assert 1 < find(overconfident, "conformal_set_size").value < 4
    assert coverage.context["coverage"] == 0.9


def test_sets_by_aps_are_never_empty():
    result = Calibration(conformal="aps").run(measured(part("test", 0), part("validation", 1)))
    assert find(result, "conformal_empty").value == 0
    assert find(result, "conformal_coverage").value > 0.85
    assert result.fitted["fp32"]["conformal_method"] == "aps"


def test_the_surest_pictures_are_answered_better():
    result = Calibration().run(measured(part("test", 0), part("validation", 1)))
    values = [find(result, f"accuracy_at_{part}%_coverage").value for part in (50, 80, 90, 100)]
    assert values == sorted(values, reverse=True) and values[0] > values[-1] + 0.05
    risk = find(result, "area_under_risk_coverage").value
    assert 0 < risk < 1 - values[-1]


def test_without_validation_each_half_is_judged_by_the_other_and_all_is_stored():
    result = Calibration().run(measured(part("test", 0, scale=5), subjects=[FP32]))
    assert {one.context["fitted_on"] for one in result.scores} == {"the other half of the groups"}
    assert any("each half of the test groups is judged by values" in line for line in result.remarks)
    assert result.fitted["fp32"]["n"] == N and result.fitted["fp32"]["groups"] == 200
    assert find(result, "ece_after").value < find(result, "ece_before").value


def test_a_half_never_sees_its_own_pictures():
    """Two groups only: the values of each come from the other, whose pictures are all of another kind."""
    similarity = np.tile([0.3, 0.1, 0.0, 0.0], (40, 1))
    truth = np.zeros(40, np.int64)
    truth[20:] = 1  # a group that is always right and one that is always wrong
    task = split(similarity, truth, ["a"] * 20 + ["b"] * 20, ["model fp32"], "test")
    result = Calibration().run(measured(task, subjects=[FP32]))
    # Sure where it is wrong, unsure where it is right: worse than the fit on all could ever be.
    assert find(result, "negative_log_likelihood_after").value > 100


def test_the_twin_is_judged_by_what_plain_pictures_taught(overconfident):
    # Similarities of the twin are half of the plain ones; the threshold is not.
    plain, twin = (
        find(overconfident, "known_rejected_mean", variant, definition="highest_similarity")
        for variant in ("plain", "randomised_colour")
    )
    assert plain.value == pytest.approx(0.05, abs=0.03)
    assert twin.low > plain.high


def test_a_class_that_is_unlike_the_others_is_rejected_and_said_to_be():
    def kind(seed, name):
        rng = np.random.default_rng(seed)
        truth = rng.integers(0, 4, N)
        similarity = rng.normal(0.0, 0.02, (N, 4))
        similarity[np.arange(N), truth] += 0.5
        return split(similarity, truth, [f"{name} {i}" for i in range(N)], ["model fp32"], name)

    result = Calibration().run(measured(kind(0, "test"), kind(1, "validation"), [FP32]))
    mean = find(result, "none_auroc_mean", definition="highest_similarity")
    assert mean.value > 0.99
    assert find(result, "none_rejected_mean", definition="highest_similarity").value > 0.95
    assert find(result, "known_rejected_mean", definition="highest_similarity").value < 0.1
    assert find(result, "none_rejected", left_out="two").n == (kind(0, "test").truth == 1).sum()
    assert any("'none of these' works here" in line for line in result.remarks)


def test_it_is_said_where_none_of_these_does_not_work():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, N)
    noise = rng.normal(0, 0.1, (N, 4))
    task = split(noise, truth, [str(i) for i in range(N)], ["model fp32"], "test")
    result = Calibration().run(measured(task, subjects=[FP32]))
    assert any("'none of these' does not work here" in line for line in result.remarks)


def test_each_precision_is_fitted_and_the_untrained_model_is_not():
    keys = ("model fp32", "model int8", "untrained fp32")
    task = measured(part("test", 0, keys), None, [INT8, FP32, UNTRAINED])
    result = Calibration().run(task)
    assert set(result.fitted) == {"int8", "fp32"}
    assert {one.context["role"] for one in result.scores} == {"model"}


def test_few_groups_are_said_to_rule_nothing_out():
    result = Calibration().run(measured(part("test", 0, per_group=100), subjects=[FP32]))
    assert find(result, "conformal_set_size").value == 4
    assert any("6 groups are too few" in line and "nothing is called none" in line for line in result.remarks)
    assert result.fitted == result.about["fitted"] == {}
    assert any(line.endswith("too few groups (6) to keep a calibration.") for line in result.remarks)


def test_a_calibration_whose_rejection_could_not_be_fitted_is_not_kept_either():
    result = Calibration().run(measured(part("test", 0, per_group=50), subjects=[FP32]))  # 12 groups
    assert result.fitted == {} and result.about["temperature"]["fp32"] > 0
    assert any("too few groups (12) to keep a calibration" in line for line in result.remarks)
    assert not any("stored threshold" in line for line in result.remarks)


def test_what_is_kept_bears_the_mark_of_a_model_that_was_trained_on_its_pictures():
    task = measured(part("test", 0), subjects=[FP32])
    assert Calibration().run(task).fitted["fp32"]["marks"] == []
    leaking = dataclasses.replace(task, marks=Marks({"model fp32": True}))
    assert Calibration().run(leaking).fitted["fp32"]["marks"] == ["leak"]
    other = dataclasses.replace(task, marks=Marks({"untrained fp32": True}))
    assert Calibration().run(other).fitted["fp32"]["marks"] == []


def test_validation_rows_that_were_trained_on_mark_it_too():
    validation = part("validation", 1)
    rows = from_rows(validation.encoded.sha256)
    seen = TrainingPictures(rows, np.zeros((len(rows),), np.uint64))
    subject = dataclasses.replace(FP32, seen=seen)
    result = Calibration().run(measured(part("test", 0), validation, [subject]))
    assert result.fitted["fp32"]["marks"] == ["leak"]


def test_the_table_has_words_and_the_curve_a_title(overconfident):
    html = overconfident.sections[0].html
    assert "expected calibration error, as trained" in html and "ece before" not in html
    assert "Risk against coverage" in html
    assert all(figure_words(one.name) != one.name for one in overconfident.scores if "none_" not in one.name)


def test_halves_too_small_for_the_threshold_that_is_stored_are_said():
    task = measured(part("test", 0, per_group=50), subjects=[FP32])  # 12 groups
    result = Calibration(known_pass=0.6).run(task)
    assert result.fitted["fp32"]["conformal_threshold"] < 1
    assert find(result, "conformal_set_size").value > 3
    assert any(
        "a half of the 12 groups is too few for sets of less than all" in one for one in result.remarks
    )
    enough = Calibration().run(measured(part("test", 0), subjects=[FP32]))
    assert not any("a half of the" in one for one in enough.remarks)


def test_none_of_these_without_a_threshold_is_not_judged():
    result = Calibration().run(measured(part("test", 0, per_group=25), subjects=[FP32]))  # 24 groups
    assert result.fitted["fp32"]["none_threshold"] > -1
    (line,) = [one for one in result.remarks if "'none of these'" in one]
    assert (
        "cannot be judged: too few groups to fit a threshold on, with one, two, three, four left out" in line
    )
    assert not any("rejected" in one.name for one in result.scores)
    assert np.isfinite(find(result, "none_auroc_mean", definition="highest_similarity").value)
    assert "<td>one</td>" in result.sections[1].html and "–</td>" in result.sections[1].html


@pytest.mark.parametrize("subjects", [[FP32], [UNTRAINED]], ids=["one group", "no model"])
def test_what_cannot_be_calibrated_gives_a_line_and_no_number(subjects):
    task = measured(part("test", 0, ["model fp32", "untrained fp32"], per_group=N), None, subjects)
    result = Calibration().run(task)
    assert (result.scores, result.fitted) == ((), {})
    assert result.remarks[0].startswith("No calibration: ")


def test_validation_rows_that_are_tested_on_are_left_out_and_counted():
    test, validation = part("test", 0), part("validation", 1)
    clean = Calibration().run(measured(test, validation, [FP32]))
    hashes = (*test.encoded.sha256[:50], *validation.encoded.sha256[50:])
    leaking = dataclasses.replace(validation, encoded=dataclasses.replace(validation.encoded, sha256=hashes))
    result = Calibration().run(measured(test, leaking, [FP32]))
    (line,) = [one for one in result.remarks if one.startswith("Leaking split")]
    assert "50 of 600 validation pictures were left out: 50 are themselves among the pictures to test" in line
    assert (result.fitted["fp32"]["n"], clean.fitted["fp32"]["n"]) == (550, 600)
    assert not any(one.startswith("Leaking") for one in clean.remarks)


def test_validation_rows_nearly_tested_on_or_of_a_tested_group_are_left_out():
    test, validation = part("test", 0), part("validation", 1)
    rows = np.random.default_rng(0).integers(1, 1 << 63, (N, 8), dtype=np.uint64) | np.uint64(0xFFFFFFFF)
    seen = np.random.default_rng(1).integers(1, 1 << 63, (N, 8), dtype=np.uint64) | np.uint64(
        0xFFFFFFFF00000000
    )
    rows[:20, 3] = seen[:20, 0] ^ np.uint64(0b111)  # three bits away, turned
    groups = (*validation.images.groups[:-6], *test.images.groups[:6])
    near = dataclasses.replace(
        validation,
        images=dataclasses.replace(validation.images, groups=groups),
        encoded=dataclasses.replace(validation.encoded, perceptual=rows),
    )
    tested = dataclasses.replace(test, encoded=dataclasses.replace(test.encoded, perceptual=seen))
    result = Calibration().run(measured(tested, near, [FP32]))
    assert "20 are near-duplicates of such, and 6 more are of groups that are tested on" in result.remarks[0]
    assert result.fitted["fp32"]["n"] == N - 26


def test_validation_rows_that_are_all_tested_on_leave_the_halves():
    same = dataclasses.replace(part("test", 0, grouped=False))
    result = Calibration().run(measured(part("test", 0, grouped=False), same, [FP32]))
    assert {one.context["fitted_on"] for one in result.scores} == {"the other half of the groups"}
    assert "600 of 600 validation pictures were left out" in result.remarks[0]
    assert result.about["fitted_on"] == "halves of the test groups"


def test_unknown_groups_are_said():
    unknown = Calibration().run(measured(part("test", 0, grouped=False), subjects=[FP32]))
    assert any("Groups are not known here" in line for line in unknown.remarks)


def test_a_task_without_plain_pictures_is_refused():
    task = dataclasses.replace(measured(part("test", 0), subjects=[FP32]), variants=["randomised_colour"])
    with pytest.raises(ConfigError, match="calibration needs 'plain' among its variants"):
        Calibration().run(task)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bins": 1}, "bins: 1"),
        ({"coverage": 1.0}, "coverage: 1.0 is not between"),
        ({"known_pass": 0.0}, "known_pass: 0.0"),
        ({"conformal": "raps"}, "conformal: 'raps' is none of lac, aps"),
        ({"selective": [0.5, 1.5]}, "selective: 1.5"),
    ],
)
def test_settings_out_of_range_are_named(wrong, message):
    with pytest.raises(ConfigError, match=message):
        Calibration(**wrong)


def test_two_classes_can_be_calibrated():
    similarity, truth = pictures(N, 0, classes=2)
    task = split(similarity, truth, [str(i) for i in range(N)], ["model fp32"], "test")
    result = Calibration().run(measured(task, subjects=[FP32], classes=2))
    assert np.isfinite(find(result, "none_auroc_mean", definition="highest_similarity").value)


def test_the_sections_show_both_variants_and_no_colours_of_their_own(overconfident):
    figures, none = overconfident.sections
    assert figures.html.count("<svg") == 3 and "fill=" not in figures.html and "Plain" in figures.html
    for name in ("one", "two", "three", "four"):
        assert f"<td>{name}</td>" in none.html


def test_the_diagram_has_a_square_for_each_bin_with_pictures():
    sums = np.array([[0, 0, 0], [10, 4.0, 3], [30, 27.0, 30]])
    svg = reliability_diagram({"before": sums, "after": sums[:2]})
    assert svg.count("<title>") == 3
    assert "<title>confidence 0.900, accuracy 1.000, 30 pictures</title>" in svg
