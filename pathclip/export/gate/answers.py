"""What the two precisions answer on the same samples: zero-shot classes, retrieval, balanced accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate.stats import Interval, bootstrap, group_index, group_sums, ratio
from pathclip.export.gate.verdict import Line, at_least, loss, unseen, widened
from pathclip.runtime.encoder import normalise

RESAMPLES = 2000
SEED = 0


def mean_interval(values: NDArray[Any], groups: Sequence[str]) -> Interval:
    """Mean of values [n] and its 95 % interval over groups."""
    index = group_index(groups)
    sums = group_sums(np.stack([values, np.ones(len(values))], axis=1).astype(np.float64), index)
    return bootstrap(sums, ratio, RESAMPLES, SEED)


def share_interval(values: NDArray[np.bool_], groups: Sequence[str]) -> Interval:
    """Share of true values [n] and its 95 % interval over groups, by the rule of three if all are alike."""
    return widened(mean_interval(values, groups), unseen(count(groups)), 0.0, 1.0)


def class_vectors(rows: NDArray[Any], classes: NDArray[np.int64]) -> NDArray[Any]:
    """One L2-normalised vector [classes, d] per class, of prompts' embeddings [prompts, d].

    As pathclip.runtime.classify does it: the mean is normalised again, so that a class whose templates
    disagree does not count for less.
    """
    count = int(classes.max()) + 1
    return normalise(np.stack([rows[classes == number].mean(axis=0) for number in range(count)]))


def found_at(
    queries: NDArray[Any], gallery: NDArray[Any], same: NDArray[np.bool_], k: int = 10
) -> NDArray[np.bool_]:
    """Whether each query has a true match among the k most similar.

    Args:
        queries: L2-normalised [q, d].
        gallery: L2-normalised [g, d].
        same: bool [q, g], which pairs match.
        k: cut-off.

    Returns:
        bool [q].
    """
    top = np.argsort(-(queries @ gallery.T), axis=1, kind="stable")[:, :k]
    return np.asarray(np.take_along_axis(same, top, axis=1).any(axis=1))


def agreement_line(
    before: NDArray[np.int64], after: NDArray[np.int64], groups: Sequence[str], limit: float, note: str = ""
) -> Line:
    """Share of pictures with the same best class, of class numbers [n]."""
    same = before == after
    interval = share_interval(same, groups)
    return at_least("zero-shot agreement", float(same.mean()), limit, len(same), note, interval)


def recall_line(
    name: str,
    before: NDArray[np.bool_],
    after: NDArray[np.bool_],
    groups: Sequence[str],
    limit: float,
    remark: str = "",
) -> Line:
    """Share of queries that found a match in fp32 minus that in int8, of bool [n] each."""
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    change = before.astype(np.float64) - after
    interval = widened(mean_interval(change, groups), unseen(count(groups)), -1.0, 1.0)
    note = f"{before.mean():.3f} → {after.mean():.3f}; {lost} lost, {gained} gained"
    return loss(name, interval, limit, len(before), joined(note, remark))


def accuracy_line(
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    labels: NDArray[np.int64],
    groups: Sequence[str],
    limit: float,
    source: str,
) -> Line:
    """Balanced accuracy of fp32 minus that of int8, of class numbers [n]; paired, over groups.

    Where nothing changed, the rule of three holds for each class by itself: one of few groups may lose much
    that was not seen, and weighs as much as the others.
    """
    one_hot = labels[:, None] == np.arange(int(labels.max()) + 1)
    answers = np.stack([before == labels, after == labels, np.ones(len(labels), bool)], axis=1)
    sums = group_sums((one_hot[:, :, None] & answers[:, None, :]).astype(np.float64), group_index(groups))

    def recall(totals: NDArray[Any], which: int) -> NDArray[Any]:
        seen = totals[..., 2] > 0
        hits = np.divide(totals[..., which], totals[..., 2], out=np.zeros_like(totals[..., 2]), where=seen)
        return np.asarray(hits.sum(axis=-1) / seen.sum(axis=-1))

    def lost(totals: NDArray[Any]) -> NDArray[Any]:
        return recall(totals, 0) - recall(totals, 1)

    groups_of_class = (sums[..., 2] > 0).sum(axis=0)
    reach = float(np.mean([unseen(int(one)) for one in groups_of_class if one]))
    drawn = bootstrap(sums, lost, RESAMPLES, SEED)
    interval = widened(drawn, reach, -1.0, 1.0)
    first, second = (float(recall(sums.sum(axis=0), which)) for which in (0, 1))
    note = f"{first:.3f} → {second:.3f} on {source}"
    if interval != drawn:
        note += "; no class lost any: the interval is what its few groups may hide"
    return loss("balanced accuracy lost", interval, limit, len(labels), note)


def joined(*parts: str) -> str:
    """Remarks of a note, without the empty ones."""
    return "; ".join(part for part in parts if part)


def count(groups: Sequence[str]) -> int:
    """How many different groups there are; one that is not known ('') counts for itself."""
    return int(group_index(groups).max(initial=-1)) + 1
