import pytest

from pathclip.errors import ConfigError, DataError
from pathclip.shards.stream import Position, ShardStream, StreamLoader
from tests import tiny_shards


def keys(samples, *_):
    return [sample["__key__"] for sample in samples]


def keys_and_seed(samples, position, seed, offset, total):
    return [sample["__key__"] for sample in samples], position, seed, offset, total


@pytest.fixture
def folder(tmp_path):
    tiny_shards.write(tmp_path, n=40, per_shard=12)
    return tmp_path


BEGINNING = Position()


def epoch(folder, workers=0, position=BEGINNING, collate=keys, **options):
    stream = ShardStream(folder, options.pop("batch_size", 4), collate, **options)
    return list(StreamLoader(stream, lambda: position, workers))


def test_an_epoch_shows_every_sample_once(folder):
    seen = [key for batch in epoch(folder) for key in batch]
    assert len(seen) == len(set(seen)) == 40


def test_order_depends_on_seed_and_epoch_alone(folder):
    assert epoch(folder, seed=1) == epoch(folder, seed=1)
    assert epoch(folder, seed=1) != epoch(folder, seed=2)
    assert epoch(folder, position=Position(0)) != epoch(folder, position=Position(1))


def test_without_a_window_the_samples_of_a_shard_keep_their_order(folder):
    seen = [key for batch in epoch(folder, shuffle_buffer=0) for key in batch]
    starts = [n for n in range(40) if n == 0 or int(seen[n][1:]) != int(seen[n - 1][1:]) + 1]
    assert len(starts) <= 4 and seen != sorted(seen)  # four shards in an order of their own


@pytest.mark.parametrize("groups", ["any", "together", "apart"])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(folder, workers, groups):
    alone = epoch(folder, collate=keys_and_seed, groups=groups)
    assert epoch(folder, workers, collate=keys_and_seed, groups=groups) == alone


@pytest.mark.parametrize("workers", [0, 3])
def test_a_resumed_epoch_continues_with_the_next_batch(folder, workers):
    whole = epoch(folder, collate=keys_and_seed)
    assert epoch(folder, workers, Position(0, 4), keys_and_seed) == whole[4:]


@pytest.mark.parametrize("groups", ["any", "together", "apart"])
def test_two_ranks_see_the_two_halves_of_each_global_batch(folder, groups):
    alone = epoch(folder, batch_size=8, groups=groups)
    first = epoch(folder, batch_size=4, rank=0, world=2, groups=groups)
    second = epoch(folder, batch_size=4, rank=1, world=2, groups=groups)
    assert [a + b for a, b in zip(first, second, strict=True)] == alone


def test_more_consumers_than_shards_get_equal_steps(folder):
    lengths = {len(epoch(folder, 2, batch_size=2, rank=rank, world=5)) for rank in range(5)}
    assert lengths == {4}


def test_ranks_share_the_seed_of_a_batch_and_know_their_place_in_it(folder):
    """So that a pair is augmented alike on however many processes."""
    alone = epoch(folder, batch_size=8, collate=keys_and_seed)
    second = epoch(folder, batch_size=4, rank=1, world=2, collate=keys_and_seed)
    assert [batch[2] for batch in second] == [batch[2] for batch in alone]
    assert len({batch[2] for batch in alone}) == len(alone) == 5
    assert {tuple(batch[3:]) for batch in alone} == {(0, 8)}
    assert {tuple(batch[3:]) for batch in second} == {(4, 8)}


def test_the_limit_shows_the_same_first_samples_in_every_epoch(folder):
    for number in range(3):
        seen = {key for batch in epoch(folder, position=Position(number), limit=16) for key in batch}
        assert seen == {f"s{i:04d}" for i in range(16)}


def test_a_limit_of_nothing_is_refused(folder):
    with pytest.raises(ConfigError, match="at least 1"):
        epoch(folder, limit=0)


def test_a_window_below_nothing_is_refused(folder):
    with pytest.raises(ConfigError, match=r"data\.shuffle_buffer is -1"):
        epoch(folder, shuffle_buffer=-1)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("length", [3000, 3072, 10_240 + 100])
def test_a_shard_that_is_cut_off_is_one_line_with_its_name(folder, workers, length):
    shard = folder / "000002.tar"
    shard.write_bytes(shard.read_bytes()[:length])
    with pytest.raises(DataError) as error:
        epoch(folder, workers)
    assert str(error.value).startswith(f"{shard}: ")
    assert "write the shards again" in str(error.value)
    assert "\n" not in str(error.value) and "<" not in str(error.value)


def test_fewer_samples_than_a_batch_is_one_clear_line(folder):
    with pytest.raises(DataError, match=r"40 samples.*lower data\.batch_size"):
        ShardStream(folder, 64, keys)


def test_a_batch_of_one_has_no_negatives(folder):
    with pytest.raises(ConfigError, match="at least 2"):
        ShardStream(folder, 1, keys)


def test_sizes_that_promise_too_much_are_noticed(folder):
    (folder / "sizes.json").write_text(
        '{"000000.tar": 12, "000001.tar": 12, "000002.tar": 12, "000003.tar": 90}'
    )
    with pytest.raises(DataError, match=r"4 samples, fewer than the 90 that sizes\.json"):
        epoch(folder)


def test_the_loader_goes_on_to_the_next_epoch_when_one_is_finished(folder):
    assert epoch(folder, position=Position(0, 10)) == epoch(folder, position=Position(1, 0))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_workers_of_one_epoch_serve_the_next_one_too(folder, workers):
    stream, place = ShardStream(folder, 4, keys_and_seed), [Position()]
    loader = StreamLoader(stream, lambda: place[0], workers)
    next(iter(loader))  # a pass that is broken off
    for number in range(3):
        place[0] = Position(number, number)
        assert list(loader) == epoch(folder, position=place[0], collate=keys_and_seed)


def test_a_stream_reads_only_the_pictures_of_its_own_batches(folder, monkeypatch):
    """Rank 1 of 2 would otherwise read what rank 0 reads, and every worker all that the others do."""
    read = []
    from pathclip.shards import storage

    plain = storage.read_ranges
    monkeypatch.setattr(storage, "read_ranges", lambda ranges: read.extend(ranges) or plain(ranges))
    seen = epoch(folder, batch_size=4, rank=1, world=2)
    assert len(read) == sum(map(len, seen)) == 20


def test_the_sources_of_a_mapping_come_as_often_as_their_factors_say(tmp_path):
    tiny_shards.write(tmp_path / "a", n=8, per_shard=4)
    tiny_shards.write(tmp_path / "b", n=4, per_shard=4)

    def urls(samples, *_):
        return [sample["__url__"].split("/")[-2] for sample in samples]

    seen = epoch({tmp_path / "a": 1, tmp_path / "b": 2.5}, collate=urls, batch_size=6)
    assert sorted(url for batch in seen for url in batch) == ["a"] * 8 + ["b"] * 10


def test_together_and_apart_divide_the_same_samples_otherwise(folder):
    def groups_in_common(batches):
        return [len(batch) - len({int(key[1:]) // 2 for key in batch}) for batch in batches]

    together = epoch(folder, batch_size=8, groups="together")
    apart = epoch(folder, batch_size=8, groups="apart")
    assert groups_in_common(together) == [4] * 5 and groups_in_common(apart) == [0] * 5
    for batches in (together, apart):
        assert sorted(key for batch in batches for key in batch) == [f"s{i:04d}" for i in range(40)]
