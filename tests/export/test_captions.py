"""Which held-out captions a text tower is judged on."""

from __future__ import annotations

import numpy as np

from pathclip.export.calibration.captions import connected, judged_captions
from pathclip.export.calibration.samples import text_samples
from tests.export import towers


def captions(*numbers):
    return text_samples(np.array(numbers, np.int64)[:, None], towers.PREPROCESS)


def test_a_caption_is_judged_once_and_not_if_it_was_calibrated_on():
    found = judged_captions(captions(*range(12), *range(12)), [captions(2, 3), captions(3, 50)])
    assert found.rows == (0, 1, *range(4, 12)) and (found.distinct, found.fitted) == (12, 2)
    assert found.note == "without the 2 of 12 captions that were calibrated on"


def test_too_few_new_captions_give_way_to_all_of_them_and_the_note_says_so():
    found = judged_captions(captions(*range(12), 0), [captions(*range(5))])
    assert found.rows == tuple(range(12)) and found.note == "5 of 12 captions were calibrated on"


def test_captions_that_nothing_has_seen_need_no_remark():
    assert judged_captions(captions(1, 1, 2)).note == ""


def test_pairs_are_linked_by_groups_and_captions_over_other_pairs():
    names = connected(["a", "b", "a", "c", "d", ""], ["x", "y", "y", "z", "w", "w"])
    assert names == ("0", "0", "0", "3", "4", "4")


def test_pairs_of_unknown_groups_are_linked_by_their_caption_alone():
    assert connected(["", "", ""], ["x", "y", "x"]) == ("0", "1", "0")
