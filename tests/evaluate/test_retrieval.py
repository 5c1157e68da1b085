from __future__ import annotations

import numpy as np
import pytest

from pathclip.evaluate import retrieval, stats
from pathclip.runtime.encoder import normalise

N = 37


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    items = normalise(rng.normal(size=(N, 8)))
    return normalise(items + 0.6 * rng.normal(size=(N, 8))), items


@pytest.fixture
def texts():
    return [f"text {number // 2 % 9}" for number in range(N)]


@pytest.fixture
def groups():
    return stats.group_index(["" if number % 5 == 0 else f"g{number // 3}" for number in range(N)])


def naive_rank(query, items, counts):
    order = sorted(range(len(items)), key=lambda number: (-float(query @ items[number]), number))
    return 1 + next(place for place, number in enumerate(order) if number in counts)


def counting(definition, number, texts, groups):
    if definition == "exact_pair":
        return {number}
    return {n for n in range(N) if texts[n] == texts[number] or groups[n] == groups[number]}


@pytest.mark.parametrize("definition", retrieval.DEFINITIONS)
@pytest.mark.parametrize("chunk", [1, 5, None])
def test_ranks_and_recall_equal_a_plain_loop(definition, chunk, vectors, texts, groups):
    queries, items = vectors
    relevant = retrieval.relevance(definition, texts, groups)
    expected = [naive_rank(queries[n], items, counting(definition, n, texts, groups)) for n in range(N)]
    found = retrieval.ranks(queries, items, relevant, chunk)
    assert found.tolist() == expected
    for k in (1, 5, 10):
        assert retrieval.recall_at(k, found).mean() == pytest.approx(np.mean([r <= k for r in expected]))


def test_the_looser_definition_never_ranks_worse(vectors, texts, groups):
    exact, loose = (
        retrieval.ranks(*vectors, retrieval.relevance(definition, texts, groups))
        for definition in retrieval.DEFINITIONS
    )
    assert (loose <= exact).all() and (loose < exact).any()


def test_a_collapsed_model_scores_chance_and_not_one(groups):
    same = normalise(np.ones((N, 4)))
    rank = retrieval.ranks(same, same, retrieval.relevance("exact_pair", [str(n) for n in range(N)], groups))
    assert retrieval.recall_at(5, rank).mean() == pytest.approx(5 / N)


@pytest.mark.parametrize("definition", retrieval.DEFINITIONS)
def test_chance_is_what_random_vectors_reach(definition, texts, groups):
    relevant = retrieval.relevance(definition, texts, groups)
    rng = np.random.default_rng(0)
    ranks = np.stack(
        [
            retrieval.ranks(
                normalise(rng.normal(size=(N, 16))), normalise(rng.normal(size=(N, 16))), relevant
            )
            for _ in range(200)
        ]
    )
    for k in (1, 5, 10):
        assert (ranks <= k).mean() == pytest.approx(retrieval.chance_recall(k, relevant), abs=0.015)
    positives = retrieval.positives_per_query(relevant)
    assert ranks.mean() == pytest.approx(np.mean((N + 1) / (positives + 1)), rel=0.03)
    assert abs(np.median(ranks) - retrieval.chance_median_rank(relevant)) <= 1


@pytest.mark.parametrize(
    ("sizes", "expected"), [([10] * 16, 11), ([1] * 160, 80), ([2] * 80, 47), ([100] + [1] * 60, 2)]
)
def test_the_median_rank_by_chance_is_that_of_random_orders(sizes, expected):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    relevant = retrieval.relevance("same_text_or_group", [str(n) for n in range(160)], groups)
    assert retrieval.chance_median_rank(relevant) == expected
    rng = np.random.default_rng(0)
    first = [1 + np.argmax(groups[rng.permutation(160)] == group) for _ in range(60) for group in groups]
    assert np.median(first) == pytest.approx(expected, rel=0.04)


def test_the_median_rank_by_chance_is_exact_in_a_large_pool():
    relevant = retrieval.relevance("exact_pair", [str(n) for n in range(50_000)], np.arange(50_000))
    assert retrieval.chance_median_rank(relevant) == 25_000
    assert retrieval.chance_recall(10, relevant) == pytest.approx(10 / 50_000)


def test_positives_are_counted_once_where_text_and_group_agree(texts, groups):
    relevant = retrieval.relevance("same_text_or_group", texts, groups)
    expected = [len(counting("same_text_or_group", n, texts, groups)) for n in range(N)]
    assert retrieval.positives_per_query(relevant).tolist() == expected


def test_texts_that_differ_in_case_and_spacing_are_one_text():
    relevant = retrieval.relevance("same_text_or_group", ["Fat  tissue", "fat tissue"], np.array([0, 1]))
    assert relevant.mask(0, 1).tolist() == [[True, True]]
