import time
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from pathclip.curate import near
from pathclip.curate.images import perceptual_hashes
from pathclip.curate.near import collisions, near_any, near_hashes, within_buckets

from .feed import jpeg, tissue

TURNS = 8


def turned(bits: int, copy: int, rng) -> int:
    """A hash of which some bits differ."""
    return copy ^ sum(1 << int(bit) for bit in rng.choice(64, bits, replace=False))


def planted(count: int, rng) -> np.ndarray:
    """Random hashes, and of half of them a copy that differs in 0 to 13 bits in one of its turns."""
    rows = rng.integers(0, 2**64, (count, TURNS), dtype=np.uint64)
    copies = []
    for n, row in enumerate(rows[: count // 2]):
        copy = rng.integers(0, 2**64, TURNS, dtype=np.uint64)
        copy[n % TURNS] = turned(n % 14, int(row[0]), rng)
        copies.append(copy)
    mixed = np.concatenate([rows, np.array(copies)])
    return mixed[rng.permutation(len(mixed))]


def compared(hashes: np.ndarray, max_distance: int, groups: np.ndarray) -> dict[tuple[int, int], int]:
    """(later, earlier) → the smallest distance over the turns of the later, of all pairs of groups."""
    found = {}
    for later in range(len(hashes)):
        bits = np.bitwise_count(hashes[later][:, None] ^ hashes[:later, 0]).min(axis=0, initial=64)
        for earlier in np.flatnonzero(bits <= max_distance):
            if groups[later] != groups[earlier]:
                found[later, int(earlier)] = int(bits[earlier])
    return found


def as_dict(found: near.Near) -> dict[tuple[int, int], int]:
    rows = zip(found.later.tolist(), found.earlier.tolist(), found.distance.tolist(), strict=True)
    return {(later, earlier): distance for later, earlier, distance in rows}


@pytest.mark.parametrize("max_distance", [0, 3, 6, 11])
@pytest.mark.parametrize("groups_of", [1, 7])
def test_it_finds_exactly_what_comparing_all_pairs_finds(max_distance, groups_of):
    rng = np.random.default_rng(max_distance)
    hashes = planted(600, rng)
    groups = np.arange(len(hashes)) // groups_of
    brute = compared(hashes, max_distance, groups)
    assert len(brute) > 10 * (max_distance + 1)
    assert as_dict(near_hashes(hashes, max_distance, groups)) == brute


@pytest.mark.parametrize("division", [4096, 1 << 20, 1 << 32])
def test_every_division_into_bands_finds_the_same(division, monkeypatch):
    """As many values as would need it are too many for a test: the division is asked for alone."""
    tables = list(near._tables(division, 6))
    monkeypatch.setattr(near, "_tables", lambda count, max_distance: iter(tables))
    hashes = planted(300, np.random.default_rng(1))
    groups = np.arange(len(hashes))
    assert as_dict(near_hashes(hashes, 6, groups)) == compared(hashes, 6, groups)


def test_keys_get_longer_as_there_are_more_values():
    def bits(count):
        return sum(width for _, width in next(near._tables(count, 6)))

    assert bits(100) < bits(100_000) < bits(10_000_000)


def test_a_piece_of_bounded_size_at_a_time_finds_the_same(monkeypatch):
    hashes = planted(200, np.random.default_rng(2))
    groups = np.arange(len(hashes))
    whole = as_dict(near_hashes(hashes, 6, groups))
    monkeypatch.setattr(near, "_AT_A_TIME", 50)
    assert as_dict(near_hashes(hashes, 6, groups)) == whole


@pytest.mark.parametrize("direct", [0, 1 << 25])
def test_collisions_are_all_pairs_of_equal_keys(direct, monkeypatch):
    monkeypatch.setattr(near, "_MOST_DIRECT", direct)
    rng = np.random.default_rng(3)
    asking, known = rng.integers(0, 50, 400), rng.integers(0, 60, 300)
    found = [pair for ours, theirs in collisions(asking, known) for pair in zip(ours, theirs, strict=True)]
    assert len(found) == len(set(found))
    assert set(found) == {(a, b) for a in range(400) for b in range(300) if asking[a] == known[b]}


def test_within_small_buckets_every_row_meets_every_earlier_one():
    keys = np.random.default_rng(8).integers(0, 30, 400)
    found = [pair for later, earlier in within_buckets(keys, 40) for pair in zip(later, earlier, strict=True)]
    assert len(found) == len(set(found))
    assert set(found) == {(a, b) for a in range(400) for b in range(a) if keys[a] == keys[b]}


def test_within_large_buckets_a_row_meets_the_first_ones_and_those_before_it():
    found = {a: set() for a in range(100)}
    for later, earlier in within_buckets(np.zeros(100, np.int64), 3):
        for a, b in zip(later.tolist(), earlier.tolist(), strict=True):
            assert b not in found[a]
            found[a].add(b)
    assert found[0] == set() and found[4] == {0, 1, 2, 3} and found[50] == {0, 1, 2, 47, 48, 49}


def test_the_pairs_are_sorted_the_nearest_first():
    hashes = planted(600, np.random.default_rng(4))
    found = near_hashes(hashes, 11, np.arange(len(hashes)))
    rows = list(zip(found.later.tolist(), found.distance.tolist(), found.earlier.tolist(), strict=True))
    assert rows == sorted(rows)


@pytest.mark.parametrize("turn", range(TURNS))
def test_a_copy_is_found_in_any_turn_of_the_later_picture(turn):
    rng = np.random.default_rng(5)
    hashes = rng.integers(0, 2**64, (100, TURNS), dtype=np.uint64)
    hashes[70, turn] = hashes[30, 0] ^ np.uint64(0b10101)
    assert as_dict(near_hashes(hashes, 3, np.arange(100))) == {(70, 30): 3}
    assert len(near_hashes(hashes, 2, np.arange(100))) == 0


def test_pictures_of_one_group_are_no_near_duplicates_of_each_other():
    hashes = np.zeros((4, TURNS), np.uint64)
    assert len(near_hashes(hashes, 6, np.zeros(4, np.int64))) == 0
    assert as_dict(near_hashes(hashes, 6, np.array([0, 0, 1, 1]))).keys() == {(2, 0), (3, 0)}


def test_many_pictures_with_one_hash_are_each_paired_with_the_first_of_another_group():
    """All pairs of them would be two thousand million; time and result grow with their number alone."""
    count = 60_000
    hashes = np.full((count, TURNS), 0xABCDEF, np.uint64)
    groups = np.arange(count) // 2
    start = time.process_time()
    found = near_hashes(hashes, 6, groups)
    assert time.process_time() - start < 5
    rows = as_dict(found)
    assert {later for later, _ in rows} == set(range(2, count))
    assert {earlier for _, earlier in rows} == {0, 2} and len(rows) < 2 * count


def test_many_pictures_with_a_few_near_hashes_stay_linear_too():
    count, rng = 20_000, np.random.default_rng(6)
    hashes = np.tile(np.array([[0], [1], [3], [7]], np.uint64), (count // 4, TURNS))
    start = time.process_time()
    rows = as_dict(near_hashes(hashes[rng.permutation(count)], 6, np.arange(count)))
    assert time.process_time() - start < 5
    assert {later for later, _ in rows} == set(range(1, count)) and len(rows) <= 2 * 4 * count


def test_twenty_thousand_random_hashes_take_seconds():
    rng = np.random.default_rng(7)
    hashes = rng.integers(0, 2**64, (20_000, TURNS), dtype=np.uint64)
    hashes[12_345, 5] = hashes[678, 0] ^ np.uint64(0b111111)
    start = time.process_time()
    found = as_dict(near_hashes(hashes, 6, np.arange(len(hashes))))
    assert time.process_time() - start < 10
    assert found == {(12_345, 678): 6}


@pytest.mark.parametrize("max_distance", [0, 1, 6, 8, 11])
def test_of_two_sets_the_near_ones_are_those_of_a_comparison_of_all(max_distance):
    hashes = planted(300, np.random.default_rng(8))
    asked, known = hashes[:200].ravel(), hashes[200:, 0]
    expected = (np.bitwise_count(asked[:, None] ^ known) <= max_distance).any(axis=1)
    assert np.array_equal(near_any(asked, known, max_distance), expected)
    assert 0 < expected.sum() < len(expected)


def test_ten_thousand_pictures_are_looked_for_among_a_million_in_seconds():
    rng = np.random.default_rng(9)
    asked = rng.integers(0, 2**64, 10_000 * TURNS, dtype=np.uint64)
    known = rng.integers(0, 2**64, 1_000_000, dtype=np.uint64)
    known[999_999] = asked[54_321] ^ np.uint64(0b111111)
    start = time.process_time()
    found = near_any(asked, known, 6)
    assert time.process_time() - start < 20
    assert 54_321 in np.flatnonzero(found)


def test_nothing_is_near_to_nothing():
    assert near_any(np.empty(0, np.uint64), np.ones(2, np.uint64), 6).tolist() == []
    assert near_any(np.ones(2, np.uint64), np.empty(0, np.uint64), 6).tolist() == [False, False]
    assert len(near_hashes(np.empty((0, TURNS), np.uint64), 6, np.empty(0, np.int64))) == 0
    one = np.zeros((1, TURNS), np.uint64)
    assert len(near_hashes(one, 11, np.zeros(1, np.int64))) == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.rotate(90, expand=True),
        lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        lambda image: image.resize((100, 100)),
        lambda image: Image.open(BytesIO(jpeg(image, quality=40))),
    ],
)
def test_a_turned_mirrored_resized_or_encoded_copy_is_near_and_another_picture_is_not(change):
    pictures = (tissue(1), change(tissue(1)), tissue(2))
    hashes = np.array([perceptual_hashes(image) for image in pictures], np.uint64)
    assert as_dict(near_hashes(hashes, 6, np.arange(3))).keys() == {(1, 0)}
