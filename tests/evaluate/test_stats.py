from __future__ import annotations

import numpy as np
import pytest

from pathclip.evaluate import stats
from tests.evaluate.bootstraps import bootstrap_mean, bootstrap_median


def test_groups_are_numbered_in_order_and_unknown_ones_stand_alone():
    assert stats.group_index(["x", "", "y", "x", ""]).tolist() == [0, 1, 2, 0, 3]


def test_every_resample_draws_as_many_groups_as_there_are():
    drawn = np.concatenate(list(stats.weights(7, 100, seed=0)))
    assert drawn.shape == (100, 7)
    assert (drawn.sum(axis=1) == 7).all()


@pytest.mark.parametrize("kept", [0, 1_000_000])
def test_pieces_do_not_change_what_is_drawn(kept, monkeypatch):
    whole = np.concatenate(list(stats.weights(10, 50, seed=3)))
    monkeypatch.setattr(stats, "_AT_ONCE", 70)
    monkeypatch.setattr(stats, "_KEPT", kept)
    stats._kept.cache_clear()
    pieces = list(stats.weights(10, 50, seed=3))
    assert len(pieces) == 8
    assert np.array_equal(np.concatenate(pieces), whole)


def test_draws_are_made_once_and_are_the_first_of_longer_ones():
    first = next(stats.drawn_counts(30, 200, 5, 200))
    assert np.shares_memory(first, next(stats.drawn_counts(30, 200, 5, 200)))
    assert np.array_equal(next(stats.weights(30, 40, 5)), first[:40])
    assert not np.array_equal(next(stats.weights(30, 40, 6)), first[:40])


def test_draws_beyond_the_room_for_them_are_not_kept(monkeypatch):
    monkeypatch.setattr(stats, "_KEPT", 5_000)
    before = stats._kept.cache_info()
    first, again = (next(stats.drawn_counts(30, 200, 7, 200)) for _ in range(2))
    assert np.array_equal(first, again) and not np.shares_memory(first, again)
    assert stats._kept.cache_info() == before


def test_many_statistics_at_once_are_each_the_one_alone():
    rng = np.random.default_rng(0)
    sums = np.concatenate([rng.integers(0, 9, (40, 3, 1)), np.full((40, 3, 1), 9)], axis=2).astype(float)
    together = stats.bootstrap_many(sums, stats.ratio, 300, 1)
    assert together.value.shape == (3,) and together.drawn.shape == (300, 3)
    for number in range(3):
        assert together.interval(number) == stats.bootstrap(sums[:, number], stats.ratio, 300, 1)
    alone = stats.bootstrap(
        [sums[:, 0], sums[:, 1]], lambda one, other: stats.ratio(one) - stats.ratio(other), 300, 1
    )
    assert together.difference((0,), (1,)) == alone


@pytest.mark.parametrize("value", [1.0, 0.1])
def test_sums_that_float32_cannot_count_are_multiplied_in_float64(value):
    sums = np.array([[2.0**24 if value == 1.0 else 1.0, 1.0], [1.0, 1.0], [value, 1.0]])
    found = stats.bootstrap_many(sums, lambda part: part, 50, 0)
    rows = np.concatenate(list(stats.weights(3, 50, 0)))
    assert np.array_equal(found.drawn, rows @ sums)


def test_the_mean_equals_a_bootstrap_written_as_a_loop():
    rng = np.random.default_rng(0)
    values, index = rng.random(40), np.repeat(np.arange(10), 4)
    found = bootstrap_mean(values, index, 2000, seed=1)
    means = []
    for row in np.concatenate(list(stats.weights(10, 2000, seed=1))):
        kept = np.concatenate([np.tile(values[index == g], int(times)) for g, times in enumerate(row)])
        means.append(kept.mean())
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]))


