"""Two runs on the same pictures: the difference of each figure, its interval, and whether it may be luck.

Pictures are matched by the SHA-256 of their bytes. The interval is a paired bootstrap over groups; the
p-value comes from swapping the answers of whole groups (`stats.paired_swap_test`), corrected for the number
of rows after Holm.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import DataError
from pathclip.evaluate import stats
from pathclip.evaluate.comparison.compare_remarks import (
    no_picture_in_common,
    obstacle,
    only_in_one,
    seeds_of,
    told,
)
from pathclip.evaluate.comparison.measurements import Measurement, Side, sides_of, within
from pathclip.evaluate.comparison.saved_report import SavedReport
from pathclip.evaluate.reporting.report import LEAK
from pathclip.evaluate.task import Answers

SIGNIFICANT = 0.05
RECALL_AT = 10


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of two sides.

    Attributes:
        what: task, method, variant, precision.
        figure: 'balanced_accuracy', 'recall@10'.
        first: label of the one side.
        second: label of the other.
        values: of both, each with its interval, on the shared pictures.
        difference: second minus first, paired.
        p: of the swap test; NaN where it was not judged.
        p_holm: the same, corrected for all rows of the comparison.
        n: shared pictures or queries.
        groups: of them.
        left_out: pictures that only the first has, that only the second has, and that both name differently.
        marks: of the first and of the second.
        verdict: in words.
    """

    what: Measurement
    figure: str
    first: str
    second: str
    values: tuple[stats.Interval, stats.Interval]
    difference: stats.Interval
    p: float
    p_holm: float
    n: int
    groups: int
    left_out: tuple[int, int, int]
    marks: tuple[tuple[str, ...], tuple[str, ...]]
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows, and what a reader must know of them.

    Attributes:
        sides: label → title and what identifies it.
        rows: in the order of the tasks.
        remarks: what could not be compared, and why.
        resamples: of bootstrap and swap test.
        seed: of both.
    """

    sides: Mapping[str, Mapping[str, Any]]
    rows: tuple[Row, ...]
    remarks: tuple[str, ...]
    resamples: int
    seed: int


def compare(reports: Sequence[SavedReport], resamples: int = 10_000, seed: int = 0) -> Comparison:
    """Compares every two reports; of a single one int8 with fp32, and the model with the untrained one.

    Args:
        reports: named A, B, C … in this order.
        resamples: of bootstrap and swap test.
        seed: of both.

    Raises:
        DataError: nothing that can be compared.
    """
    pairs = within(reports[0]) if len(reports) == 1 else list(combinations(sides_of(reports), 2))
    rows: list[Row] = []
    remarks: list[str] = []
    for first, second in pairs:
        for what in [key for key in first.answers if key in second.answers]:
            if _is_the_same_untrained(what, first, second):
                continue
            if found := obstacle(what, first, second):
                remarks.append(found)
                continue
            row = _row(what, first, second, resamples, seed)
            if row is None:
                remarks.append(no_picture_in_common(what, first, second))
                continue
            remarks += told(what, first, second, row.n, row.groups, row.left_out)
            rows.append(row)
        remarks += only_in_one(first, second)
    sides = {side.label: side.about for pair in pairs for side in pair}
    remarks = list(dict.fromkeys(remarks))
    if not rows:
        raise DataError("nothing to compare: " + (" ".join(remarks) or "these reports share no task"))
    corrected = stats.holm([row.p for row in rows])
    judged = [
        replace(row, p_holm=p, verdict=_verdict(row, p)) for row, p in zip(rows, corrected, strict=True)
    ]
    return Comparison(sides, tuple(judged), tuple(remarks), resamples, seed)


def _row(what: Measurement, first: Side, second: Side, resamples: int, seed: int) -> Row | None:
    """The figure of both sides on the pictures that both have; None if there are none."""
    ones, others = first.answers[what], second.answers[what]
    mine, theirs, left_out = shared(ones, others)
    if not len(mine):
        return None
    groups = _groups(ones, others, mine, theirs)
    if ones.rank is not None and others.rank is not None:
        k = RECALL_AT if len(mine) > RECALL_AT else 1
        figure, statistic = f"recall@{k}", stats.ratio
        sums = [_hits(ones.rank[mine] <= k, groups), _hits(others.rank[theirs] <= k, groups)]
    else:
        figure, statistic = "balanced_accuracy", mean_recall
        sums = [_recalls(ones, mine, groups), _recalls(others, theirs, groups)]

    def all_three(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
        values = statistic(one), statistic(other)
        return np.stack([*values, values[1] - values[0]], axis=-1)

    drawn = stats.bootstrap_many(sums, all_three, resamples, seed)
    marks = first.marks[what], second.marks[what]
    leaking = any(mark.startswith(LEAK) for both in marks for mark in both)
    p = math.nan if leaking else stats.paired_swap_test(sums[0], sums[1], statistic, resamples, seed)
    return Row(
        _named(what, first, second),
        figure,
        first.label,
        second.label,
        (drawn.interval(0), drawn.interval(1)),
        drawn.interval(2),
        p,
        math.nan,
        len(mine),
        int(groups.max()) + 1,
        left_out,
        marks,
    )


def _named(what: Measurement, first: Side, second: Side) -> Measurement:
    """As the row has it: of several seeds the answers of the first are kept."""
    if max(seeds_of(first, what), seeds_of(second, what)) == 1:
        return what
    return replace(what, detail=", ".join(filter(None, (what.detail, "first seed"))))


def shared(
    first: Answers, second: Answers
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[int, int, int]]:
    """Positions of the pictures that both measured with the same truth.

    A picture that stands in the data twice is matched twice, with each truth in order.

    Returns:
        Positions in the first and in the second, int64 [n] each; and how many are left out: in the first
        alone, in the second alone, in both with another truth.
    """
    named = first.truth is not None and second.truth is not None
    keys = [_numbered(one.items, one.truth if named else None) for one in (first, second)]
    theirs = {key: position for position, key in enumerate(keys[1])}
    mine, matched = [], []
    unmatched: Counter[str] = Counter()
    for position, key in enumerate(keys[0]):
        other = theirs.pop(key, None)
        if other is None:
            unmatched[key[0]] += 1
        else:
            mine.append(position)
            matched.append(other)
    differing = (unmatched & Counter(item for item, _, _ in theirs)).total()
    both = len(mine) + differing
    left_out = len(first.items) - both, len(second.items) - both, differing
    return np.array(mine, np.int64), np.array(matched, np.int64), left_out


def mean_recall(sums: NDArray[Any]) -> Any:
    """Balanced accuracy from right answers and examples of each class, [..., classes, 2].

    >>> float(mean_recall(np.array([[8.0, 8.0], [1.0, 2.0]])))
    0.75
    """
    right, examples = sums[..., 0], sums[..., 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.where(examples > 0, right / examples, 0.0)
        return recall.sum(axis=-1) / (examples > 0).sum(axis=-1)


def _numbered(items: Sequence[str], truth: Sequence[str] | None) -> Iterator[tuple[str, str, int]]:
    """Each picture with its truth, if that is asked for, and how often the two came before."""
    seen: Counter[tuple[str, str]] = Counter()
    for key in zip(items, truth or repeat(""), strict=False):
        yield *key, seen[key]
        seen[key] += 1


def _groups(
    first: Answers, second: Answers, mine: NDArray[np.int64], theirs: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Group numbers of the shared pictures, of the side with the larger groups: the careful choice."""
    found = [
        stats.group_index([one.groups[number] for number in taken])
        for one, taken in ((first, mine), (second, theirs))
    ]
    return min(found, key=lambda index: int(index.max()))


