"""Which pairs ranges are read off, recipes chosen on, and the gate judges on."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from pathclip.errors import DataError
from pathclip.export.calibration.sets import OTHER, TRAINING, VALIDATION, Wanted, draw_sets, folders_of
from tests.export.test_samples import PREPROCESS, tokenizer, write


def drawn(shards, training=None, held_out=None, size=16, **more):
    wanted = Wanted(size, size, size, (shards,), held_out, **more)
    return draw_sets(wanted, training or {}, PREPROCESS, tokenizer)


@pytest.fixture
def folders(tmp_path):
    """Training and validation shards."""
    return write(tmp_path / "train", group_of=2, case=120), write(tmp_path / "val", unseen=40)


@pytest.fixture
def card(folders):
    return {"shards": [str(folders[0])], "val": str(folders[1])}


def test_no_group_stands_in_two_of_the_sets(folders):
    found = drawn(folders[0])
    sets = [{*one.groups} for one in (found.calibration, found.selection, found.held_out)]
    assert [len(one) for one in (found.calibration, found.selection, found.held_out)] == [16, 16, 16]
    assert not any(one & other for one, other in combinations(sets, 2)) and found.shared_groups == 0


@pytest.mark.parametrize("listed", [False, True])
def test_the_gate_judges_on_the_validation_shards_that_the_card_names(folders, card, listed):
    found = drawn(folders[0], {**card, "val": [card["val"]] if listed else card["val"]})
    assert {text.split()[0] for text in found.held_out.texts} == {"unseen"}
    assert {text.split()[0] for text in found.calibration.texts + found.selection.texts} == {"case"}
    assert (found.source, found.trained_on, found.note) == (VALIDATION, False, "")


@pytest.mark.parametrize("val", [None, [], "gone"])
def test_without_validation_shards_the_gate_judges_on_training_pairs_and_says_why(folders, card, val):
    found = drawn(folders[0], {**card, "val": val and str(folders[0].parent / val)})
    assert {text.split()[0] for text in found.held_out.texts} == {"case"}
    assert (found.source, found.trained_on) == (TRAINING, True)
    assert ("gone are not there" if val else "names no validation shards") in found.note
    assert str(folders[0].parent) not in found.note


def test_validation_pairs_of_groups_that_were_calibrated_on_are_no_use(tmp_path, folders, card):
    again = write(tmp_path / "again", group_of=2, case=60)
    found = drawn(folders[0], {**card, "val": str(again)}, size=60)
    assert found.source == TRAINING and found.note.startswith("again: ")
    assert found.shared_groups == 0


def test_shards_named_for_the_gate_are_taken_and_called_what_they_are_to_the_model(tmp_path, folders, card):
    named = write(tmp_path / "named", other=20)
    found = drawn(folders[0], card, (named,))
    assert {text.split()[0] for text in found.held_out.texts} == {"other"} and found.source == OTHER
    assert drawn(folders[0], card, (folders[0],)).source == TRAINING


def test_too_few_pairs_in_shards_named_for_the_gate_are_refused(tmp_path, folders):
    with pytest.raises(DataError, match=r"few: 5 pairs of other groups .*calibration\.held_out_shards=…"):
        drawn(folders[0], held_out=(write(tmp_path / "few", few=5),))


@pytest.mark.parametrize(("pairs", "group_of"), [(40, 40), (14, 1)])
def test_no_set_is_short_or_stands_in_for_another(tmp_path, pairs, group_of):
    with pytest.raises(DataError, match=r"for ranges and .* at least 8 .*calibration\.shards=…"):
        drawn(write(tmp_path / "one", group_of=group_of, case=pairs), size=8)


def test_a_limit_holds_for_each_kind_of_shards(folders, card):
    found = drawn(folders[0], card, limit=24)
    assert len(found.calibration) + len(found.selection) <= 24 and len(found.held_out) <= 24


def test_folders_are_one_or_several_or_none():
    assert [folders_of(one) for one in (None, [], "a", ["a", "b"])] == [
        *((), ()),
        (Path("a"),),
        (Path("a"), Path("b")),
    ]
