from __future__ import annotations

import numpy as np
import pytest

from pathclip.evaluate import stats
from pathclip.evaluate.classification import auroc
from pathclip.runtime.calibration import softmax


@pytest.fixture
def ranked():
    """Classes of 60 pictures in 20 groups, and scores of 4 classes with many ties."""
    rng = np.random.default_rng(0)
    truth = rng.choice(4, 60, p=[0.5, 0.3, 0.15, 0.05])
    scores = np.round(rng.normal(size=(60, 4)) + (truth[:, None] == np.arange(4)), 1)
    return truth, scores, np.arange(60) // 3


def by_pairs(truth, scores, weights):
    """The definition, pair by pair."""
    areas = []
    for number in np.unique(truth):
        own, rest = truth == number, truth != number
        pairs = np.outer(weights[own], weights[rest])
        if not pairs.sum():
            continue
        difference = scores[own, number][:, None] - scores[rest, number]
        areas.append((pairs * ((difference > 0) + 0.5 * (difference == 0))).sum() / pairs.sum())
    return np.mean(areas)


def test_the_area_counts_pairs_and_half_of_the_ties(ranked):
    truth, scores, _ = ranked
    assert auroc.auroc(truth, scores) == pytest.approx(by_pairs(truth, scores, np.ones(60)))


def test_each_resample_is_the_area_of_the_drawn_groups(ranked):
    truth, scores, groups = ranked
    found = auroc.bootstrap_auroc(truth, [scores, -scores], groups, 300, seed=2)
    weights = np.concatenate(list(stats.weights(20, 300, 2)))
    expected = [[by_pairs(truth, one, row[groups]) for one in (scores, -scores)] for row in weights]
    np.testing.assert_allclose(found.drawn, expected, rtol=1e-9)


def test_blocks_of_rows_do_not_change_the_running_totals():
    times = np.random.default_rng(0).integers(0, 5, (300, 3)).astype(np.float32)
    chosen = np.arange(299, 100, -1)
    totals = auroc._running_totals(times, chosen)
    np.testing.assert_array_equal(
        totals[: len(chosen) + 1], np.cumsum(np.r_[times[:1] * 0, times[chosen]], 0)
    )


def test_too_much_work_draws_fewer_resamples_but_the_same_first_ones(ranked, monkeypatch):
    truth, scores, groups = ranked
    whole = auroc.bootstrap_auroc(truth, [scores], groups, 2000, seed=0)
    monkeypatch.setattr(auroc, "_WORK", 1)
    fewer = auroc.bootstrap_auroc(truth, [scores], groups, 2000, seed=0)
    assert len(fewer.drawn) == 500
    np.testing.assert_array_equal(fewer.drawn, whole.drawn[:500])


def test_equal_scores_are_chance_and_one_class_has_no_area():
    truth = np.array([0, 1, 1, 2])
    assert auroc.auroc(truth, np.zeros((4, 3))) == 0.5
    assert np.isnan(auroc.auroc(np.zeros(4, np.int64), np.zeros((4, 1))))


def test_log_odds_order_as_probabilities_and_still_where_those_are_one():
    similarity = np.array([[0.3, 0.1, 0.0], [0.2, 0.25, -0.1], [0.9, 0.1, 0.2]], np.float32)
    shares = softmax(similarity, 10.0)
    np.testing.assert_allclose(auroc.log_odds(similarity, 10.0), np.log(shares / (1 - shares)), rtol=1e-6)
    sure = np.array([[0.9, 0.1], [0.8, 0.1]], np.float32)
    assert (softmax(sure, 100.0)[:, 0] == 1).all()
    first, second = auroc.log_odds(sure, 100.0)[:, 0]
    assert first > second