def _recalls(one: Answers, taken: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Right answers and examples of each class in each group: float64 [G, classes, 2]."""
    assert one.truth is not None and one.answer is not None
    truth = [one.truth[number] for number in taken]
    names = {name: position for position, name in enumerate(sorted(set(truth)))}
    classes = np.array([names[name] for name in truth])
    right = np.array([one.answer[number] == one.truth[number] for number in taken], np.float64)
    sums = np.zeros((int(groups.max()) + 1, len(names), 2))
    np.add.at(sums[..., 0], (groups, classes), right)
    np.add.at(sums[..., 1], (groups, classes), 1.0)
    return sums


def _hits(hit: NDArray[np.bool_], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    return stats.group_sums(np.stack([hit, np.ones(len(hit))], axis=1), groups)


def _is_the_same_untrained(what: Measurement, first: Side, second: Side) -> bool:
    """Whether both sides show one untrained model for reference: no difference is to be looked for."""
    hashes = {str(side.contexts[what].get("model_hash")) for side in (first, second)}
    return what.role == "untrained" and len(hashes) == 1


def _verdict(row: Row, p: float) -> str:
    leaking = [
        label
        for label, marks in zip((row.first, row.second), row.marks, strict=True)
        if any(mark.startswith(LEAK) for mark in marks)
    ]
    if leaking:
        return f"not judged: leak in {' and '.join(leaking)}"
    if math.isnan(p) or p >= SIGNIFICANT:
        return "no difference shown"
    return f"{row.second if row.difference.value > 0 else row.first} better"
