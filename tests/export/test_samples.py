"""Which pairs an export calibrates on and is judged by."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pathclip.errors import DataError
from pathclip.export.calibration import samples
from pathclip.export.calibration.samples import apart_by_group, draw_pairs, read_calibration
from pathclip.runtime.preprocess import Preprocess
from pathclip.shards.writer import Sample, write_shards
from tests import tiny_shards

PREPROCESS = Preprocess(size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)


def write(folder, per_shard=50, group_of=1, **kinds):
    """Shards of so many pairs of each kind, one kind after the other, as a sorted table gives them."""
    picture = tiny_shards.jpeg((180, 90, 140), 0, size=8)
    pairs = [
        Sample(f"{kind}{i:05d}", picture, f"{kind} {i}", {"group": f"{kind}{i // group_of}"})
        for kind, n in kinds.items()
        for i in range(n)
    ]
    write_shards(folder, pairs, per_shard)
    return folder


def tokenizer(texts):
    return np.zeros((len(texts), 4), np.int64)


def kinds(texts):
    return Counter(text.split()[0] for text in texts)


def keys(pairs):
    return [pair.key for pair in pairs]


@pytest.fixture
def folders(tmp_path):
    return [write(tmp_path / "ordered", lung=300, colon=300), write(tmp_path / "oral", oral=200)]


def test_the_draw_is_over_all_pairs_of_all_folders(folders):
    found = read_calibration(folders, 64, 64, PREPROCESS, tokenizer)
    for drawn in found:
        counts = kinds(drawn.texts)
        assert len(drawn) == 64
        assert counts["lung"] > 12 and counts["colon"] > 12 and counts["oral"] > 6


def test_every_pair_is_as_likely_as_any_other(folders):
    counts = Counter(key for seed in range(40) for key in keys(draw_pairs(folders, 100, seed)))
    by_kind = {kind: sum(n for key, n in counts.items() if key.startswith(kind)) for kind in ("l", "c", "o")}
    # 40 x 100 pairs of 300 lung, 300 colon and 200 oral ones.
    assert by_kind == {
        "l": pytest.approx(1500, rel=0.1),
        "c": pytest.approx(1500, rel=0.1),
        "o": pytest.approx(1000, rel=0.1),
    }


def test_the_seed_decides_the_draw_and_nothing_is_drawn_twice(folders):
    first, again, other = (keys(draw_pairs(folders, 100, seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert len({*first}) == 100


def test_more_than_there_is_gives_all_there_is(folders):
    assert len({*keys(draw_pairs(folders, 10_000))}) == 800


def test_a_limit_caps_the_draw_and_still_reaches_every_folder(folders):
    calibration, held_out = read_calibration(folders, 64, 64, PREPROCESS, tokenizer, limit=60)
    assert len(calibration) + len(held_out) <= 60
    assert {*kinds(calibration.texts + held_out.texts)} == {"lung", "colon", "oral"}


def test_the_two_sets_share_no_group(tmp_path):
    folder = write(tmp_path / "cases", group_of=4, case=400)
    calibration, held_out = read_calibration([folder], 40, 40, PREPROCESS, tokenizer)
    groups = [{int(text.split()[1]) // 4 for text in drawn.texts} for drawn in (calibration, held_out)]
    assert len(calibration) == len(held_out) == 40
    assert not groups[0] & groups[1]


def test_of_many_shards_a_random_part_is_read(tmp_path, monkeypatch):
    folder = write(tmp_path / "many", per_shard=3, x=300)
    opened = []
    read = samples.read_shard
    monkeypatch.setattr(samples, "read_shard", lambda path: opened.append(path.name) or read(path))
    found = draw_pairs([folder], 100)
    assert len(found) == 100
    numbers = [int(name.split(".")[0]) for name in opened]
    assert len(numbers) <= samples.MOST_SHARDS < 100 and numbers == sorted(numbers)
    assert min(numbers) < 20 and max(numbers) > 80


def test_as_many_shards_are_read_as_the_pairs_need(tmp_path):
    assert len(draw_pairs([write(tmp_path / "many", per_shard=2, x=200)], 150)) == 150


def test_a_shard_with_fewer_pairs_than_its_sizes_say_is_named(tmp_path):
    folder = write(tmp_path / "cut", x=20)
    (folder / "sizes.json").write_text('{"000000.tar": 30}')
    with pytest.raises(DataError, match=r"000000\.tar: fewer pairs than sizes\.json says"):
        draw_pairs([folder], 30)


def test_too_few_pairs_name_all_folders(tmp_path):
    folders = [write(tmp_path / name, **{name: 5}) for name in ("a", "b")]
    with pytest.raises(DataError, match=r"a, .*b: 5 pairs to calibrate on and 5 of other groups"):
        read_calibration(folders, 64, 64, PREPROCESS, tokenizer)


def test_three_sets_share_no_group_either():
    assert apart_by_group(["a", "b", "a", "c", "b", "d", "e"], 2, 2, 2) == ([0, 2], [1, 4], [3, 5])


def test_a_large_group_does_not_leave_the_other_set_empty():
    first, second = apart_by_group(["few"] * 9 + ["many"] * 40, 100, 50)
    assert (len(first), len(second)) == (40, 9)


def test_where_pairs_are_few_both_sets_are_short_alike_once_each_has_enough():
    first, second = apart_by_group([f"g{number // 2}" for number in range(20)], 100, 50)
    assert (len(first), len(second)) == (12, 8)
    first, second = apart_by_group([f"g{number // 2}" for number in range(60)], 100, 50)
    assert (len(first), len(second)) == (40, 20)


def test_a_set_holds_pairs_of_many_groups_rather_than_all_of_a_few():
    groups = [f"g{number % 20}" for number in range(200)]
    first, second = apart_by_group(groups, 20, 20)
    assert len({groups[n] for n in first}) == len({groups[n] for n in second}) == 10


def test_pairs_keep_the_label_that_their_shard_names(tmp_path):
    picture = tiny_shards.jpeg((180, 90, 140), 0, size=8)
    some = [Sample(f"s{i:02d}", picture, "text", {"group": f"g{i}", "label": "tumour"}) for i in range(20)]
    write_shards(tmp_path, some, 50)
    first, second = read_calibration([tmp_path], 10, 10, PREPROCESS, tokenizer)
    assert {*first.labels, *second.labels} == {"tumour"} and not {*first.groups} & {*second.groups}
