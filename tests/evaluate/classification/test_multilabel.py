"""Figures at thresholds equal scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, hamming_loss, roc_auc_score

from pathclip.evaluate.classification import multilabel
from pathclip.evaluate.classification.multilabel_figures import MultiLabelFigures
from pathclip.evaluate.task import Settings


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    present = rng.random((300, 4)) < [0.1, 0.4, 0.5, 0.8]
    return present, rng.normal(size=(300, 4)) + present


@pytest.fixture
def figures(drawn):
    groups = np.arange(300) // 3
    return MultiLabelFigures(drawn[0], groups, ["a", "b", "c", "d"], Settings(resamples=100), {"task": "t"})


def by_name(scores):
    return {(one.name, one.context.get("class")): one for one in scores}


def test_decisions_get_the_figures_that_scikit_learn_gives(drawn, figures):
    present, scores = drawn
    predicted = scores > 0.5
    found = by_name(figures.decided_scores(predicted, {}))
    expected = {
        "macro_f1": f1_score(present, predicted, average="macro"),
        "micro_f1": f1_score(present, predicted, average="micro"),
        "exact_match": accuracy_score(present, predicted),
        "hamming_loss": hamming_loss(present, predicted),
    }
    for name, value in expected.items():
        one = found[name, None]
        assert one.value == pytest.approx(value, abs=1e-9)
        assert one.low < one.value < one.high and one.n == 300


def test_an_order_gets_the_figures_that_scikit_learn_gives(drawn, figures):
    present, scores = drawn
    found = by_name(figures.ranked_scores(figures.rank(scores), {}))
    area = roc_auc_score(present, scores, average=None)
    precision = average_precision_score(present, scores, average=None)
    for number, key in enumerate("abcd"):
        assert found["auroc", key].value == pytest.approx(area[number], abs=1e-9)
        assert found["average_precision", key].value == pytest.approx(precision[number], abs=1e-9)
    assert found["macro_auroc", None].value == pytest.approx(area.mean(), abs=1e-9)
    assert found["mean_average_precision", None].value == pytest.approx(precision.mean(), abs=1e-9)
    assert all(one.low < one.value < one.high for one in found.values())


def test_f1_per_class_equals_scikit_learns_in_every_dimension(drawn):
    present, scores = drawn
    predicted = scores > 0.5
    sums = multilabel.counts(predicted, present).reshape(3, 100, 4, 3).sum(axis=1)
    for part in range(3):
        rows = slice(100 * part, 100 * part + 100)
        expected = f1_score(present[rows], predicted[rows], average=None)
        assert multilabel.f1_per_class(sums)[part] == pytest.approx(expected, abs=1e-9)


def test_a_class_that_is_neither_there_nor_said_does_not_count():
    sums = np.array([[2.0, 1, 1], [0, 0, 0]])
    assert np.isnan(multilabel.f1_per_class(sums)[1])
    assert multilabel.macro_f1(sums) == multilabel.f1_per_class(sums)[0]


def test_thresholds_have_the_highest_f1_of_all(drawn):
    present, scores = drawn
    thresholds = multilabel.f1_thresholds(scores[:80], present[:80])
    for column, truth, threshold in zip(scores.T, present.T, thresholds, strict=True):
        best = max(f1_score(truth[:80], column[:80] >= value) for value in column[:80])
        assert f1_score(truth[:80], column[:80] >= threshold) == pytest.approx(best, abs=1e-9)


def test_equal_scores_are_decided_alike():
    scores, present = np.array([[0.5], [0.5], [0.1]]), np.array([[True], [False], [False]])
    assert multilabel.f1_thresholds(scores, present).tolist() == [0.3]


def test_a_class_that_is_never_there_is_never_said():
    thresholds = multilabel.f1_thresholds(np.zeros((3, 1)), np.zeros((3, 1), bool))
    assert thresholds.tolist() == [np.inf]


def test_thresholds_of_a_half_come_from_the_other(drawn):
    present, _ = drawn
    present = present[:, :1].copy()
    groups = np.repeat([0, 1], 150)
    figures = MultiLabelFigures(present, groups, ["a"], Settings(), {})
    scores = present + np.where(groups == 0, 0.0, 10.0)[:, None]
    decided = figures.cross_decided(scores)
    # What is high in the one group is low in the other: all of it is said to be there, or nothing.
    assert not decided[groups == 0].any() and decided[groups == 1].all()


def test_one_group_gives_no_decisions():
    figures = MultiLabelFigures(np.ones((4, 1), bool), np.zeros(4, int), ["a"], Settings(), {})
    assert figures.cross_decided(np.ones((4, 1))) is None


def test_chance_is_what_random_orders_reach_on_average():
    rng = np.random.default_rng(0)
    present = np.zeros((20, 2), bool)
    present[:2, 0] = present[:9, 1] = True
    figures = MultiLabelFigures(present, np.arange(20), ["rare", "common"], Settings(), {})
    found = by_name(figures.chance({}))
    assert found["macro_auroc", None].value == found["auroc", "rare"].value == 0.5
    expected = {
        name: np.mean([average_precision_score(truth, rng.random(20)) for _ in range(600)])
        for name, truth in zip(("rare", "common"), present.T, strict=True)
    }
    for name, value in expected.items():  # 0.1 and 0.45 of the pictures show them
        assert found["average_precision", name].value == pytest.approx(value, abs=0.02)
    mean = found["mean_average_precision", None].value
    assert mean == pytest.approx(np.mean(list(expected.values())), abs=0.02)
