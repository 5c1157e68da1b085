from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import hypergeom

from pathclip.evaluate.image_text import retrieval, retrieval_pools
from pathclip.evaluate.image_text.retrieval_pools import pooled, shuffles
from pathclip.runtime.encoder import normalise

N = 130


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    items = normalise(rng.normal(size=(N, 8)))
    return normalise(items + 0.9 * rng.normal(size=(N, 8))), items


@pytest.fixture
def exact():
    return retrieval.relevance("exact_pair", [str(n) for n in range(N)], np.arange(N))


@pytest.fixture
def loose():
    return retrieval.relevance("same_text_or_group", [str(n // 4) for n in range(N)], np.arange(N) // 6)


@pytest.fixture
def few_shuffles(monkeypatch):
    monkeypatch.setattr(retrieval_pools, "_MOST_SHUFFLES", 5)


@pytest.mark.parametrize("size", [20, 50])
def test_pools_of_exact_pairs_reach_what_the_hypergeometric_distribution_says(size, vectors, exact):
    found = pooled(*vectors, [exact], size, seed=0)[0]
    assert found.rank.shape == (N, 100)
    ahead = retrieval.ranks(*vectors, exact) - 1
    for k in (1, 5, 10):
        expected = hypergeom.cdf(k - 1, N - 1, ahead, size - 1)
        assert retrieval.recall_at(k, found.rank).mean(axis=1) == pytest.approx(expected, abs=0.2)
        assert retrieval.recall_at(k, found.rank).mean() == pytest.approx(expected.mean(), abs=0.01)
    chances = hypergeom.pmf(np.arange(size), N - 1, ahead[:, None], size - 1)
    precision = (chances / np.arange(1, size + 1)).sum(axis=1).mean()
    assert found.average_precision.mean() == pytest.approx(precision, abs=0.01)


def test_a_pool_of_all_pairs_is_the_full_set(vectors, exact, loose):
    full = retrieval.places(*vectors, [exact, loose])
    for one, found in zip(full, pooled(*vectors, [exact, loose], N, seed=0), strict=True):
        assert found.rank.T.tolist() == [one.rank.tolist()]
        assert found.average_precision == pytest.approx(one.average_precision)


def test_every_query_stands_in_one_pool_per_shuffle_where_the_size_does_not_divide(
    vectors, exact, loose, few_shuffles
):
    for found in pooled(*vectors, [exact, loose], 60, seed=0):
        assert found.rank.min() == 1 and found.rank.max() <= 60
        assert (found.average_precision > 0).all() and (found.average_precision <= 1 + 1e-12).all()


def test_other_pairs_of_the_pool_count_under_the_looser_definition(vectors, exact, loose, few_shuffles):
    strict, lenient = pooled(*vectors, [exact, loose], 40, seed=0)
    assert (lenient.rank <= strict.rank).all() and lenient.rank.mean() < strict.rank.mean()


def test_a_collapsed_model_scores_chance_in_pools_too(exact):
    same = normalise(np.ones((N, 4)))
    found = pooled(same, same, [exact], 26, seed=0)[0]
    assert retrieval.recall_at(5, found.rank).mean() == pytest.approx(5 / 26)
    # Of equals the first in the data is first in its pool, and the last is last.
    assert (found.rank[0] == 1).all() and (found.rank[-1] == 26).all()


def test_the_seed_decides_the_pools(vectors, loose, few_shuffles):
    first, again, other = (pooled(*vectors, [loose], 40, seed)[0].rank for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any()


def test_larger_sets_are_shuffled_less_often():
    times = [shuffles(n, 1000) for n in (1000, 2000, 10_000, 1_000_000)]
    assert times == [1, 10, 2, 1]
