import time

import numpy as np
import pytest

from pathclip.curate.near_embeddings import near_embeddings

DIM = 64


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def at_angle(rows: np.ndarray, degrees: float, rng) -> np.ndarray:
    """Directions at an angle from the rows, in any direction."""
    aside = rng.standard_normal(rows.shape)
    aside -= (aside * rows).sum(1, keepdims=True) * rows
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    return np.cos(np.radians(degrees)) * rows + np.sin(np.radians(degrees)) * aside


@pytest.fixture(scope="module")
def directions():
    rng = np.random.default_rng(0)
    return unit(rng.standard_normal((400, DIM))).astype(np.float64)


@pytest.mark.parametrize(("degrees", "least"), [(3, 1.0), (8, 1.0), (12, 0.97)])
def test_most_pairs_within_the_angle_are_found(directions, degrees, least):
    """A cosine of 0.97 is an angle of 14 degrees."""
    copies = at_angle(directions, degrees, np.random.default_rng(1))
    found = near_embeddings(unit(np.concatenate([directions, copies])), 0.97, np.arange(800))
    pairs = set(zip(found.later.tolist(), found.earlier.tolist(), strict=True))
    assert len(pairs & {(n + 400, n) for n in range(400)}) >= least * 400
    assert set(np.abs(found.distance - degrees)) <= {0, 1}


def test_what_is_further_apart_is_not_found(directions):
    copies = at_angle(directions, 16, np.random.default_rng(1))
    found = near_embeddings(unit(np.concatenate([directions, copies])), 0.97, np.arange(800))
    assert len(found) == 0


def test_it_finds_what_comparing_all_pairs_finds_sorted_the_nearest_first():
    rng = np.random.default_rng(2)
    rows = unit(np.repeat(rng.standard_normal((30, DIM)), 5, axis=0) + 0.08 * rng.standard_normal((150, DIM)))
    found = near_embeddings(rows, 0.97, np.arange(150))
    cosines = rows.astype(np.float32) @ rows.astype(np.float32).T
    brute = {(a, b) for a in range(150) for b in range(a) if cosines[a, b] >= 0.97}
    assert len(brute) > 200
    assert {*zip(found.later.tolist(), found.earlier.tolist(), strict=True)} == brute
    order = list(zip(found.later.tolist(), found.distance.tolist(), found.earlier.tolist(), strict=True))
    assert order == sorted(order)


def test_neighbours_of_one_group_are_left_out():
    rows = unit(np.ones((4, DIM)))
    found = near_embeddings(rows, 0.97, np.array([0, 0, 1, 1]))
    assert {*zip(found.later.tolist(), found.earlier.tolist(), strict=True)} == {
        (2, 0),
        (2, 1),
        (3, 0),
        (3, 1),
    }


def test_a_run_repeats(directions):
    rows = unit(np.concatenate([directions, at_angle(directions, 14, np.random.default_rng(3))]))
    one, other = (near_embeddings(rows, 0.97, np.arange(800)) for _ in range(2))
    assert np.array_equal(one.later, other.later) and np.array_equal(one.earlier, other.earlier)


def test_no_pictures_have_no_neighbours():
    assert len(near_embeddings(np.empty((0, DIM), np.float16), 0.97, np.empty(0, np.int64))) == 0


def test_ten_thousand_embeddings_take_seconds():
    rows = unit(np.random.default_rng(4).standard_normal((10_000, DIM)))
    start = time.process_time()
    assert len(near_embeddings(rows, 0.97, np.arange(10_000))) == 0
    assert time.process_time() - start < 15


def test_many_pictures_of_nearly_one_embedding_take_time_in_proportion():
    """A banner that was posted thousands of times, each time encoded anew."""
    count, rng = 2_000, np.random.default_rng(5)
    rows = unit(rng.standard_normal(DIM) + 0.01 * rng.standard_normal((count, DIM)))
    start = time.process_time()
    found = near_embeddings(rows, 0.97, np.arange(count))
    assert time.process_time() - start < 15
    assert {*found.later.tolist()} == set(range(1, count))
