from __future__ import annotations

import numpy as np
import pytest

from pathclip.errors import DataError
from pathclip.evaluate import stats
from pathclip.evaluate.image_text import retrieval
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


def skewed(n):
    """Texts of which one belongs to half of all pairs, and the others to one to four."""
    return ["fat tissue" if number % 2 else f"text {number // 8}" for number in range(n)]


def naive_order(query, items):
    return sorted(range(len(items)), key=lambda number: (-float(query @ items[number]), number))


def naive_places(query, items, counts):
    """Rank and average precision as their definitions say, one item after the other."""
    hits, shares, first = 0, [], 0
    for place, number in enumerate(naive_order(query, items), 1):
        if number in counts:
            hits += 1
            first = first or place
            shares.append(hits / place)
    return first, sum(shares) / len(counts)


def counting(definition, number, texts, groups):
    if definition == "exact_pair":
        return {number}
    same = (texts[n] == texts[number] or groups[n] == groups[number] for n in range(len(texts)))
    return {n for n, counts in enumerate(same) if counts}


@pytest.mark.parametrize("definition", retrieval.DEFINITIONS)
@pytest.mark.parametrize(("chunk", "block"), [(1, 1), (5, 7), (4096, 2048)])
def test_places_and_recall_equal_a_plain_loop(definition, chunk, block, vectors, texts, groups):
    queries, items = vectors
    relevant = retrieval.relevance(definition, texts, groups)
    counts = [counting(definition, n, texts, groups) for n in range(N)]
    expected = [naive_places(queries[n], items, counts[n]) for n in range(N)]
    found = retrieval.places(queries, items, [relevant], chunk, block)[0]
    assert found.rank.tolist() == [rank for rank, _ in expected]
    assert found.average_precision == pytest.approx([precision for _, precision in expected])
    for k in (1, 5, 10):
        recall = np.mean([rank <= k for rank, _ in expected])
        assert retrieval.recall_at(k, found.rank).mean() == pytest.approx(recall)


@pytest.mark.parametrize(("chunk", "block"), [(3, 17), (4096, 2048)])
def test_texts_that_half_of_the_pairs_share_are_counted_right(chunk, block):
    rng, n = np.random.default_rng(1), 120
    queries, items = (normalise(rng.normal(size=(n, 6))) for _ in range(2))
    groups = np.arange(n) // 3
    relevant = retrieval.relevance("same_text_or_group", skewed(n), groups)
    counts = [counting("same_text_or_group", number, skewed(n), groups) for number in range(n)]
    assert {len(one) > retrieval._FEW for one in counts} == {True, False}
    expected = [naive_places(queries[number], items, counts[number]) for number in range(n)]
    found = retrieval.places(queries, items, [relevant], chunk, block)[0]
    assert found.rank.tolist() == [rank for rank, _ in expected]
    assert found.average_precision == pytest.approx([precision for _, precision in expected])


def test_rows_of_queries_with_many_relevant_items_are_held_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr(retrieval, "_KEPT", 4 * 120)
    positives = [np.ones(120, np.int64), np.where(np.arange(120) % 3, 40, 1)]
    chunks = list(retrieval._chunks(positives, 120, 120, 50))
    assert [start for start, _ in chunks[1:]] == [stop for _, stop in chunks[:-1]]
    assert chunks[0][0] == 0 and chunks[-1][1] == 120
    assert max((positives[1][start:stop] > retrieval._FEW).sum() for start, stop in chunks) == 4


def test_several_definitions_at_once_give_what_each_gives_alone(vectors, texts, groups):
    relevant = [retrieval.relevance(one, texts, groups) for one in retrieval.DEFINITIONS]
    together = retrieval.places(*vectors, relevant)
    for one, found in zip(relevant, together, strict=True):
        alone = retrieval.places(*vectors, [one])[0]
        assert alone.rank.tolist() == found.rank.tolist()
        assert alone.average_precision.tolist() == found.average_precision.tolist()


def test_a_part_of_the_queries_is_looked_for_among_all_items(vectors, texts, groups):
    queries, items = vectors
    relevant = [retrieval.relevance("same_text_or_group", texts, groups)]
    part = retrieval.places(queries[:10], items, relevant)[0]
    assert part.rank.tolist() == retrieval.places(queries, items, relevant)[0].rank[:10].tolist()


