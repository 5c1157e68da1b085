import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from pathclip.curate.engine import AHEAD, Engine
from pathclip.errors import ConfigError, DataError

from .feed import cases, chart, contents, jpeg, reply, run, tissue, tweet, write_feed

# Functions are sent to processes by their names, so they stand here.


def doubled(items: list[int]) -> list[int]:
    return [2 * item for item in items]


def slowly_doubled(items: list[int]) -> list[int]:
    """The first partitions take longest, so that they end last."""
    time.sleep(0.2 if items[0] < 20 else 0)
    return doubled(items)


def with_process(items: list[int]) -> list[tuple[int, int]]:
    time.sleep(0.05)
    return [(item, os.getpid()) for item in items]


def failing(items: list[int]) -> list[int]:
    if 23 in items:
        raise DataError("23 is no picture")
    return items


def ended(items: list[int]) -> list[int]:
    raise StopIteration


@pytest.mark.parametrize(("workers", "size"), [(1, 1), (1, 7), (1, 1000), (2, 7)])
def test_results_come_in_the_order_of_the_items(workers, size):
    results = Engine(workers=workers).map(doubled, range(100), size)
    assert list(results) == [2 * n for n in range(100)]


def test_results_keep_their_order_although_the_first_are_done_last():
    assert list(Engine(workers=3).map(slowly_doubled, range(60), 10)) == [2 * n for n in range(60)]


def test_one_worker_is_this_process_and_several_are_others():
    alone = {process for _, process in Engine(workers=1).map(with_process, range(40), 4)}
    assert alone == {os.getpid()}
    others = {process for _, process in Engine(workers=2).map(with_process, range(40), 4)}
    assert len(others) == 2 and os.getpid() not in others


def test_few_items_take_no_process():
    assert {process for _, process in Engine(workers=3).map(with_process, range(4), 4)} == {os.getpid()}


def test_nothing_gives_nothing():
    assert list(Engine(workers=3).map(doubled, [])) == []


class Counted:
    """An endless iterable that counts what was taken from it."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        for self.taken in count(1):
            yield self.taken


@pytest.mark.parametrize("workers", [1, 2])
def test_only_so_many_items_are_taken_ahead_of_the_results(workers):
    items, size = Counted(), 5
    results = Engine(workers=workers).map(doubled, items, size)
    for n in range(1, 300):
        assert next(results) == 2 * n
        assert items.taken - n <= (AHEAD * workers + 2) * size
    results.close()


def test_nothing_is_taken_before_the_first_result_is_asked_for():
    items = Counted()
    Engine(workers=1).map(doubled, items)
    assert items.taken == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_of_a_worker_reaches_the_caller_at_its_place(workers):
    results = Engine(workers=workers).map(failing, range(100), 10)
    assert [next(results) for _ in range(20)] == list(range(20))
    with pytest.raises(DataError, match="23 is no picture"):
        next(results)


def test_an_exception_that_ends_iterators_does_not_end_the_results_without_a_word():
    with pytest.raises(RuntimeError):
        list(Engine(workers=1).map(ended, range(100), 10))


def test_leaving_early_leaves_no_process_at_work():
    results = Engine(workers=2).map(slowly_doubled, count(), 5)
    next(results)
    results.close()
    deadline = time.monotonic() + 20
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, -1])
def test_less_than_one_worker_is_refused(workers):
    with pytest.raises(ConfigError, match=f"workers: expected a number of at least 1, got {workers}"):
        Engine(workers=workers)


def mixed_feed(folder: Path) -> list[str]:
    """Ninety posts of which many fall, by rules on words, on pictures and on pairs."""
    posts, pictures = cases(range(100, 160))
    posts += [reply(300 + n, 100 + n, f"Agree, an adenocarcinoma number {n}", likes=n % 3) for n in range(15)]
    posts += [reply(320, 100, "Adenocarcinoma for sure", likes=2), tweet(321, "A question? #GIpath", "3_100")]
    posts += [
        tweet(400 + n, f"Case {n} once more, adenoma #GIpath", f"4_{n}", at="2023-01-01") for n in range(10)
    ]
    pictures |= {f"4_{n}": jpeg(tissue(100 + n).rotate(90), quality=70) for n in range(5)}
    pictures |= {f"4_{n}": jpeg(chart()) for n in range(5, 8)}
    return [*write_feed(folder, [*posts, '{"data": [{"id'], pictures), "samples_per_shard=9"]


@pytest.fixture(scope="module")
def feed(tmp_path_factory) -> list[str]:
    return mixed_feed(tmp_path_factory.mktemp("feed"))


@pytest.fixture(scope="module")
def by_one(feed, tmp_path_factory) -> dict[str, bytes]:
    return contents(run(feed, "workers=1", f"out={tmp_path_factory.mktemp('one')}").out)


@pytest.fixture
def small_partitions(monkeypatch) -> None:
    """So that a small feed is divided among the workers in rules as well as in pictures."""
    monkeypatch.setattr("pathclip.curate.select.POSTS_PER_PARTITION", 10)


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_the_same_bytes(feed, by_one, tmp_path, small_partitions, workers):
    assert contents(run(feed, f"workers={workers}", f"out={tmp_path}").out) == by_one
    assert sum(name.endswith(".tar") for name in by_one) > 5


def test_ray_that_is_not_installed_is_told_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'pathclip\[ray\]'"):
        list(Engine("ray").map(doubled, range(3)))


@pytest.fixture(scope="module")
def cluster():
    """Ray on this machine, with two worker processes."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_a_cluster_gives_the_same_bytes(feed, by_one, tmp_path, small_partitions, cluster):
    assert contents(run(feed, "engine=ray", "workers=2", f"out={tmp_path}").out) == by_one


@pytest.mark.slow
def test_on_a_cluster_order_is_kept_and_no_more_than_a_window_is_taken_ahead(cluster):
    items = Counted()
    results = Engine("ray", workers=2).map(slowly_doubled, items, 2)
    for n in range(1, 300):
        assert next(results) == 2 * n
        assert items.taken - n <= (8 * AHEAD * 2 + 2) * 2
    results.close()


@pytest.mark.slow
def test_an_exception_on_a_cluster_reaches_the_caller_as_what_it_is(cluster):
    with pytest.raises(DataError, match="23 is no picture"):
        list(Engine("ray", workers=2).map(failing, range(100), 10))


@pytest.mark.slow
def test_work_on_a_cluster_is_done_by_its_workers(cluster):
    processes = {process for _, process in Engine("ray", workers=2).map(with_process, range(200), 5)}
    assert os.getpid() not in processes and len(processes) == 2


@pytest.mark.slow
def test_relative_paths_mean_the_same_to_the_workers(feed, by_one, tmp_path, cluster, monkeypatch):
    images = Path(next(word for word in feed if word.startswith("source.images=")).partition("=")[2])
    monkeypatch.chdir(images.parent)
    relative = ["source.posts=posts.jsonl", "source.images=images", "engine=ray", "workers=2"]
    assert contents(run([*feed, *relative], f"out={tmp_path}").out) == by_one


@pytest.mark.slow
@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "auto", "nowhere:port"])
def test_a_cluster_that_is_not_there_is_told(cluster, address):
    cluster.shutdown()
    with pytest.raises(ConfigError, match=rf"engine\.address={address}: no Ray cluster there"):
        list(Engine("ray", address=address).map(doubled, range(3)))
