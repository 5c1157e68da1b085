"""From places to scores: recall@k, mAP and median rank with intervals over groups, chance, differences."""

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
        columns = {
            (one.key, name): values
            for one in subjects
            for pool in found[one.key]
            for name, values in self._means(pool).items()
        }
        if not columns:
            return []
        place = {column: number for number, column in enumerate(columns)}
        sums = stats.group_sums(np.stack([*columns.values(), np.ones(n)], axis=1), self.groups)
        resampled = stats.bootstrap_many(sums, _ratios, self.settings.resamples, self.settings.seed)
        scores = []
        for one in subjects:
            about = {**self.context, "method": "retrieval", **subject_context(one), **leaked[one.key]}
            for pool in found[one.key]:
                where = {**about, **self._where(pool.size)}
                scores += [
                    score(name, resampled.interval(place[one.key, name]), n, where)
                    for name in self._means(pool)
                ]
                median = median_interval(pool.rank, self.groups, self.settings)
                scores.append(score(self._name("median_rank", pool.size), median, n, where))
        for first, second in paired(subjects):
            full = found[first.key][0]
            about = {**self.context, **self._where(n), **compared(first, second)}
            for name in self._means(full):
                interval = resampled.difference((place[first.key, name],), (place[second.key, name],))
                scores.append(score(f"{name}_difference", interval, n, about))
        return scores

    def chance(self, relevant: Relevance, sizes: Sequence[int]) -> list[Score]:
        """The same figures of a random order, in pools of these sizes."""
        scores = []
        for size in sizes:
            values = {
                f"recall@{k}": retrieval_chance.chance_recall(k, relevant, size) for k in self.ks if k <= size
            }
            values["mean_average_precision"] = retrieval_chance.chance_average_precision(relevant, size)
            values["median_rank"] = retrieval_chance.chance_median_rank(relevant, size)
            about = {**self.context, "method": "chance", **self._where(size)}
            scores += [
                score(self._name(figure, size), exact(value), len(relevant), about)
                for figure, value in values.items()
            ]
        return scores

    def _means(self, pool: Pooled) -> dict[str, NDArray[np.float64]]:
        """Name of each figure that is a mean over queries, and its value for each query."""
        found = {
            self._name(f"recall@{k}", pool.size): recall_at(k, pool.rank).mean(axis=1)
            for k in self.ks
            if k <= pool.size
        }
        return {**found, self._name("mean_average_precision", pool.size): pool.average_precision}

    def _name(self, figure: str, size: int) -> str:
        where = "" if size == len(self.groups) else f"_in_pools_of_{size}"
        return f"{self.context['direction']}_{figure}{where}"

    def _where(self, size: int) -> dict[str, int]:
        n = len(self.groups)
        return {"pool": size} if size == n else {"pool": size, "shuffles": shuffles(n, size)}


def median_interval(rank: NDArray[Any], groups: NDArray[np.int64], settings: Settings) -> stats.Interval:
    """Median, the lower one of two, of all ranks [n, shuffles] of n queries, and its bootstrap interval.

    A resample's median lies close to that of all; how close, the standard error of the share of ranks up to
    the median says. Ranks within eight of these are told apart, 65 of them at most, so that the median is
    a function of sums over groups: how many ranks are no larger than each.
    """
    ordered = np.sort(rank, axis=None)
    value = ordered[(len(ordered) - 1) // 2]
    counts = np.stack([(rank <= value).sum(axis=1), np.full(len(rank), rank.shape[1])], axis=1)
    sums = stats.group_sums(counts, groups)
    below, total = sums.sum(axis=0)
    error = float(np.sqrt(np.square(sums[:, 0] - below / total * sums[:, 1]).sum()) / total)
    ends = np.clip([0.5 - _REACH * error, below / total + _REACH * error], 0, 1) * (len(ordered) - 1)
    near = np.unique(ordered[int(ends[0]) : int(np.ceil(ends[1])) + 1])
    chosen = near[np.linspace(0, len(near) - 1, min(len(near), _CANDIDATES)).round().astype(int)]
    candidates = np.unique([*chosen, value, ordered[-1]])

    up_to = np.zeros((len(sums), len(candidates)))
    np.add.at(up_to, (groups[:, None], np.searchsorted(candidates, rank)), 1)
    up_to = np.cumsum(up_to, axis=1)

    def median(sums: NDArray[np.float64]) -> Any:
        return candidates[np.argmax(sums >= sums[..., -1:] / 2, axis=-1)]

    return stats.bootstrap(up_to, median, settings.resamples, settings.seed)


def _ratios(sums: NDArray[np.float64]) -> Any:
    """All sums over the last, which counts the queries."""
    return sums[..., :-1] / sums[..., -1:]
