from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from pathclip.evaluate.image_text import retrieval_figures
from pathclip.evaluate.image_text.retrieval import Relevance
from pathclip.evaluate.image_text.retrieval_figures import Figures, median_interval
from pathclip.evaluate.image_text.retrieval_pools import Pooled
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Settings
from tests.evaluate.bootstraps import bootstrap_median
from tests.evaluate.encoders import ColourEncoder

SETTINGS = Settings(resamples=400, seed=3)


@pytest.mark.parametrize("most", [5, 40, 5000])
def test_the_interval_of_the_median_is_that_of_sorting_every_resample(most):
    rng = np.random.default_rng(0)
    rank, groups = rng.integers(1, most + 1, 300), rng.integers(0, 90, 300)
    groups = np.unique(groups, return_inverse=True)[1]
    expected, _ = bootstrap_median(rank, groups, 400, seed=3)
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


def found_in(n, size=None):
    rng = np.random.default_rng(0)
    return Pooled(size or n, rng.integers(1, (size or n) + 1, (n, 1)).astype(np.int32), rng.random(n))


def peak_of(call):
    """MB that a call takes on top at most."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def test_the_median_of_a_million_pairs_without_groups_takes_little_memory():
    rank = found_in(1_000_000).rank
    assert peak_of(lambda: median_interval(rank, np.arange(len(rank)), Settings(resamples=4))) < 600


def test_scores_of_a_million_pairs_without_groups_take_little_memory():
    n = 1_000_000
    subjects = [Subject("model", ColourEncoder()), Subject("untrained", ColourEncoder())]
    pools = [found_in(n), found_in(n, 100), found_in(n, 1000)]
    figures = Figures(np.arange(n), (1, 5, 10, 50), Settings(resamples=4), {"direction": "text_to_image"})
    found, leaked = {one.key: pools for one in subjects}, {one.key: {} for one in subjects}
    assert peak_of(lambda: figures.measured(subjects, found, leaked)) < 600


def test_figures_resampled_a_few_at_a_time_are_those_of_all_at_once(monkeypatch):
    n = 60
    subjects = [Subject("model", ColourEncoder()), Subject("untrained", ColourEncoder())]
    found = {one.key: [found_in(n), found_in(n, 12)] for one in subjects}
    figures = Figures(np.arange(n) // 2, (1, 5), SETTINGS, {"direction": "text_to_image"})
    leaked = {one.key: {} for one in subjects}
    at_once = figures.measured(subjects, found, leaked)
    monkeypatch.setattr(retrieval_figures, "_SUMS", 3 * 30)
    assert [one.name for one in figures.measured(subjects, found, leaked)] == [one.name for one in at_once]
    for one, other in zip(figures.measured(subjects, found, leaked), at_once, strict=True):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


def test_chance_is_worked_out_once_for_each_size_of_pool(monkeypatch):
    counted, positives = [], Relevance.positives
    monkeypatch.setattr(Relevance, "positives", lambda one: counted.append(1) or positives(one))
    numbers = np.arange(40) // 2
    figures = Figures(numbers, (1, 5, 10, 20), SETTINGS, {"direction": "text_to_image"})
    figures.chance(Relevance("same_text_or_group", numbers, numbers), (40, 12))
    assert len(counted) == 4  # for what is missed and for mAP, of each size
