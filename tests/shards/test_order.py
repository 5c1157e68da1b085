from collections import Counter

import pytest

from pathclip.errors import ConfigError, DataError
from pathclip.shards.order import Source, find_sources, folder_factors, mixed
from tests import tiny_shards

A = Source("a", {"a/0": 30, "a/1": 30, "a/2": 20})
B = Source("b", {"b/0": 25, "b/1": 15}, 2.5)
SEEDS = range(25)


@pytest.mark.parametrize("factor", [0.1, 0.5, 1, 1.7, 2, 2.5, 4])
def test_an_epoch_holds_exactly_as_many_of_a_source_as_its_factor_says(factor):
    source = Source("b", {"b/0": 25, "b/1": 15}, factor)
    for seed in SEEDS:
        counts = Counter(source.references(seed))
        assert counts.total() == round(factor * 40) == source.samples_per_epoch
        assert {*counts.values()} <= {int(factor), int(factor) + 1} and (factor < 1 or len(counts) == 40)


def test_each_pass_over_a_source_has_an_order_of_its_own():
    source = Source("a", {f"a/{n}": 10 for n in range(8)}, 3)
    drawn = list(source.references(0))
    passes = [drawn[:80], drawn[80:160], drawn[160:]]
    assert passes[0] != passes[1] != passes[2]
    assert {*passes[0]} == {*passes[1]} == {*passes[2]}


def test_a_pass_over_half_of_one_shard_does_not_always_show_its_front():
    source = Source("a", {"a/0": 20}, 0.5)
    shown = Counter(reference for seed in range(200) for reference in source.references(seed))
    assert len(shown) == 20 and min(shown.values()) > 60  # 100 expected


def test_sources_are_mixed_over_the_whole_epoch():
    for seed in SEEDS:
        order = [reference.shard[0] for reference in mixed([A, B], seed)]
        assert Counter(order) == {"a": 80, "b": 100}
        for start in range(0, 180, 45):
            assert 5 <= order[start : start + 45].count("a") <= 35  # 20 expected


def test_every_source_can_be_the_last_one():
    assert {list(mixed([A, B], seed))[-1].shard[0] for seed in SEEDS} == {"a", "b"}


def test_the_order_follows_the_seed_and_not_the_name_of_the_folder():
    first, again = list(mixed([A, B], 1)), list(mixed([A, B], 1))
    assert first == again != list(mixed([A, B], 2))
    moved = Source("x", {name.replace("a", "x"): size for name, size in A.sizes.items()})
    assert [r.number for r in mixed([moved, B], 1)] == [r.number for r in first]


def test_a_list_is_a_mapping_of_ones(tmp_path):
    assert folder_factors(["a", "b/"]) == {"a": 1.0, "b": 1.0} == folder_factors({"a": 1, "b": 1.0})


@pytest.mark.parametrize("folders", [["a", "b", "a/"], {"a": 1, "./a": 2}])
def test_a_folder_named_twice_is_refused(folders):
    with pytest.raises(ConfigError, match=r"names a twice; data\.train=\{a: 2\}"):
        folder_factors(folders)


@pytest.mark.parametrize("factor", [0, -1, True, None, float("nan"), float("inf"), "2"])
def test_a_factor_that_is_no_number_above_0_is_refused(factor):
    with pytest.raises(ConfigError, match="the factor of a is"):
        folder_factors({"a": factor})


def test_an_address_that_hydra_has_cut_at_its_colon_is_explained():
    with pytest.raises(ConfigError, match=r"write an address as s3"):
        folder_factors({"s3": "//bucket/train: 2"})


def test_a_factor_that_shows_nothing_is_refused(tmp_path):
    tiny_shards.write(tmp_path, n=8)
    with pytest.raises(ConfigError, match=r"0\.01 × 8 samples"):
        find_sources({str(tmp_path): 0.01})


@pytest.mark.parametrize("nothing", [[], {}])
def test_no_folder_at_all_is_refused(nothing):
    with pytest.raises(ConfigError, match=r"data\.train"):
        find_sources(nothing)


def test_the_limit_cuts_before_the_factors(tmp_path):
    tiny_shards.write(tmp_path / "a", n=8, per_shard=3)
    tiny_shards.write(tmp_path / "b", n=8, per_shard=3)
    first, second = find_sources({str(tmp_path / "a"): 1, str(tmp_path / "b"): 2}, limit=10)
    assert (first.samples, second.samples, second.samples_per_epoch) == (8, 2, 4)


def test_a_pipe_is_no_folder_and_runs_nothing(tmp_path):
    for address in (
        f"pipe:touch {tmp_path}/ran",
        f"pipe:touch {tmp_path}/ran://",
        f"pipe://touch {tmp_path}/ran",
    ):
        with pytest.raises(DataError):
            find_sources(address)
    assert not (tmp_path / "ran").exists()
