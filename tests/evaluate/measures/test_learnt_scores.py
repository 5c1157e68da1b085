"""What scores and answers of something learnt say of it."""

from __future__ import annotations

import numpy as np
import pytest

from pathclip.evaluate.comparison.measurements import measurements
from pathclip.evaluate.measures.learning import learnable
from pathclip.evaluate.measures.learnt_scores import Predictions, learning_answers, learning_scores
from tests.evaluate.learning_cases import FP32, UNTRAINED, task

MEASURED = task()


def predictions(subjects, fraction, **about):
    said = np.stack([MEASURED.test.truth])
    return [Predictions("tuned", "plain", said, one, {"fraction": fraction, **about}) for one in subjects]


@pytest.mark.parametrize(("fraction", "rows"), [(0.1, 9), (1.0, 90)])
def test_a_difference_says_what_the_scores_it_compares_were_learnt_from(fraction, rows):
    given = predictions([FP32, UNTRAINED], fraction, learnt_from=rows)
    scores = learning_scores(MEASURED, learnable(MEASURED), given)
    assert scores[-1].name == "balanced_accuracy_difference"
    assert {one.context["learnt_from"] for one in scores} == {rows}


def test_answers_of_two_runs_match_by_what_they_were_learnt_from_and_not_by_their_order():
    half, whole = (predictions([FP32], fraction) for fraction in (0.5, 1.0))
    first = measurements(learning_answers(MEASURED, [*half, *whole]))
    second = measurements(learning_answers(MEASURED, whole))
    (what,) = {*first} & {*second}
    assert (what.method, what.detail) == ("tuned", "fraction 1.0")
    assert first[what].about["fraction"] == 1.0
