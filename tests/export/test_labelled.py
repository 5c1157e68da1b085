from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pathclip.errors import ConfigError, DataError
from pathclip.evaluate.classification.zeroshot_task import ZeroShot
from pathclip.evaluate.datasets import LabelledData, LabelledImages
from pathclip.export.calibration.labelled import labelled_by_pairs, labelled_by_task, prompt_texts
from pathclip.export.calibration.samples import Samples
from pathclip.runtime.preprocess import open_image
from tests.export import towers
from tests.export.conftest import picture

CLASSES = {"a": ["benign", "normal"], "b": ["tumour"]}


def tokenizer(texts):
    return np.array([[len(text)] for text in texts], np.int64)


def images(split, numbers, groups=True):
    contents = [picture(number) for number in numbers]
    return LabelledImages(
        tuple(f"{number}.png" for number in numbers),
        tuple("ab"[number % 2] for number in numbers),
        tuple(f"g{number // 2}" if groups else "" for number in numbers),
        split,
        lambda wanted: (contents[one] for one in wanted),
    )


def calibration(*numbers):
    pixels = [towers.PREPROCESS.pixels(open_image(picture(number))) for number in numbers]
    blank = np.zeros((len(pixels), 1), np.int64)
    return Samples(np.stack(pixels), blank, ("",) * len(pixels), towers.PREPROCESS)


def pairs(*labels):
    n = len(labels)
    pixels = np.arange(n * 192).reshape(n, 8, 8, 3).astype(np.uint8)
    groups = tuple(f"g{i}" for i in range(n))
    return Samples(pixels, np.zeros((n, 1), np.int64), ("",) * n, towers.PREPROCESS, groups, labels)


def by_task(data, limit=100, seen=(99,), classes=CLASSES, templates=("{}",)):
    fitted = [calibration(*seen)] if not isinstance(seen, list) else seen
    return labelled_by_task("t", ZeroShot(data, classes, templates), limit, fitted, tokenizer)


def test_validation_pictures_go_before_those_that_are_tested_on():
    found = by_task(LabelledData(images("test", range(8)), None, images("validation", range(8, 14))))
    assert len(found) == 6 and "validation" in found.source
    tested = by_task(LabelledData(images("test", range(8))))
    assert len(tested) == 8 and tested.source == "task t, test pictures of the task, not validation"


def test_pictures_that_recipes_were_fitted_on_are_left_out():
    found = by_task(LabelledData(images("test", range(8))), seen=(2, 5))
    assert len(found) == 6 and found.labels.tolist() == [0, 1, 1, 0, 0, 1]
    with pytest.raises(DataError, match="all its pictures, or their groups, are among the calibration pairs"):
        by_task(LabelledData(images("test", range(4))), seen=range(4))


def test_pictures_of_a_group_that_recipes_were_fitted_on_are_left_out():
    fitted = [calibration(99), dataclasses.replace(calibration(98), groups=("g1",))]
    found = by_task(LabelledData(images("test", range(8))), seen=fitted)
    assert found.groups == ("g0", "g0", "g2", "g2", "g3", "g3")


@pytest.mark.parametrize("change", [lambda rows: rows[:, :, ::-1], lambda rows: rows // 2 * 2 + 1])
def test_near_duplicates_of_what_recipes_were_fitted_on_are_left_out(change):
    seen = calibration(2)
    near = dataclasses.replace(seen, pixels=np.ascontiguousarray(change(seen.pixels)))
    assert not (near.pixels == seen.pixels).all()
    found = by_task(LabelledData(images("test", range(8))), seen=[near])
    assert found.labels.tolist() == [0, 1, 1, 0, 1, 0, 1]


def test_wordings_of_a_class_belong_to_it():
    found = by_task(LabelledData(images("test", range(4))), templates=("{}", "an image of {}"))
    assert found.classes == ("a", "b") and found.prompt_classes.tolist() == [0, 0, 0, 0, 1, 1]
    assert prompt_texts(CLASSES, ["{}"])[0] == ["benign", "normal", "tumour"]


def test_a_limit_takes_the_classes_in_turn_and_unknown_groups_are_one_each():
    found = by_task(LabelledData(images("test", range(8), groups=False)), limit=4)
    assert found.labels.tolist() == [0, 1, 0, 1] and len(set(found.groups)) == 4


def test_a_task_of_another_kind_is_refused():
    with pytest.raises(ConfigError, match="'t' is no zero-shot task"):
        labelled_by_task("t", object(), 10, [calibration(1)], tokenizer)


def test_a_picture_of_no_class_is_named_with_the_task():
    with pytest.raises(DataError, match=r"task t: .*its class 'b' is none of a, c"):
        by_task(LabelledData(images("test", range(4))), classes={"a": ["x"], "c": ["y"]})


def test_pairs_without_a_label_are_left_out():
    found = labelled_by_pairs(pairs("b", "", "a", "b"), (), ["{}"], tokenizer)
    assert found is not None and found.classes == ("a", "b") and found.labels.tolist() == [1, 0, 1]
    assert found.groups == ("g0", "g2", "g3")


@pytest.mark.parametrize(("labels", "classes"), [(("a", "a"), ()), (("a", "b"), ("a", "c")), (("", ""), ())])
def test_pairs_are_no_labelled_set_unless_every_class_has_one(labels, classes):
    assert labelled_by_pairs(pairs(*labels), classes, ["{}"], tokenizer) is None
