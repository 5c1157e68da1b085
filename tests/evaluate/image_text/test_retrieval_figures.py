from __future__ import annotations

import numpy as np
import pytest

from pathclip.evaluate import stats
from pathclip.evaluate.image_text.retrieval_figures import median_interval
from pathclip.evaluate.task import Settings

SETTINGS = Settings(resamples=400, seed=3)


@pytest.mark.parametrize("most", [5, 40, 5000])
def test_the_interval_of_the_median_is_that_of_sorting_every_resample(most):
    rng = np.random.default_rng(0)
    rank, groups = rng.integers(1, most + 1, 300), rng.integers(0, 90, 300)
    groups = np.unique(groups, return_inverse=True)[1]
    expected, _ = stats.bootstrap_median(rank, groups, 400, seed=3)
    found = median_interval(rank[:, None], groups, SETTINGS)
    assert found.value == expected.value
    # Of thousands of different ranks 65 are told apart: the ends may move by a small part of the interval.
    slack = 0 if most <= 40 else 0.05 * (expected.high - expected.low)
    assert found.low == pytest.approx(expected.low, abs=slack)
    assert found.high == pytest.approx(expected.high, abs=slack)


def test_the_median_over_several_shuffles_is_that_of_all_ranks():
    rank = np.array([[1, 9], [2, 8], [3, 7]])
    assert median_interval(rank, np.arange(3), SETTINGS).value == 3


def test_ranks_that_are_all_one_have_a_median_without_spread():
    found = median_interval(np.ones((20, 2), np.int32), np.arange(20), SETTINGS)
    assert (found.value, found.low, found.high) == (1, 1, 1)


def test_the_interval_of_a_median_holds_groups_together():
    groups = np.repeat(np.arange(8), 25)
    rank = (100 * np.arange(8) + 1)[groups][:, None]
    together = median_interval(rank, groups, SETTINGS)
    apart = median_interval(rank, np.arange(200), SETTINGS)
    assert together.high - together.low > apart.high - apart.low
