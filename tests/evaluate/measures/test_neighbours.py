from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from pathclip.evaluate.marks import Marks
from pathclip.evaluate.measures import neighbours
from pathclip.evaluate.measures.neighbours import Neighbours, votes
from pathclip.evaluate.reporting.report import SOLVED_BY_COLOUR
from tests.evaluate.learning_cases import FP32, SUBJECTS, find, split, task

TRAIN, TEST = split("train", 90), split("test", 60)


def embeddings(part):
    return part.encoded.embeddings[FP32.key]["plain"]


def test_the_votes_equal_those_of_scikit_learn(monkeypatch):
    monkeypatch.setattr(neighbours, "_AT_ONCE", 90 * 7)  # seven pictures at a time
    reference = KNeighborsClassifier(
        9, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(embeddings(TRAIN), TRAIN.truth)
    found = votes(embeddings(TRAIN), TRAIN.truth, embeddings(TEST), 3, 9, 0.07)
    assert found == pytest.approx(reference.predict_proba(embeddings(TEST)), abs=1e-4)


def test_a_nearer_picture_weighs_more_than_two_far_ones():
    rows = np.array([[1, 0], [0.6, 0.8], [0.6, 0.8]], np.float32)
    unseen = np.array([[1, 0]], np.float32)
    assert votes(rows, np.array([0, 1, 1]), unseen, 2, 3, 0.07).argmax() == 0
    assert votes(rows, np.array([0, 1, 1]), unseen, 2, 3, 100.0).argmax() == 1


def test_every_encoder_is_measured():
    result = Neighbours(k=9).run(task(TRAIN, TEST))
    values = {one.key: find(result, "balanced_accuracy", by=one.title).value for one in SUBJECTS}
    assert values["model fp32"] > 0.8 > 0.6 > values["untrained fp32"]
    said = votes(embeddings(TRAIN), TRAIN.truth, embeddings(TEST), 3, 9, 0.07).argmax(axis=1)
    score = find(result, "accuracy", by=FP32.title)
    assert score.value == pytest.approx((said == TEST.truth).mean())
    assert score.context["k"] == 9 and score.context["learnt_from"] == 90


def test_fewer_pictures_than_neighbours_are_said():
    result = Neighbours(k=200).run(task(TRAIN, TEST))
    assert result.remarks == ("90 neighbours instead of 200: there are no more training pictures.",)
    assert find(result, "accuracy", by=FP32.title).context["k"] == 90


def test_without_training_rows_there_is_a_line_and_no_figure():
    result = Neighbours().run(task(None, TEST))
    assert result.scores == ()
    assert result.remarks == ("Nearest neighbours not measured: the task has no rows to learn from.",)


def test_what_the_colours_of_the_task_solve_is_marked_and_shown():
    result = Neighbours(k=9).run(replace(task(TRAIN, TEST), marks=Marks(colour_only={"plain": 0.99})))
    for one in result.scores:
        solved = one.context.get("role") == "model"
        assert one.context.get("marks", []) == [SOLVED_BY_COLOUR] * solved, one.context
    lines = [line for line in result.remarks if "solved by colour" in line]
    assert len(lines) == 2 and lines[0].endswith("colours alone 0.990.")
    assert f'<span class="mark">{SOLVED_BY_COLOUR}</span>' in result.sections[0].html
