"""Every figure of a zero-shot task in one go: all encoders, baselines and variants from the same draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate import stats
from pathclip.evaluate.classification import zeroshot
from pathclip.evaluate.classification.auroc import bootstrap_auroc
from pathclip.evaluate.task import Settings, exact, score
from pathclip.types import Score

Numbers = NDArray[np.int64]
RECALL = "recall"


@dataclass(frozen=True, slots=True)
class Predictor:
    """One that said something of every picture.

    Attributes:
        key: names it within its variant.
        about: entries of its scores' context: variant, method, the encoder's own.
        answers: class numbers int64 [n].
        odds: what orders the pictures by each class [n, c], for AUROC; None leaves that out.
    """

    key: str
    about: Mapping[str, Any]
    answers: Numbers
    odds: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired difference, the first predictor's key minus the second's, in the variant of `about`."""

    first: str
    second: str
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Figures:
    """Turns answers into scores; holds what all of them share.

    Attributes:
        truth: class numbers int64 [n].
        groups: group numbers int64 [n], from `stats.group_index`.
        classes: names.
        settings: of the run.
        context: entries of every score's context.
    """

    truth: Numbers
    groups: Numbers
    classes: Sequence[str]
    settings: Settings
    context: Mapping[str, Any]

    def scores(self, predictors: Sequence[Predictor], comparisons: Sequence[Comparison] = ()) -> list[Score]:
        """The scores of the predictors, of chance in each variant, and of the comparisons.

        Each predictor gets `zeroshot.METRICS`, AUROC if it has odds, and the recall of each class with n
        of that class; each comparison the same but for the recalls.
        """
        if not predictors:
            return []
        answers = [one.answers for one in predictors]
        margins = zeroshot.grouped_margins(self.truth, answers, len(self.classes), self.groups)
        resamples, seed = self.settings.resamples, self.settings.seed
        counted = stats.bootstrap_many(margins, _all_metrics, resamples, seed)
        odds = [one.odds for one in predictors if one.odds is not None]
        ranked = bootstrap_auroc(self.truth, odds, self.groups, resamples, seed) if odds else None
        ranks = np.cumsum([one.odds is not None for one in predictors]) - 1
        place = {(one.key, one.about["variant"]): number for number, one in enumerate(predictors)}

        found: list[Score] = []
        for number, one in enumerate(predictors):
            figures = {name: counted.interval(number, column) for column, name in enumerate(zeroshot.METRICS)}
            found += self._scores(figures, one.about)
            if ranked is not None and one.odds is not None:
                area = {"auroc": ranked.interval(int(ranks[number]))}
                found += self._scores(area, {**one.about, "resamples": len(ranked.drawn)})
            found += self._recalls(counted, number, one.about)
        for variant in dict.fromkeys(one.about["variant"] for one in predictors):
            found += self.chance(variant)
        for pair in comparisons:
            first, second = (place[key, pair.about["variant"]] for key in (pair.first, pair.second))
            figures = {
                f"{name}_difference": counted.difference((first, column), (second, column))
                for column, name in enumerate(zeroshot.METRICS)
            }
            found += self._scores(figures, pair.about)
            if (
                ranked is not None
                and predictors[first].odds is not None
                and predictors[second].odds is not None
            ):
                area = {"auroc_difference": ranked.difference((int(ranks[first]),), (int(ranks[second]),))}
                found += self._scores(area, {**pair.about, "resamples": len(ranked.drawn)})
        return found

    def chance(self, variant: str) -> list[Score]:
        """What a uniform guess gets, see `zeroshot.chance_levels`; exact, so without interval."""
        examples = np.bincount(self.truth, minlength=len(self.classes))
        about = {**self.context, "variant": variant, "method": "chance"}
        return [
            score(name, exact(value), len(self.truth), about)
            for name, value in zeroshot.chance_levels(examples).items()
        ]

    def _scores(self, figures: Mapping[str, stats.Interval], about: Mapping[str, Any]) -> list[Score]:
        context = {**self.context, **about}
        return [score(name, found, len(self.truth), context) for name, found in figures.items()]

    def _recalls(self, counted: stats.Resampled, number: int, about: Mapping[str, Any]) -> list[Score]:
        examples = np.bincount(self.truth, minlength=len(self.classes))

        def recall(column: int) -> stats.Interval:
            found = counted.interval(number, len(zeroshot.METRICS) + column)
            # All the pictures of a class in one group: no draw of groups changes its recall.
            few = len(np.unique(self.groups[self.truth == column])) < stats.FEWEST_GROUPS
            return stats.Interval(found.value, np.nan, np.nan) if few else found

        return [
            score(
                RECALL,
                recall(column),
                int(examples[column]),
                {**self.context, **about, "class": name},
            )
            for column, name in enumerate(self.classes)
        ]


def _all_metrics(*margins: Any) -> NDArray[np.float64]:
    """All metrics, then all recalls, of margins [b, encoders, c]: [b, encoders, metrics + c]."""
    counts = zeroshot.Margins(*margins)
    # `true` is held once for all encoders.
    counts = counts._replace(true=np.broadcast_to(counts.true, counts.hits.shape))
    figures = np.stack([metric(counts) for metric in zeroshot.METRICS.values()], axis=-1)
    return np.concatenate([figures, zeroshot.recalls(counts)], axis=-1)