def test_average_precision_equals_that_of_scikit_learn(vectors, texts, groups):
    from sklearn.metrics import average_precision_score

    queries, items = (side.astype(np.float64) for side in vectors)
    relevant = retrieval.relevance("same_text_or_group", texts, groups)
    found = retrieval.places(queries, items, [relevant])[0].average_precision
    mask, similarity = relevant.mask(np.arange(N)), queries @ items.T
    assert found == pytest.approx(
        [average_precision_score(mask[n], similarity[n]) for n in range(N)], abs=1e-12
    )


def test_the_looser_definition_never_ranks_worse(vectors, texts, groups):
    exact, loose = (
        retrieval.ranks(*vectors, retrieval.relevance(definition, texts, groups))
        for definition in retrieval.DEFINITIONS
    )
    assert (loose <= exact).all() and (loose < exact).any()


@pytest.mark.parametrize("block", [5, 2048])
def test_a_collapsed_model_scores_chance_and_not_one(block, groups):
    same = normalise(np.ones((N, 4)))
    relevant = retrieval.relevance("exact_pair", [str(n) for n in range(N)], groups)
    rank = retrieval.places(same, same, [relevant], block=block)[0].rank
    assert rank.tolist() == list(range(1, N + 1))
    assert retrieval.recall_at(5, rank).mean() == pytest.approx(5 / N)


@pytest.mark.parametrize("block", [7, 2048])
def test_equals_keep_the_order_of_the_data_where_many_items_count(block):
    rng, n = np.random.default_rng(0), 400
    items = np.eye(3, dtype=np.float32)[rng.integers(0, 3, n)]
    queries = np.tile(normalise(np.array([[3, 2, 1]])), (n, 1))
    relevant = retrieval.relevance("same_text_or_group", skewed(n), np.arange(n))
    counts = [counting("same_text_or_group", number, skewed(n), np.arange(n)) for number in range(n)]
    expected = [naive_places(queries[0], items, one)[1] for one in counts]
    found = retrieval.places(queries, items, [relevant], block=block)[0]
    assert found.average_precision == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("block", [1, 3, 10, 64, 2048])
def test_items_that_occur_twice_keep_their_order_however_blocks_are_cut(block):
    rng = np.random.default_rng(0)
    items = normalise(rng.normal(size=(40, 512)))[np.arange(200) % 40]
    queries = normalise(items + 0.02 * rng.normal(size=items.shape))
    relevant = [retrieval.relevance("exact_pair", [str(n) for n in range(200)], np.arange(200))]
    # The five copies of an item come first, in the order of the data.
    rank = retrieval.places(queries, items, relevant, chunk=7, block=block)[0].rank
    assert rank.tolist() == [1 + n // 40 for n in range(200)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_embeddings_in_a_file_are_read_in_blocks(dtype, tmp_path, vectors, texts, groups):
    files = []
    for number, side in enumerate(vectors):
        np.save(tmp_path / f"{number}.npy", side.astype(dtype))
        files.append(np.load(tmp_path / f"{number}.npy", mmap_mode="r", allow_pickle=False))
    relevant = [retrieval.relevance(one, texts, groups) for one in retrieval.DEFINITIONS]
    mapped = retrieval.places(*files, relevant, chunk=5, block=7)
    held = retrieval.places(*(side.astype(dtype) for side in vectors), relevant)
    for one, other in zip(mapped, held, strict=True):
        assert one.rank.tolist() == other.rank.tolist()


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "is not a number"), (np.inf, "is not a number"), (3, "has the length 3")],
)
@pytest.mark.parametrize("side", [0, 1])
def test_a_row_that_is_no_unit_vector_is_named(value, message, side, vectors, texts, groups):
    vectors[side][5, 2] = value
    with pytest.raises(DataError, match=f"row 5 of 37 {message}"):
        retrieval.ranks(*vectors, retrieval.relevance("exact_pair", texts, groups))


def test_positives_are_counted_once_where_text_and_group_agree(texts, groups):
    relevant = retrieval.relevance("same_text_or_group", texts, groups)
    expected = [len(counting("same_text_or_group", n, texts, groups)) for n in range(N)]
    assert relevant.positives().tolist() == expected


def test_texts_that_differ_in_case_and_spacing_are_one_text():
    relevant = retrieval.relevance("same_text_or_group", ["Fat  tissue", "fat tissue"], np.array([0, 1]))
    assert relevant.mask(np.array([0])).tolist() == [[True, True]]
