"""The maths of calibration against scikit-learn, scipy and data whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import brier_score_loss, log_loss

from pathclip.evaluate.measures import calibration
from pathclip.runtime.calibration import conformal_scores, softmax


def drawn(n, scale, seed=0, classes=4, per_group=1):
    """Similarities, and classes drawn from the softmax of them at a scale: those are calibrated there."""
    rng = np.random.default_rng(seed)
    similarity = rng.normal(0.1, 0.05, (n, classes))
    shares = softmax(similarity, scale)
    truth = (shares.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, classes - 1)
    return similarity, truth, np.arange(n) // per_group


def test_the_fitted_scale_is_the_one_the_classes_were_drawn_with():
    similarity, truth, _ = drawn(20_000, scale=30)
    scale, at_bound = calibration.fit_logit_scale(similarity, truth)
    assert scale == pytest.approx(30, rel=0.03) and not at_bound


def test_the_fitted_scale_has_the_least_likelihood_loss_that_scipy_finds():
    similarity, truth, _ = drawn(500, scale=12, seed=3)
    found = minimize_scalar(
        lambda scale: log_loss(truth, softmax(similarity, scale)),
        bounds=(1, 100),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert calibration.fit_logit_scale(similarity, truth)[0] == pytest.approx(found.x, rel=1e-5)


@pytest.mark.parametrize(
    ("truth", "expected"),
    [([0, 1], calibration.SCALES[1]), ([1, 0], calibration.SCALES[0])],
    ids=["always right", "always wrong"],
)
def test_answers_that_have_no_best_scale_get_the_bound(truth, expected):
    similarity = np.array([[0.3, 0.1], [0.1, 0.3]])
    assert calibration.fit_logit_scale(similarity, np.array(truth)) == (expected, True)


def test_similarities_that_are_all_the_same_get_the_lower_bound():
    found = calibration.fit_logit_scale(np.full((5, 3), 0.2), np.array([0, 1, 2, 0, 0]))
    assert found == (calibration.SCALES[0], True)


@pytest.mark.parametrize("classes", [2, 4])
def test_brier_and_likelihood_equal_scikit_learns(classes):
    similarity, truth, _ = drawn(300, 20, classes=classes)
    shares = softmax(similarity, 11.0)
    expected = brier_score_loss(truth, shares, labels=range(classes), scale_by_half=False)
    assert calibration.brier(shares, truth).mean() == pytest.approx(expected, abs=1e-9)
    loss = calibration.negative_log_likelihood(similarity, truth, 11.0).mean()
    assert loss == pytest.approx(log_loss(truth, shares, labels=range(classes)), abs=1e-9)


def test_a_probability_too_small_for_a_number_has_a_likelihood():
    loss = calibration.negative_log_likelihood(np.array([[1.0, -1.0]]), np.array([1]), 1e4)
    assert loss.tolist() == [2e4]


def ece_by_hand(shares, truth, bins):
    confidence, right = shares.max(axis=1), shares.argmax(axis=1) == truth
    total = 0.0
    for number in range(bins):
        inside = (confidence > number / bins) & (confidence <= (number + 1) / bins)
        if inside.any():
            total += inside.sum() * abs(confidence[inside].mean() - right[inside].mean())
    return total / len(truth)


def test_the_calibration_error_is_the_gap_per_bin_and_a_sum_over_groups():
    similarity, truth, groups = drawn(600, 20, per_group=7)
    shares = softmax(similarity, 60.0)
    sums = calibration.reliability_sums(shares, truth, groups, 15)
    assert sums.shape == (86, 15, 3)
    assert calibration.calibration_error(sums.sum(axis=0)) == pytest.approx(ece_by_hand(shares, truth, 15))


def test_a_confidence_on_a_border_belongs_to_the_bin_below():
    shares = np.array([[0.6, 0.4], [1.0, 0.0]])
    sums = calibration.reliability_sums(shares, np.array([0, 0]), np.array([0, 0]), 5)
    assert sums[0, :, 0].tolist() == [0, 0, 1, 0, 1]


def test_adaptive_bins_hold_as_many_pictures_each():
    similarity, truth, groups = drawn(150, 20)
    sums = calibration.reliability_sums(softmax(similarity, 90.0), truth, groups, 15, equal_mass=True)
    assert sums.sum(axis=0)[:, 0].tolist() == [10] * 15
    confidence = sums.sum(axis=0)[:, 1]
    assert (np.diff(confidence) >= 0).all()


def test_pictures_of_one_confidence_share_a_bin_whatever_order_they_came_in():
    shares = np.tile([0.8, 0.2], (1000, 1))
    truth = np.repeat([0, 1], [800, 200])  # 80 % right, as sure as that
    for order in (np.arange(1000), np.random.default_rng(0).permutation(1000)):
        sums = calibration.reliability_sums(shares, truth[order], np.arange(1000), 15, equal_mass=True)
        assert calibration.calibration_error(sums.sum(axis=0)) == pytest.approx(0, abs=1e-9)


def test_fitting_brings_the_error_of_an_overconfident_model_down():
    similarity, truth, groups = drawn(4000, 20)

    def error(scale):
        sums = calibration.reliability_sums(softmax(similarity, scale), truth, groups)
        return calibration.calibration_error(sums.sum(axis=0))

    fitted = calibration.fit(similarity, truth, groups)
    assert error(100.0) > 0.2 > 0.03 > error(fitted.logit_scale)


def test_the_bound_of_single_pictures_is_the_order_statistic_of_split_conformal():
    rng = np.random.default_rng(0)
    for n in (9, 10, 57, 200):
        values = rng.normal(size=n)
        rank = math.ceil((n + 1) * 0.9)
        expected = np.sort(values)[rank - 1] if rank <= n else math.inf
        assert calibration.group_quantile(values, np.arange(n), 0.9) == expected


def test_a_large_group_weighs_no_more_than_a_small_one():
    values = np.concatenate([np.zeros(1000), np.arange(1, 20)])
    groups = np.concatenate([np.zeros(1000, int), np.arange(1, 20)])
    assert calibration.group_quantile(values, groups, 0.9) == 18


@pytest.mark.parametrize("method", ["lac", "aps"])
def test_sets_cover_what_they_promise_of_new_groups(method):
    """Groups share their strangeness: one score per picture would be sure of far too much."""
    rng = np.random.default_rng(0)

    def world(count):
        seed = int(rng.integers(1 << 30))
        similarity, _, groups = drawn(10 * count, 0, seed, per_group=10)
        truth = rng.integers(0, 4, count).repeat(10)
        similarity[np.arange(len(truth)), truth] += rng.normal(0.1, 0.08, count).repeat(10)
        return similarity, truth, groups

    covered, naive = [], []
    for _ in range(150):
        fitted = calibration.fit(*world(20), method=method, coverage=0.8)
        similarity, truth, _ = world(40)
        scores = conformal_scores(softmax(similarity, fitted.logit_scale), method)
        own = scores[np.arange(len(truth)), truth]
        covered.append((own <= fitted.conformal_threshold).mean())
        rows, known, _ = world(20)
        strange = conformal_scores(softmax(rows, fitted.logit_scale), method)[np.arange(200), known]
        naive.append((own <= calibration.group_quantile(strange, np.arange(200), 0.8)).mean())
    assert np.mean(covered) > 0.8 - 0.01
    assert np.mean(covered) > np.mean(naive)


def test_too_few_groups_reject_nothing_and_rule_nothing_out():
    similarity, truth, _ = drawn(30, 20)
    fitted = calibration.fit(similarity, truth, np.arange(30) % 3)
    assert (fitted.conformal_threshold, fitted.none_threshold) == (1.0, -1.0)


def test_the_none_threshold_lets_the_share_of_known_pictures_pass():
    similarity, truth, groups = drawn(1000, 20)
    fitted = calibration.fit(similarity, truth, groups, known_pass=0.95)
    assert (similarity.max(axis=1) >= fitted.none_threshold).mean() == pytest.approx(0.95, abs=0.002)


def test_halves_keep_groups_whole_and_every_class_in_both():
    groups = np.arange(400) // 4
    truth = np.random.default_rng(0).integers(0, 5, 100)[groups]
    half = calibration.halves(truth, groups, seed=0)
    for group in range(100):
        assert len(set(half[groups == group])) == 1
    for number in range(5):
        share = half[truth == number].mean()
        assert 0.4 < share < 0.6


def test_one_group_has_no_halves():
    assert calibration.halves(np.array([0, 1]), np.array([0, 0]), 0) is None
