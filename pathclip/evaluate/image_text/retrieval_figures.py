"""From places to scores: recall@k, mAP and median rank with intervals over groups, chance, differences.

Columns of sums over groups are drawn from a few at a time, and above a hundred thousand groups with fewer
resamples, so that scoring a million pairs takes no more than some hundred MB besides the places themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate import stats
from pathclip.evaluate.image_text import retrieval_chance
from pathclip.evaluate.image_text.retrieval import Relevance, recall_at
from pathclip.evaluate.image_text.retrieval_pools import Pooled, shuffles
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Settings, compared, exact, paired, score, subject_context
from pathclip.types import Score

# Ranks around the median that resamples are told apart by, and how many standard errors they reach to.
_CANDIDATES = 65
_REACH = 8
# From so many groups on an interval is narrow, so fewer ranks will do, and fewer resamples.
_MANY_GROUPS = 100_000
_FEWER_CANDIDATES = 17
_DRAWS = 1_000_000_000  # of one interval
_FEWEST_RESAMPLES = 200
# Sums over groups that are resampled at once: 64 MB.
_SUMS = 8_000_000
# float32 counts up to here without a gap.
_EXACT = 2**24


@dataclass(frozen=True, slots=True)
class Search:
    """What every encoder found in one direction under one definition.

    Attributes:
        variant: 'plain' or 'randomised_colour'.
        direction: 'text_to_image' or 'image_to_text'.
        relevant: which items counted.
        found: subject's key → places in the full set, and then in pools of each size.
    """

    variant: str
    direction: str
    relevant: Relevance
    found: Mapping[str, Sequence[Pooled]]

    @property
    def where(self) -> dict[str, str]:
        """For the context of a score."""
        return {
            "variant": self.variant,
            "definition": self.relevant.definition,
            "direction": self.direction,
        }


@dataclass(frozen=True, slots=True)
class Figures:
    """Scores of one definition, variant and direction.

    Attributes:
        groups: group numbers int64 [n] of the queries.
        ks: of recall@k; those beyond a pool are left out there.
        settings: of the run.
        context: what every score says: task, variant, definition, direction ….
    """

    groups: NDArray[np.int64]
    ks: Sequence[int]
    settings: Settings
    context: Mapping[str, Any]

    def measured(
        self,
        subjects: Sequence[Subject],
        found: Mapping[str, Sequence[Pooled]],
        leaked: Mapping[str, Mapping[str, int | None]],
    ) -> list[Score]:
        """Scores of every subject, then the paired differences on the full set.

        Args:
            subjects: the encoders.
            found: see `Search`.
            leaked: subject's key → what the context says of pictures that it was trained on.
        """
        n = len(self.groups)
        columns = [
            (one.key, name, pool, k)
            for one in subjects
            for pool in found[one.key]
            for name, k in self._means(pool.size).items()
        ]
        if not columns:
            return []
        place = {(key, name): number for number, (key, name, _, _) in enumerate(columns)}
        resampled = self._resampled([(pool, k) for _, _, pool, k in columns])
        scores = []
        for one in subjects:
            about = {**self.context, "method": "retrieval", **subject_context(one), **leaked[one.key]}
            for pool in found[one.key]:
                where = {**about, **self._where(pool.size)}
                scores += [
                    score(name, resampled.interval(place[one.key, name]), n, where)
                    for name in self._means(pool.size)
                ]
                median = median_interval(pool.rank, self.groups, self.settings)
                scores.append(score(self._name("median_rank", pool.size), median, n, where))
        for first, second in paired(subjects):
            full = found[first.key][0]
            about = {**self.context, **self._where(n), **compared(first, second)}
            for name in self._means(full.size):
                interval = resampled.difference((place[first.key, name],), (place[second.key, name],))
                scores.append(score(f"{name}_difference", interval, n, about))
        return scores

    def chance(self, relevant: Relevance, sizes: Sequence[int]) -> list[Score]:
        """The same figures of a random order, in pools of these sizes."""
        scores = []
        for size in sizes:
            missed = retrieval_chance.chance_missed(relevant, size)
            values = {f"recall@{k}": retrieval_chance.recall_of(missed, k) for k in self.ks if k <= size}
            values["mean_average_precision"] = retrieval_chance.chance_average_precision(relevant, size)
            values["median_rank"] = retrieval_chance.median_rank_of(missed)
            about = {**self.context, "method": "chance", **self._where(size)}
            scores += [
                score(self._name(figure, size), exact(value), len(relevant), about)
                for figure, value in values.items()
            ]
        return scores

    def _means(self, size: int) -> dict[str, int]:
        """Name of each figure of a pool that is a mean over queries, and its k; 0 for mAP, which has none."""
        found = {self._name(f"recall@{k}", size): k for k in self.ks if k <= size}
        return {**found, self._name("mean_average_precision", size): 0}

    def _resampled(self, columns: Sequence[tuple[Pooled, int]]) -> stats.Resampled:
        """Means of these figures over all queries and over each resample, which all columns share."""
        counts = np.bincount(self.groups)
        step = max(1, _SUMS // len(counts) - 1)
        parts = []
        for start in range(0, len(columns), step):
            taken = columns[start : start + step]
            sums = np.empty((len(counts), len(taken) + 1))
            for number, (pool, k) in enumerate(taken):
                values = recall_at(k, pool.rank).mean(axis=1) if k else pool.average_precision
                sums[:, number] = np.bincount(self.groups, values)
            sums[:, -1] = counts
            settings = self.settings
            parts.append(stats.bootstrap_many(sums, _ratios, settings.resamples, settings.seed))
        return stats.Resampled(
            np.concatenate([part.value for part in parts]),
            np.concatenate([part.drawn for part in parts], axis=1),
        )

    def _name(self, figure: str, size: int) -> str:
        where = "" if size == len(self.groups) else f"_in_pools_of_{size}"
        return f"{self.context['direction']}_{figure}{where}"

    def _where(self, size: int) -> dict[str, int]:
        n = len(self.groups)
        return {"pool": size} if size == n else {"pool": size, "shuffles": shuffles(n, size)}


def enough_resamples(resamples: int, n_groups: int) -> int:
    """How many of the resamples asked for are drawn of so many groups: 200 to all of them.

    >>> [enough_resamples(10_000, n_groups) for n_groups in (500, 100_000, 1_000_000)]
    [10000, 10000, 1000]
    """
    return min(resamples, max(_FEWEST_RESAMPLES, _DRAWS // max(1, n_groups)))


def median_interval(rank: NDArray[Any], groups: NDArray[np.int64], settings: Settings) -> stats.Interval:
    """Median, the lower one of two, of all ranks [n, shuffles] of n queries, and its bootstrap interval.

    A resample's median lies close to that of all; how close, the standard error of the share of ranks up to
    the median says. Ranks within eight of these are told apart, 65 of them at most and 17 of more than a
    hundred thousand groups, so that the median is a function of sums over groups: how many ranks are no
    larger than each.
    """
    ordered = np.sort(rank, axis=None)
    value = ordered[(len(ordered) - 1) // 2]
    counts = np.stack([(rank <= value).sum(axis=1), np.full(len(rank), rank.shape[1])], axis=1)
    sums = stats.group_sums(counts, groups)
    most = _FEWER_CANDIDATES if len(sums) > _MANY_GROUPS else _CANDIDATES
    below, total = sums.sum(axis=0)
    error = float(np.sqrt(np.square(sums[:, 0] - below / total * sums[:, 1]).sum()) / total)
    ends = np.clip([0.5 - _REACH * error, below / total + _REACH * error], 0, 1) * (len(ordered) - 1)
    near = np.unique(ordered[int(ends[0]) : int(np.ceil(ends[1])) + 1])
    chosen = near[np.linspace(0, len(near) - 1, min(len(near), most)).round().astype(int)]
    candidates = np.unique([*chosen, value, ordered[-1]])

    up_to = np.zeros((len(sums), len(candidates)), np.float32 if rank.size < _EXACT else np.float64)
    np.add.at(up_to, (groups[:, None], np.searchsorted(candidates, rank)), 1)
    np.cumsum(up_to, axis=1, out=up_to)

    def median(sums: NDArray[np.float64]) -> Any:
        return candidates[np.argmax(sums >= sums[..., -1:] / 2, axis=-1)]

    return stats.bootstrap(up_to, median, settings.resamples, settings.seed)


def _ratios(sums: NDArray[np.float64]) -> Any:
    """All sums over the last, which counts the queries."""
    return sums[..., :-1] / sums[..., -1:]
