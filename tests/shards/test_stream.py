import pytest

from pathclip.errors import ConfigError, DataError
from pathclip.shards.stream import Position, ShardStream, StreamLoader
from tests import tiny_shards


def keys(samples, position, seed):
    return [sample["__key__"] for sample in samples]


def keys_and_seed(samples, position, seed):
    return [sample["__key__"] for sample in samples], position, seed


@pytest.fixture
def folder(tmp_path):
    tiny_shards.write(tmp_path, n=40, per_shard=12)
    return tmp_path


BEGINNING = Position()


def epoch(folder, workers=0, position=BEGINNING, collate=keys, **options):
    stream = ShardStream([folder], options.pop("batch_size", 4), collate, **options)
    return list(StreamLoader(stream, lambda: position, workers))


def test_an_epoch_shows_every_sample_once(folder):
    seen = [key for batch in epoch(folder) for key in batch]
    assert len(seen) == len(set(seen)) == 40


def test_order_depends_on_seed_and_epoch_alone(folder):
    assert epoch(folder, seed=1) == epoch(folder, seed=1)
    assert epoch(folder, seed=1) != epoch(folder, seed=2)
    assert epoch(folder, position=Position(0)) != epoch(folder, position=Position(1))


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(folder, workers):
    assert epoch(folder, workers, collate=keys_and_seed) == epoch(folder, collate=keys_and_seed)


@pytest.mark.parametrize("workers", [0, 3])
def test_a_resumed_epoch_continues_with_the_next_batch(folder, workers):
    whole = epoch(folder, collate=keys_and_seed)
    assert epoch(folder, workers, Position(0, 4), keys_and_seed) == whole[4:]


def test_two_ranks_see_the_two_halves_of_each_global_batch(folder):
    alone = epoch(folder, batch_size=8)
    first = epoch(folder, batch_size=4, rank=0, world=2)
    second = epoch(folder, batch_size=4, rank=1, world=2)
    assert [a + b for a, b in zip(first, second, strict=True)] == alone


def test_more_consumers_than_shards_get_equal_steps(folder):
    lengths = {len(epoch(folder, 2, batch_size=2, rank=rank, world=5)) for rank in range(5)}
    assert lengths == {4}


def test_two_ranks_draw_different_augmentation(folder):
    first = epoch(folder, batch_size=4, rank=0, world=2, collate=keys_and_seed)
    second = epoch(folder, batch_size=4, rank=1, world=2, collate=keys_and_seed)
    assert not {batch[2] for batch in first} & {batch[2] for batch in second}


def test_the_limit_shows_the_same_first_samples_in_every_epoch(folder):
    for number in range(3):
        seen = {key for batch in epoch(folder, position=Position(number), limit=16) for key in batch}
        assert seen == {f"s{i:04d}" for i in range(16)}


def test_a_limit_of_nothing_is_refused(folder):
    with pytest.raises(ConfigError, match="at least 1"):
        epoch(folder, limit=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_is_cut_off_is_one_line_with_its_name(folder, workers):
    shard = folder / "000002.tar"
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(DataError) as error:
        epoch(folder, workers)
    assert str(error.value).startswith(f"{shard}: not a readable shard (")
    assert "\n" not in str(error.value) and "<" not in str(error.value)


def test_fewer_samples_than_a_batch_is_one_clear_line(folder):
    with pytest.raises(DataError, match=r"40 samples.*lower data\.batch_size"):
        ShardStream([folder], 64, keys)


def test_a_batch_of_one_has_no_negatives(folder):
    with pytest.raises(ConfigError, match="at least 2"):
        ShardStream([folder], 1, keys)


def test_sizes_that_promise_too_much_are_noticed(folder):
    (folder / "sizes.json").write_text(
        '{"000000.tar": 12, "000001.tar": 12, "000002.tar": 12, "000003.tar": 90}'
    )
    with pytest.raises(DataError, match=r"sizes\.json"):
        epoch(folder)


def test_the_loader_goes_on_to_the_next_epoch_when_one_is_finished(folder):
    assert epoch(folder, position=Position(0, 10)) == epoch(folder, position=Position(1, 0))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_workers_of_one_epoch_serve_the_next_one_too(folder, workers):
    stream, place = ShardStream([folder], 4, keys_and_seed), [Position()]
    loader = StreamLoader(stream, lambda: place[0], workers)
    next(iter(loader))  # a pass that is broken off
    for number in range(3):
        place[0] = Position(number, number)
        assert list(loader) == epoch(folder, position=place[0], collate=keys_and_seed)
