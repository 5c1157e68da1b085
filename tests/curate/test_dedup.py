import pytest

from pathclip.curate.dedup import DedupSettings, Groups


def test_groups_join_in_chains_and_are_named_alike_in_any_order():
    def names(pairs):
        groups = Groups()
        for one, other in pairs:
            groups.join(one, other)
        return [groups.find(key) for key in "abcdx"]

    assert names(["ab", "cd", "bc"]) == names(["bc", "cd", "ab"]) == ["a", "a", "a", "a", "x"]


def test_a_long_chain_of_groups_is_one_and_found_without_recursion():
    groups = Groups()
    for n in range(50_000, 0, -1):
        groups.join(f"{n:06d}", f"{n - 1:06d}")
    assert groups.find("050000") == "000000"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_distance": 12}, "max_distance is 12; it must be from 0 to 11"),
        ({"max_distance": -1}, "max_distance"),
        ({"min_cosine": 0.0}, "min_cosine is 0.0; it must be above 0"),
        ({"min_caption_similarity": 1.2}, "min_caption_similarity is 1.2"),
    ],
)
def test_a_threshold_out_of_range_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        DedupSettings(**setting)
