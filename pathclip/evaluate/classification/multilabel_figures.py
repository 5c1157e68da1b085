"""Every figure of a multi-label task: encoders and baselines from the same draws of groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate import stats
from pathclip.evaluate.classification import multilabel, ranking
from pathclip.evaluate.measures import calibration
from pathclip.evaluate.task import Settings, exact, score
from pathclip.types import Score

Floats = NDArray[np.float64]
RANKED = ("auroc", "average_precision")
MACRO = ("macro_auroc", "mean_average_precision")
DECIDED = ("macro_f1", "micro_f1", "exact_match", "hamming_loss")


@dataclass(frozen=True, slots=True)
class Ranked:
    """AUROC and average precision [2] of each class, of all pictures and of resamples."""

    per_class: tuple[stats.Resampled, ...]

    @property
    def mean(self) -> stats.Resampled:
        """Over the classes."""
        return ranking.mean(self.per_class)


@dataclass(frozen=True, slots=True)
class MultiLabelFigures:
    """Turns scores and decisions into figures; holds what all of them share.

    Attributes:
        present: what the pictures show, bool [n, c].
        groups: group numbers int64 [n].
        classes: names.
        settings: of the run.
        context: entries of every score's context.
    """

    present: NDArray[np.bool_]
    groups: NDArray[np.int64]
    classes: Sequence[str]
    settings: Settings
    context: Mapping[str, Any]

    def rank(self, scores: Floats) -> Ranked:
        """Bootstraps what the order by scores [n, c] is worth."""
        return Ranked(
            tuple(self._ranked(column, truth) for column, truth in zip(scores.T, self.present.T, strict=True))
        )

    def ranked_scores(self, found: Ranked, about: Mapping[str, Any]) -> list[Score]:
        """Means over the classes, then each class."""
        mean, n = found.mean, len(self.present)
        shared = {**self.context, **about, "resamples": len(mean.drawn)}
        scores = [
            score(name, mean.interval(number), n, shared) for number, name in reversed(list(enumerate(MACRO)))
        ]
        for key, one in zip(self.classes, found.per_class, strict=True):
            scores += [
                score(name, one.interval(number), n, {**shared, "class": key})
                for number, name in enumerate(RANKED)
            ]
        return scores

    def difference(self, first: Ranked, second: Ranked, about: Mapping[str, Any]) -> list[Score]:
        """First minus second, paired by the groups drawn."""
        drawn = ranking.difference(first.mean, second.mean)
        shared = {**self.context, **about, "resamples": len(drawn.drawn)}
        return [
            score(f"{name}_difference", drawn.interval(number), len(self.present), shared)
            for number, name in enumerate(MACRO)
        ]

    def decided_scores(self, predicted: NDArray[np.bool_], about: Mapping[str, Any]) -> list[Score]:
        """F1, exact match and Hamming loss of decisions bool [n, c]."""
        n, many = predicted.shape
        counts = multilabel.counts(predicted, self.present)
        wrong = (predicted != self.present).sum(axis=1)
        rows = np.column_stack([counts.reshape(n, -1), wrong == 0, wrong / many, np.ones(n)])

        def statistic(sums: Floats) -> Any:
            per_class = sums[..., :-3].reshape(*sums.shape[:-1], many, 3)
            shares = [sums[..., place] / sums[..., -1] for place in (-3, -2)]
            return np.stack(
                [multilabel.macro_f1(per_class), multilabel.micro_f1(per_class), *shares], axis=-1
            )

        drawn = stats.bootstrap_many(
            stats.group_sums(rows, self.groups), statistic, self.settings.resamples, self.settings.seed
        )
        return [
            score(name, drawn.interval(number), n, {**self.context, **about})
            for number, name in enumerate(DECIDED)
        ]

    def chance(self, about: Mapping[str, Any]) -> list[Score]:
        """What a random order is expected to reach; see `ranking.chance_average_precision`."""
        n = len(self.present)
        expected = ranking.chance_average_precision(self.present.sum(axis=0), n)
        shared = {**self.context, **about}
        scores = [
            score("mean_average_precision", exact(float(expected.mean())), n, shared),
            score("macro_auroc", exact(0.5), n, shared),
        ]
        for key, value in zip(self.classes, expected, strict=True):
            scores += [
                score("auroc", exact(0.5), n, {**shared, "class": key}),
                score("average_precision", exact(float(value)), n, {**shared, "class": key}),
            ]
        return scores

    def cross_decided(self, scores: Floats) -> NDArray[np.bool_] | None:
        """Decisions at thresholds that were fitted on the other half of the groups; None for one group."""
        _, kinds = np.unique(self.present, axis=0, return_inverse=True)
        halves = calibration.halves(kinds.ravel(), self.groups, self.settings.seed)
        if halves is None:
            return None
        decided = np.zeros_like(self.present)
        for half in (0, 1):
            thresholds = multilabel.f1_thresholds(scores[halves != half], self.present[halves != half])
            decided[halves == half] = scores[halves == half] >= thresholds
        return decided

    def _ranked(self, scores: Floats, present: NDArray[np.bool_]) -> stats.Resampled:
        ordered = ranking.Ranking.of(scores)

        def statistic(weights: Floats) -> Floats:
            return np.column_stack(
                [
                    ranking.auroc(ordered, present, weights),
                    ranking.average_precision(ordered, present, weights),
                ]
            )

        return ranking.resampled(ordered, self.groups, statistic, self.settings.resamples, self.settings.seed)
