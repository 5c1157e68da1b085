from __future__ import annotations

import numpy as np
import pytest

from pathclip.evaluate.image_text import retrieval, retrieval_chance, retrieval_pools
from pathclip.runtime.encoder import normalise

N = 40


@pytest.fixture
def texts():
    return [f"text {number // 2 % 9}" for number in range(N)]


@pytest.fixture
def groups():
    return np.arange(N) // 3


def random_sides(rng, n=N):
    return [normalise(rng.normal(size=(n, 16))) for _ in range(2)]


@pytest.mark.parametrize("definition", retrieval.DEFINITIONS)
def test_chance_is_what_random_vectors_reach(definition, texts, groups):
    relevant = retrieval.relevance(definition, texts, groups)
    rng = np.random.default_rng(0)
    found = [retrieval.places(*random_sides(rng), [relevant])[0] for _ in range(300)]
    ranks = np.stack([one.rank for one in found])
    for k in (1, 5, 10):
        assert (ranks <= k).mean() == pytest.approx(retrieval_chance.chance_recall(k, relevant), abs=0.015)
    precision = np.mean([one.average_precision for one in found])
    assert precision == pytest.approx(retrieval_chance.chance_average_precision(relevant), rel=0.02)
    assert ranks.mean() == pytest.approx(np.mean((N + 1) / (relevant.positives() + 1)), rel=0.03)
    assert abs(np.median(ranks) - retrieval_chance.chance_median_rank(relevant)) <= 1


@pytest.mark.parametrize("definition", retrieval.DEFINITIONS)
@pytest.mark.parametrize("size", [9, 20])
def test_chance_in_pools_is_what_random_vectors_reach_there(definition, size, texts, groups, monkeypatch):
    monkeypatch.setattr(retrieval_pools, "_MOST_SHUFFLES", 3)
    relevant = retrieval.relevance(definition, texts, groups)
    rng = np.random.default_rng(0)
    found = [retrieval_pools.pooled(*random_sides(rng), [relevant], size, seed)[0] for seed in range(40)]
    ranks = np.stack([one.rank for one in found])
    for k in (1, 5):
        expected = retrieval_chance.chance_recall(k, relevant, size)
        assert (ranks <= k).mean() == pytest.approx(expected, abs=0.025)
    precision = np.mean([one.average_precision for one in found])
    assert precision == pytest.approx(retrieval_chance.chance_average_precision(relevant, size), rel=0.05)
    assert abs(np.median(ranks) - retrieval_chance.chance_median_rank(relevant, size)) <= 1


@pytest.mark.parametrize("definition", retrieval.DEFINITIONS)
def test_a_pool_of_all_pairs_has_the_chance_of_the_full_set(definition, texts, groups):
    relevant = retrieval.relevance(definition, texts, groups)
    for figure in (retrieval_chance.chance_average_precision, retrieval_chance.chance_median_rank):
        assert figure(relevant, N) == figure(relevant)
    assert retrieval_chance.chance_missed(relevant)[[0, N]].tolist() == [1, 0]


def test_the_average_precision_by_chance_is_one_where_every_item_counts():
    relevant = retrieval.relevance("same_text_or_group", ["one"] * N, np.arange(N))
    assert retrieval_chance.chance_average_precision(relevant) == pytest.approx(1)


@pytest.mark.parametrize(
    ("sizes", "expected"), [([10] * 16, 11), ([1] * 160, 80), ([2] * 80, 47), ([100] + [1] * 60, 2)]
)
def test_the_median_rank_by_chance_is_that_of_random_orders(sizes, expected):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    relevant = retrieval.relevance("same_text_or_group", [str(n) for n in range(160)], groups)
    assert retrieval_chance.chance_median_rank(relevant) == expected
    rng = np.random.default_rng(0)
    first = [1 + np.argmax(groups[rng.permutation(160)] == group) for _ in range(40) for group in groups]
    assert np.median(first) == pytest.approx(expected, rel=0.04)


def test_chance_is_exact_in_a_large_set():
    relevant = retrieval.relevance("exact_pair", [str(n) for n in range(50_000)], np.arange(50_000))
    assert retrieval_chance.chance_median_rank(relevant) == 25_000
    assert retrieval_chance.chance_median_rank(relevant, 1000) == 500
    assert retrieval_chance.chance_recall(10, relevant) == pytest.approx(10 / 50_000)
    assert retrieval_chance.chance_recall(10, relevant, 1000) == pytest.approx(10 / 1000)
