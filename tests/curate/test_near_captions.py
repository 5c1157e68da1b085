import time

import numpy as np
import pytest

from pathclip.curate.dedup import Groups
from pathclip.curate.near_captions import near_captions

CAPTION = (
    "Sections show an infiltrating ductal carcinoma of the left breast, with marked pleomorphism, "
    "brisk mitoses and focal necrosis; the margins are free, and two of nineteen axillary nodes are positive."
)
OTHER = (
    "Excision of a nodule below the skin of the shoulder: lobules of mature fat within a thin capsule, "
    "with no atypia, no lipoblasts and no necrosis anywhere in the eleven blocks that were looked at."
)


def joined(*rows: tuple[str, str, str], min_words: int = 8, min_similarity: float = 0.8):
    return {frozenset(pair) for pair in near_captions(rows, min_words, min_similarity)}


def test_nearly_the_same_caption_by_one_author_joins_the_groups():
    again = CAPTION.replace("brisk mitoses", "many mitoses")
    rows = [("a", "ann", CAPTION), ("b", "ann", again), ("c", "ann", OTHER)]
    assert joined(*rows, min_similarity=0.6) == {frozenset("ab")}


def test_the_same_words_in_another_case_and_punctuation_are_the_same_caption():
    again = CAPTION.upper().replace(",", " –").replace(";", "")
    assert joined(("a", "ann", CAPTION), ("b", "ann", again)) == {frozenset("ab")}


def test_captions_of_two_authors_are_not_compared():
    assert not joined(("a", "ann", CAPTION), ("b", "bob", CAPTION))


def test_captions_without_author_are_not_compared():
    assert not joined(("a", "", CAPTION), ("b", "", CAPTION))


def test_short_captions_are_like_many_others_and_are_not_compared():
    rows = ("a", "ann", "tubular adenoma of the colon"), ("b", "ann", "tubular adenoma of the colon")
    assert not joined(*rows)
    assert joined(*rows, min_words=5) == {frozenset("ab")}


def test_captions_of_one_group_need_no_joining():
    assert not joined(("a", "ann", CAPTION), ("a", "ann", CAPTION + " "))


def changed(words: list[str], similarity: float, rng) -> tuple[list[str], float]:
    """Words of which some are replaced, and the Jaccard index of the three-word sequences."""

    def sequences(them):
        return {tuple(them[n : n + 3]) for n in range(len(them) - 2)}

    other = list(words)
    while True:
        one, two = sequences(words), sequences(other)
        index = len(one & two) / len(one | two)
        if index <= similarity:
            return other, index
        other[int(rng.integers(len(other)))] = f"x{rng.integers(10**9)}"


@pytest.mark.parametrize(("similarity", "found"), [(0.93, True), (0.6, False)])
def test_the_similarity_is_that_of_the_three_word_sequences(similarity, found):
    """Of two hundred pairs of captions, since a few estimates may fall on the other side."""
    rng, rows = np.random.default_rng(0), []
    for n in range(200):
        words = [f"w{word}" for word in rng.integers(0, 10**9, 150)]
        rows += [(f"a{n}", f"author{n}", " ".join(words))]
        rows += [(f"b{n}", f"author{n}", " ".join(changed(words, similarity, rng)[0]))]
    share = len(joined(*rows)) / 200
    assert share > 0.95 if found else share < 0.05


def test_the_same_caption_posted_very_often_takes_time_in_proportion():
    rows = [(f"g{n}", "ann", CAPTION) for n in range(20_000)]
    start = time.process_time()
    pairs = list(near_captions(rows, 8, 0.8))
    assert time.process_time() - start < 5
    assert len(pairs) == len(rows) - 1


def test_captions_from_one_template_are_one_group_and_take_time_in_proportion():
    rows = [(f"g{n:05d}", "ann", f"{CAPTION} {OTHER} Slide number {n} of this series.") for n in range(2000)]
    start = time.process_time()
    groups = Groups()
    for one, other in near_captions(rows, 8, 0.8):
        groups.join(one, other)
    assert time.process_time() - start < 12
    assert len({groups.find(group) for group, *_ in rows}) == 1
