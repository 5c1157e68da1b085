"""Ranking metrics equal scikit-learn's, with and without weights and ties."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from pathclip.evaluate import stats
from pathclip.evaluate.classification import ranking
from pathclip.evaluate.classification.ranking import Ranking


@pytest.fixture(params=[None, 1], ids=["no ties", "ties"])
def scored(request):
    """Scores, truths, and how often each picture counts in three resamples."""
    rng = np.random.default_rng(0)
    positive = rng.random(200) < 0.3
    scores = rng.normal(size=200) + positive
    scores = scores if request.param is None else scores.round(request.param)
    return scores, positive, rng.integers(0, 4, (3, 200)).astype(float)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(ranking.auroc, roc_auc_score), (ranking.average_precision, average_precision_score)],
)
def test_each_metric_equals_scikit_learns_for_any_weights(ours, theirs, scored):
    scores, positive, weights = scored
    ranked = Ranking.of(scores)
    found = ours(ranked, positive, weights[:, ranked.order].T)
    expected = [theirs(positive, scores, sample_weight=row) for row in weights]
    assert found == pytest.approx(expected, abs=1e-9)


def test_a_resample_without_positives_has_no_value():
    ranked = Ranking.of(np.array([0.9, 0.1]))
    positive, weights = np.array([True, False]), np.array([[0.0], [2.0]])
    assert np.isnan(ranking.auroc(ranked, positive, weights))
    assert np.isnan(ranking.average_precision(ranked, positive, weights))


def test_accuracy_at_a_coverage_is_that_of_the_surest_pictures():
    ranked = Ranking.of(np.array([0.6, 0.9, 0.8, 0.7]))
    right = np.array([False, True, True, False])
    found = ranking.accuracy_at(ranked, right, np.ones((4, 1)), np.array([0.25, 0.5, 0.75, 1.0]))
    assert found[0] == pytest.approx([1, 1, 2 / 3, 0.5])


def test_pictures_of_one_confidence_are_kept_in_part_whatever_order_they_came_in():
    for right in ([True, False, True, False], [False, False, True, True]):
        ranked = Ranking.of(np.ones(4))
        found = ranking.accuracy_at(ranked, np.array(right), np.ones((4, 1)), np.array([0.3, 0.9]))
        assert found[0] == pytest.approx([0.5, 0.5])
        assert ranking.area_under_risk(ranked, np.array(right), np.ones((4, 1))) == pytest.approx([0.5])


def test_the_area_under_risk_averages_the_error_of_every_part_kept():
    ranked = Ranking.of(np.array([3, 2, 1]))
    right = np.array([True, False, True])
    found = ranking.area_under_risk(ranked, right, np.ones((3, 1)))
    assert found == pytest.approx([(0 + 1 / 2 + 1 / 3) / 3])


def test_a_weight_of_two_is_the_picture_twice():
    scores, right = np.array([0.9, 0.8, 0.3]), np.array([True, False, True])
    twice = np.array([0, 0, 1, 2])
    ranked, doubled = Ranking.of(scores), Ranking.of(scores[twice])
    parts = np.array([0.4, 0.8])
    assert ranking.accuracy_at(ranked, right, np.array([[2.0], [1], [1]]), parts) == pytest.approx(
        ranking.accuracy_at(doubled, right[twice], np.ones((4, 1)), parts)
    )


def test_whole_groups_are_drawn_the_same_for_every_ranking():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 5)
    positive, scores = rng.random(100) < 0.5, rng.normal(size=100)

    def resampled(some):
        ranked = Ranking.of(some)
        return ranking.resampled(
            ranked, groups, lambda weights: ranking.auroc(ranked, positive, weights), 300, seed=1
        )

    first, second = resampled(scores), resampled(scores * 2)
    assert np.array_equal(first.drawn, second.drawn) and len(first.drawn) == 300
    rows = next(stats.weights(20, 300, 1))[:3, groups]
    expected = [roc_auc_score(positive, scores, sample_weight=row) for row in rows]
    assert first.drawn[:3] == pytest.approx(expected, abs=1e-9)
    paired = ranking.difference(first, second).interval()
    assert (paired.value, paired.low, paired.high) == (0, 0, 0)


def test_many_pictures_get_fewer_resamples():
    n = 30_000
    ranked = Ranking.of(np.arange(n))
    found = ranking.resampled(ranked, np.arange(n) % 50, lambda weights: weights[0], 10_000, 0)
    assert len(found.drawn) == 500


def test_the_mean_leaves_out_what_is_not_defined():
    parts = [
        stats.Resampled(np.array(0.5), np.array([0.4, np.nan, np.nan])),
        stats.Resampled(np.array(1.0), np.array([0.6, 0.7, np.nan])),
    ]
    found = ranking.mean(parts)
    assert float(found.value) == 0.75
    assert found.drawn[:2] == pytest.approx([0.5, 0.7]) and np.isnan(found.drawn[2])


def test_of_a_single_group_there_is_no_interval():
    places = ranking.Ranking.of(np.array([3, 2, 1]))
    positive = np.array([True, False, True])
    found = ranking.resampled(
        places, np.zeros(3, np.int64), lambda weights: ranking.auroc(places, positive, weights), 50, 0
    ).interval()
    assert found.value == 0.5 and np.isnan(found.low) and np.isnan(found.high)
