import contextlib
from collections import Counter

import numpy as np
import pytest

from pathclip.curate.near import near_hashes
from pathclip.curate.split import Member, SplitSettings, check_leaks, decide, split
from pathclip.errors import DataError


def members(count: int = 100, per_group: int = 2, **fields) -> list[Member]:
    return [
        Member(
            **{
                "id": f"p{n}",
                "group": f"g{n // per_group}",
                "created_at": f"2022-{n // 28 + 1:02d}-{n % 28 + 1:02d}T00:00:00+00:00",
                "prescribed": None,
                "sha256": f"{n:064x}",
                **fields,
            }
        )
        for n in range(count)
    ]


def test_by_time_training_lies_before_validation_and_validation_before_test():
    rows = members()
    splits = split(rows, SplitSettings(by="time", val=0.1, test=0.2))
    assert Counter(splits) == {"train": 70, "val": 10, "test": 20}
    last = {
        name: max(r.created_at for r, s in zip(rows, splits, strict=True) if s == name) for name in splits
    }
    first = {
        name: min(r.created_at for r, s in zip(rows, splits, strict=True) if s == name) for name in splits
    }
    assert last["train"] < first["val"] and last["val"] < first["test"]


@pytest.mark.parametrize("by", ["time", "hash"])
def test_groups_stay_whole(by):
    rows = members(per_group=7)
    splits = split(rows, SplitSettings(by=by, val=0.2, test=0.2))
    of_group = {(row.group, name) for row, name in zip(rows, splits, strict=True)}
    assert len(of_group) == len({row.group for row in rows})
    check_leaks(rows, splits)


def test_by_hash_no_group_moves_when_others_are_added():
    settings = SplitSettings(by="hash", val=0.3, test=0.3)
    assert split(members(200), settings)[:100] == split(members(100), settings)


def test_a_share_of_nothing_stays_empty():
    assert set(split(members(), SplitSettings(by="time", val=0, test=0))) == {"train"}


def test_auto_takes_what_the_source_prescribes_then_time_then_hash():
    auto = SplitSettings()
    assert set(split(members(prescribed="validation"), auto)) == {"val"}
    assert split(members(), auto) == split(members(), SplitSettings(by="time"))
    undated = members(created_at=None)
    assert split(undated, auto) == split(undated, SplitSettings(by="hash"))


def test_auto_says_what_it_took():
    auto = SplitSettings()
    assert decide(members(prescribed="train"), auto) == "source"
    assert decide(members(), auto) == "time"
    assert decide(members(created_at=None), auto) == "hash"
    assert decide(members(), SplitSettings(by="hash")) == "hash"


def test_auto_does_not_pass_over_a_split_that_one_pair_lacks():
    rows = [*members(9, prescribed="train"), *members(10)[9:]]
    with pytest.raises(DataError, match=r"1 of 10 pairs \(such as p9\) have no split.*split\.by=hash"):
        split(rows, SplitSettings())
    assert len(split(rows, SplitSettings(by="time"))) == 10


def test_auto_does_not_pass_over_the_dates_if_one_pair_has_none():
    rows = [*members(9), *members(10, created_at=None)[9:]]
    with pytest.raises(DataError, match=r"1 of 10 pairs \(such as p9\) have no date.*split\.by=hash"):
        split(rows, SplitSettings())
    assert len(split(rows, SplitSettings(by="hash"))) == 10


def test_an_unknown_prescribed_split_and_a_missing_date_are_told():
    with pytest.raises(DataError, match="'holdout' is none of"):
        split(members(prescribed="holdout"), SplitSettings(by="source"))
    with pytest.raises(DataError, match=r"100 of 100 pairs .* have no split"):
        split(members(), SplitSettings(by="source"))
    with pytest.raises(DataError, match="have no date"):
        split(members(created_at=None), SplitSettings(by="time"))


@pytest.mark.parametrize(
    ("shared", "message"),
    [({"group": "same"}, "the same group"), ({"sha256": "same"}, "the same sha256")],
)
def test_splits_that_share_anything_fail_the_run(shared, message):
    one, other = members(2, per_group=1, **shared)
    with pytest.raises(DataError, match=rf"'p0' in train and 'p1' in test have {message}"):
        check_leaks([one, other], ["train", "test"])
    check_leaks([one, other], ["train", "train"])


@pytest.mark.parametrize(("bits", "leaks"), [(6, True), (7, False)])
def test_splits_that_share_a_near_duplicate_fail_the_run(bits, leaks):
    rows = members(4, per_group=1)
    hashes = np.random.default_rng(0).integers(0, 2**64, (4, 8), dtype=np.uint64)
    hashes[3, 5] = hashes[1, 0] ^ np.uint64((1 << bits) - 1)

    def near(groups):
        yield near_hashes(hashes, 6, groups)

    check_leaks(rows, ["test", "train", "val", "train"], near)
    expected = pytest.raises(DataError, match="'p1' in train and 'p3' in test have nearly the same image")
    with expected if leaks else contextlib.nullcontext():
        check_leaks(rows, ["train", "train", "val", "test"], near)
