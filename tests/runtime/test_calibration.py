"""What a card says of calibration is checked, found and applied."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest

from pathclip.errors import DataError, ModelFolderError
from pathclip.model_folder import CARD, open_model_folder
from pathclip.runtime.calibration import (
    conformal_scores,
    of_classes,
    of_task,
    read_calibrations,
    softmax,
)
from tests.tiny_calibration import FITTED, entry, write
from tests.tiny_model import write_tiny_model


@pytest.fixture
def folder(tmp_path):
    """A model folder that is calibrated for `FITTED.task`."""
    path = write_tiny_model(tmp_path / "m")
    return write(path, {"colours": {"int8": entry(path)}})


def test_what_the_card_keeps_is_read_back_as_it_was(folder):
    opened = open_model_folder(folder)
    expected = dataclasses.replace(FITTED, model_hash=opened.hash)
    assert read_calibrations(opened) == [expected] == [of_task(opened, "colours", "int8")]


@pytest.mark.parametrize("calibration", [{}, None])
def test_a_card_without_calibration_has_none(tmp_path, calibration):
    opened = open_model_folder(write_tiny_model(tmp_path / "m", calibration=calibration))
    assert read_calibrations(opened) == [] and of_classes(opened, ["red", "blue"], "int8") is None
    with pytest.raises(DataError, match=r"no calibrated task 'x'. .* to make one: pathclip evaluate"):
        of_task(opened, "x", "int8")


WRONG = {
    "logit_scale": [None, "5", True, -1.0, float("nan"), float("inf"), 10**400, 1e7],
    "none_threshold": [None, 1.5, -2, float("nan")],
    "conformal_threshold": [None, 1.01, -0.1, []],
    "conformal_method": [None, "raps", ["lac"], {}],
    "coverage": [None, 90, "0.9"],
    "known_pass": [None, 1.5],
    "n": [None, 0, 1.5, True, -3, 10**400],
    "groups": [None, 0, "40"],
    "classes": [None, [], {}, {"one": ["one"]}, "red,blue"],
    "templates": [None, [], "{}", [1], ["no place"], [""]],
    "model_hash": [None, "", 7, "x" * 2000],
    "data_hash": [None, ""],
    "code_version": [None, 1],
    "marks": ["leak", None, [1], [""], {}, ["leak"] * 101],
}


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key, values in WRONG.items() for value in values],
    ids=lambda value: str(value)[:20],
)
def test_a_malformed_value_is_named_by_its_key(folder, key, value):
    write(folder, {"colours": {"int8": entry(folder, **{key: value})}})
    with pytest.raises(ModelFolderError, match=rf"calibration\.colours\.int8\.{key}\b") as caught:
        read_calibrations(open_model_folder(folder))
    assert len(str(caught.value)) < 600


def test_a_card_of_an_earlier_version_has_no_marks(folder):
    fitted = entry(folder)
    del fitted["marks"]
    write(folder, {"colours": {"int8": fitted}})
    assert of_task(open_model_folder(folder), "colours", "int8").marks == ()


def test_marks_are_read_back(folder):
    write(folder, {"colours": {"int8": entry(folder, marks=["leak"])}})
    assert of_task(open_model_folder(folder), "colours", "int8").marks == ("leak",)


def test_a_slip_in_the_name_is_not_suggested_back(tmp_path):
    opened = open_model_folder(write_tiny_model(tmp_path / "m"))
    with pytest.raises(DataError, match="task=NAME measure=calibration record=true"):
        of_task(opened, "lc2500", "int8")


def test_a_value_that_is_not_there_is_named_too(folder):
    fitted = entry(folder)
    del fitted["none_threshold"]
    write(folder, {"colours": {"int8": fitted}})
    with pytest.raises(
        ModelFolderError, match=r"calibration\.colours\.int8\.none_threshold must be a number"
    ):
        read_calibrations(open_model_folder(folder))


@pytest.mark.parametrize("words", [[], "red", [""], [3], ["x" * 2000]])
def test_malformed_wordings_are_named_by_their_class(folder, words):
    fitted = copy.deepcopy(entry(folder))
    fitted["classes"]["cold"] = words
    write(folder, {"colours": {"int8": fitted}})
    with pytest.raises(ModelFolderError, match=r"calibration\.colours\.int8\.classes\.cold"):
        read_calibrations(open_model_folder(folder))


@pytest.mark.parametrize("calibration", [[], "x", {"colours": []}, {"colours": {"int8": 3}}])
def test_a_malformed_shape_is_refused(folder, calibration):
    write(folder, calibration)
    with pytest.raises(ModelFolderError, match=r"calibration.* must"):
        read_calibrations(open_model_folder(folder))


def test_more_prompts_than_can_be_meant_are_refused_before_any_is_encoded(folder):
    many = {f"c{i}": [f"c{i}"] for i in range(5000)}
    write(folder, {"colours": {"int8": entry(folder, classes=many, templates=["{}"] * 30)}})
    with pytest.raises(ModelFolderError, match="more than 100000 prompts"):
        read_calibrations(open_model_folder(folder))


def test_classes_are_found_as_a_set_in_the_same_precision_only(folder):
    opened = open_model_folder(folder)
    assert of_classes(opened, ["other", "cold", "warm"], "int8").task == "colours"
    assert of_classes(opened, ["cold", "warm"], "int8") is None
    assert of_classes(opened, ["other", "cold", "warm"], "fp32") is None


def test_of_two_tasks_with_the_same_classes_that_with_more_groups_is_taken(folder):
    write(folder, {"a": {"int8": entry(folder)}, "b": {"int8": entry(folder, groups=41)}})
    assert of_classes(open_model_folder(folder), FITTED.classes, "int8").task == "b"


def test_other_weights_are_not_calibrated(folder):
    card = json.loads((folder / CARD).read_text())
    card["context_length"] += 1
    (folder / CARD).write_text(json.dumps(card))
    opened = open_model_folder(folder)
    assert of_classes(opened, FITTED.classes, "int8") is None
    with pytest.raises(DataError, match="was calibrated with other weights"):
        of_task(opened, "colours", "int8")


def test_an_unknown_task_and_a_missing_precision_say_what_there_is(folder):
    opened = open_model_folder(folder)
    with pytest.raises(DataError, match=r"no calibrated task 'kather9'. It has: colours"):
        of_task(opened, "kather9", "int8")
    with pytest.raises(DataError, match="is calibrated for int8, not for fp32"):
        of_task(opened, "colours", "fp32")


def test_probabilities_have_the_fitted_scale_and_come_in_order():
    answer = FITTED.answer(np.array([0.1, 0.5, 0.3], np.float32))
    assert [label.name for label in answer.labels] == ["cold", "other", "warm"]
    expected = np.exp(5 * (0.5 - 0.3))
    assert answer.labels[0].probability / answer.labels[1].probability == pytest.approx(expected, rel=1e-5)
    assert sum(label.probability for label in answer.labels) == pytest.approx(1)


def test_the_set_holds_what_the_threshold_lets_in():
    similarities = np.array([0.1, 0.5, 0.3])
    shares = softmax(similarities[None], 5.0)[0]
    for threshold, size in ((0.2, 0), (0.6, 1), (0.8, 2), (1.0, 3)):
        answer = dataclasses.replace(FITTED, conformal_threshold=threshold).answer(similarities)
        assert len(answer.possible) == size == ((1 - shares) <= threshold).sum()
        assert list(answer.possible) == [label.name for label in answer.labels[:size]]


def test_a_set_by_aps_is_never_empty_and_takes_classes_in_order():
    aps = dataclasses.replace(FITTED, conformal_method="aps", conformal_threshold=0.0)
    assert aps.answer(np.array([0.1, 0.5, 0.3])).possible == ("cold",)
    everything = dataclasses.replace(aps, conformal_threshold=1.0)
    assert len(everything.answer(np.array([0.1, 0.9, -0.9])).possible) == 3


def test_a_picture_below_the_threshold_is_none_of_the_classes():
    assert FITTED.answer(np.array([0.1, 0.24, 0.2])).none
    assert not FITTED.answer(np.array([0.1, 0.26, 0.2])).none


def test_scores_by_aps_are_the_probability_of_what_is_more_probable():
    found = conformal_scores(np.array([[0.2, 0.5, 0.3]]), "aps")
    assert found.tolist() == [[0.8, 0.0, 0.5]]


def test_a_softmax_of_large_factors_does_not_overflow_and_takes_one_per_row():
    shares = softmax(np.array([[1.0, -1.0], [1.0, -1.0]]), np.array([1e6, 0.0]))
    assert shares.tolist() == [[1.0, 0.0], [0.5, 0.5]]