def test_the_median_equals_a_bootstrap_written_as_a_loop():
    rng = np.random.default_rng(0)
    values, index = rng.integers(1, 50, 31), np.arange(31) // 3
    found, resamples = bootstrap_median(values, index, 300, seed=1)
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
        by_groups = bootstrap_mean(values, np.repeat(np.arange(60), 5), 400, trial)
        by_images = bootstrap_mean(values, np.arange(300), 400, trial)
        held_by_groups += by_groups.low <= 0.5 <= by_groups.high
        held_by_images += by_images.low <= 0.5 <= by_images.high
    assert 0.90 <= held_by_groups / 300 <= 0.99
    assert held_by_images / 300 < 0.75  # what the interval over images would have claimed


def test_a_paired_difference_is_narrower_than_the_intervals_it_compares():
    rng = np.random.default_rng(0)
    hard = rng.random(400)
    first, second = (hard > 0.30).astype(float), (hard > 0.28).astype(float)
    index = np.arange(400)
    difference = bootstrap_mean(second - first, index, 2000, 0)
    alone = bootstrap_mean(first, index, 2000, 0)
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


def right(values):
    """One answer per group, right or wrong, as sums of (right, answers)."""
    return np.stack([np.asarray(values, float), np.ones(len(values))], axis=1)


def test_the_swap_test_gives_the_share_of_all_swaps_that_are_as_extreme():
    first, second = right([1, 1, 1, 1, 1, 0, 1, 0]), right([0, 0, 0, 1, 1, 1, 1, 0])
    # Four groups differ, three of them for the first: of 16 swaps 10 are as far from zero as (3 - 1) / 8.
    found = stats.paired_swap_test(first, second, stats.ratio, 20_000, 0)
    assert found == pytest.approx(10 / 16, abs=0.02)


def test_the_swap_test_is_never_zero_and_follows_its_formula():
    first, second = right(np.ones(60)), right(np.zeros(60))
    assert stats.paired_swap_test(first, second, stats.ratio, 999, 0) == 1 / 1000
    assert stats.paired_swap_test(first, first, stats.ratio, 999, 0) == 1.0


def test_under_no_difference_about_5_of_100_swap_tests_are_below_5_per_cent():
    rng = np.random.default_rng(0)
    low = 0
    for trial in range(400):
        luck = rng.random((2, 60)).repeat(5, axis=1)  # images of a group share it
        index = np.repeat(np.arange(60), 5)
        first, second = (
            stats.group_sums(np.stack([rng.random(300) < one, np.ones(300)], axis=1), index) for one in luck
        )
        low += stats.paired_swap_test(first, second, stats.ratio, 199, trial) <= 0.05
    assert 0.02 <= low / 400 <= 0.09


def test_a_difference_that_is_not_defined_has_no_p_value():
    nothing = np.zeros((4, 2))
    with np.errstate(invalid="ignore"):
        assert np.isnan(stats.paired_swap_test(nothing, nothing, stats.ratio, 10, 0))


def test_holm_multiplies_keeps_the_order_and_leaves_out_what_is_no_number():
    found = stats.holm([0.04, float("nan"), 0.01, 0.03, 0.9])
    assert found[0] == pytest.approx(0.09) and np.isnan(found[1])
    assert found[2:] == pytest.approx([0.04, 0.09, 0.9])
    assert stats.holm([0.6, 0.7]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_of_a_single_group_there_is_no_interval():
    """It would have no width, as if everything were certain."""
    one_group, values = np.zeros(30, np.int64), np.arange(30) % 3 / 2
    found = bootstrap_mean(values, one_group, 50, 0)
    assert found.value == pytest.approx(0.5) and np.isnan(found.low) and np.isnan(found.high)
    median, _ = bootstrap_median(values, one_group, 50, 0)
    assert median.value == 0.5 and np.isnan(median.low) and np.isnan(median.high)
    many = stats.bootstrap_many(np.array([[[3.0, 9.0], [6.0, 9.0]]]), stats.ratio, 50, 0)
    assert np.isnan(many.difference((0,), (1,)).low)
    two_groups = bootstrap_mean(values, np.arange(30) // 29, 50, 0)
    assert two_groups.low < two_groups.high
