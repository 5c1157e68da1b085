import random
from collections import Counter

import pytest

from pathclip.shards.groups import BATCHES, any_batches, apart_batches, together_batches
from pathclip.shards.order import Reference

SEEDS = range(60)


class Feed:
    """References whose groups are drawn: runs of 1 to `most` neighbours, as posts lie in shards."""

    def __init__(self, seed, n, most):
        rng = random.Random(seed)
        self.group = []
        while len(self.group) < n:
            self.group += [max(self.group, default=-1) + 1] * rng.randint(1, most)
        del self.group[n:]
        self.references = [Reference("shard", number) for number in range(n)]

    def of(self, reference):
        return self.group[reference.number]

    def batches(self, way, size, window, seed=0):
        return list(way(self.references, size, window, seed, self.of))

    def repeats(self, batch):
        return len(batch) - len({self.of(reference) for reference in batch})


@pytest.mark.parametrize("way", BATCHES)
@pytest.mark.parametrize(("size", "window"), [(2, 0), (4, 1), (8, 20), (16, 16), (16, 1000), (3, 50)])
def test_nothing_is_lost_or_repeated_but_the_last_incomplete_batch(way, size, window):
    for seed in SEEDS:
        feed = Feed(seed, 20 + 7 * seed, 6)
        batches = feed.batches(BATCHES[way], size, window, seed)
        seen = [reference for batch in batches for reference in batch]
        assert {len(batch) for batch in batches} <= {size}
        assert len(batches) == len(feed.references) // size and len({*seen}) == len(seen)


@pytest.mark.parametrize("way", BATCHES)
def test_the_seed_decides_the_batches(way):
    feed = Feed(0, 200, 3)
    first = feed.batches(BATCHES[way], 8, 50, 1)
    assert first == feed.batches(BATCHES[way], 8, 50, 1) != feed.batches(BATCHES[way], 8, 50, 2)


@pytest.mark.parametrize("way", BATCHES)
def test_a_sample_does_not_come_before_the_window_has_reached_it(way):
    for seed in SEEDS:
        feed = Feed(seed, 300, 3)
        for number, batch in enumerate(feed.batches(BATCHES[way], 8, 40, seed)):
            assert max(reference.number for reference in batch) < 8 * (number + 1) + 40


@pytest.mark.parametrize("way", BATCHES)
def test_the_order_within_the_window_is_shuffled(way):
    feed = Feed(0, 400, 2)
    first = feed.batches(BATCHES[way], 8, 100)[0]
    assert max(reference.number for reference in first) > 50


def test_together_brings_pairs_of_two_into_one_batch():
    for seed in SEEDS:
        feed = Feed(seed, 256, 2)
        feed.group = [number // 2 for number in range(256)]
        assert all(feed.repeats(batch) == 8 for batch in feed.batches(together_batches, 16, 40, seed))


def test_together_divides_a_group_only_where_no_other_fits():
    divided = total = 0
    for seed in SEEDS:
        feed = Feed(seed, 320, 4)
        batches = feed.batches(together_batches, 16, 1000, seed)
        homes = [Counter(feed.of(reference) for reference in batch) for batch in batches]
        divided += sum(
            1 for group, count in Counter(feed.group).items() if max(h[group] for h in homes) < count
        )
        total += len({*feed.group})
    assert divided < 0.02 * total


def test_together_fills_at_most_half_a_batch_with_one_group():
    """The others are its negatives: a batch of one group alone teaches nothing."""
    for seed in SEEDS:
        feed = Feed(seed, 96, 1)
        feed.group = [0] * 32 + list(range(1, 65))
        # While others are left: at the end the large group may be all that there is.
        for batch in feed.batches(together_batches, 8, 1000, seed)[:6]:
            assert Counter(map(feed.of, batch))[0] <= 4


def test_apart_repeats_no_group_where_the_window_holds_enough_others():
    for seed in SEEDS:
        feed = Feed(seed, 400, 2)
        assert not any(map(feed.repeats, feed.batches(apart_batches, 16, 64, seed)))


def test_apart_finds_a_division_without_repeats_wherever_there_is_one():
    tried = 0
    for seed in range(300):
        rng = random.Random(seed)
        feed, size = Feed(seed, rng.randrange(20, 200), 9), rng.choice([2, 4, 8, 16])
        if max(Counter(feed.group).values()) <= len(feed.references) // size:
            tried += 1
            assert not any(map(feed.repeats, feed.batches(apart_batches, size, 1000, seed)))
    assert tried > 150


def test_apart_repeats_a_group_rather_than_lose_its_pairs():
    feed = Feed(0, 16, 1)
    feed.group = [7] * 16
    assert len(feed.batches(apart_batches, 4, 8)) == 4


def test_any_does_not_look_groups_up():
    feed = Feed(0, 64, 2)
    feed.of = None
    assert len(feed.batches(any_batches, 8, 16)) == 8
