from __future__ import annotations

import numpy as np
import pytest

from pathclip.evaluate import stats


def test_groups_are_numbered_in_order_and_unknown_ones_stand_alone():
    assert stats.group_index(["x", "", "y", "x", ""]).tolist() == [0, 1, 2, 0, 3]


def test_every_resample_draws_as_many_groups_as_there_are():
    drawn = np.concatenate(list(stats.weights(7, 100, seed=0)))
    assert drawn.shape == (100, 7)
    assert (drawn.sum(axis=1) == 7).all()


def test_pieces_do_not_change_what_is_drawn(monkeypatch):
    whole = np.concatenate(list(stats.weights(10, 50, seed=3)))
    monkeypatch.setattr(stats, "_AT_ONCE", 70)
    pieces = list(stats.weights(10, 50, seed=3))
    assert len(pieces) == 8
    assert np.array_equal(np.concatenate(pieces), whole)


def test_the_mean_equals_a_bootstrap_written_as_a_loop():
    rng = np.random.default_rng(0)
    values, index = rng.random(40), np.repeat(np.arange(10), 4)
    found = stats.bootstrap_mean(values, index, 2000, seed=1)
    means = []
    for row in np.concatenate(list(stats.weights(10, 2000, seed=1))):
        kept = np.concatenate([np.tile(values[index == g], int(times)) for g, times in enumerate(row)])
        means.append(kept.mean())
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]))


def test_the_median_equals_a_bootstrap_written_as_a_loop():
    rng = np.random.default_rng(0)
    values, index = rng.integers(1, 50, 31), np.arange(31) // 3
    found, resamples = stats.bootstrap_median(values, index, 300, seed=1)
    medians = []
    for row in np.concatenate(list(stats.weights(11, 300, seed=1))):
        kept = np.sort(np.concatenate([np.tile(values[index == g], int(t)) for g, t in enumerate(row)]))
        medians.append(kept[(len(kept) - 1) // 2])
    assert resamples == 300
    assert found.value == np.median(values)
    assert (found.low, found.high) == pytest.approx(np.quantile(medians, [0.025, 0.975]))


def test_about_95_of_100_intervals_hold_the_truth_although_images_of_a_group_agree():
    rng = np.random.default_rng(0)
    held_by_groups = held_by_images = 0
    for trial in range(300):
        # 60 groups of 5 images that share most of their luck: images are no independent draws.
        values = rng.normal(0.5, 1, 60).repeat(5) + rng.normal(0, 0.3, 300)
        by_groups = stats.bootstrap_mean(values, np.repeat(np.arange(60), 5), 400, trial)
        by_images = stats.bootstrap_mean(values, np.arange(300), 400, trial)
        held_by_groups += by_groups.low <= 0.5 <= by_groups.high
        held_by_images += by_images.low <= 0.5 <= by_images.high
    assert 0.90 <= held_by_groups / 300 <= 0.99
    assert held_by_images / 300 < 0.75  # what the interval over images would have claimed


def test_a_paired_difference_is_narrower_than_the_intervals_it_compares():
    rng = np.random.default_rng(0)
    hard = rng.random(400)
    first, second = (hard > 0.30).astype(float), (hard > 0.28).astype(float)
    index = np.arange(400)
    difference = stats.bootstrap_mean(second - first, index, 2000, 0)
    alone = stats.bootstrap_mean(first, index, 2000, 0)
    assert difference.high - difference.low < 0.5 * (alone.high - alone.low)
    assert difference.low >= 0


def test_ten_thousand_resamples_of_ten_thousand_groups_are_drawn_in_bounded_pieces():
    pieces = list(stats.weights(10_000, 1_000, 0))
    assert max(piece.size for piece in pieces) <= 4_000_000
    assert sum(len(piece) for piece in pieces) == 1_000
    assert all((piece.sum(axis=1) == 10_000).all() for piece in pieces)


def test_a_statistic_that_is_never_defined_gives_nan_and_not_a_number_from_nowhere():
    found = stats.bootstrap(np.zeros((4, 2)), lambda sums: sums[..., 0] * np.nan, 10, 0)
    assert np.isnan(found.low) and np.isnan(found.high)
