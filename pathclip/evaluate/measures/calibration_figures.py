"""Figures of fitted probabilities on pictures that nothing was fitted on, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate import stats
from pathclip.evaluate.classification import ranking
from pathclip.evaluate.measures import calibration
from pathclip.evaluate.stats import Interval
from pathclip.runtime.calibration import ConformalMethod, conformal_scores, softmax

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
SIMILARITY, PROBABILITY = "highest_similarity", "highest_probability"


@dataclass(frozen=True, slots=True)
class Rows:
    """Pictures of known classes.

    Attributes:
        similarity: cosine similarities [n, c].
        truth: class numbers int64 [n].
        groups: group numbers int64 [n].
    """

    similarity: NDArray[Any]
    truth: Numbers
    groups: Numbers

    def take(self, which: NDArray[Any]) -> Rows:
        """Those at the given places."""
        return Rows(self.similarity[which], self.truth[which], self.groups[which])


@dataclass(frozen=True, slots=True)
class Values:
    """What each of n judged pictures is judged by, fitted on other groups than its own.

    Attributes:
        scale: factor before the softmax [n].
        conformal: threshold of the conformal score [n].
        without: for each class what is fitted without it; see `Without`.
    """

    scale: Floats
    conformal: Floats
    without: tuple[Without, ...]


@dataclass(frozen=True, slots=True)
class Without:
    """What is fitted on the other classes alone.

    Attributes:
        scale: factor before the softmax [n].
        similarity: threshold of the highest similarity [n]; minus infinity where there were too few groups.
        probability: threshold of the highest probability [n]; likewise.
    """

    scale: Floats
    similarity: Floats
    probability: Floats

    @property
    def fitted(self) -> bool:
        """Whether there were groups enough for the thresholds, of every picture."""
        return bool(np.isfinite(self.similarity).all() and np.isfinite(self.probability).all())


@dataclass(frozen=True, slots=True)
class Figure:
    """A score to be; `about` goes into its context."""

    name: str
    found: Interval
    n: int
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judge:
    """How figures are measured.

    Attributes:
        bins: of the calibration error.
        method: of the conformal sets.
        coverage: that the sets are to reach.
        known_pass: the share of known pictures that "none of these" is to let pass.
        selective: parts of the pictures that are kept, the surest first.
        resamples: of the bootstrap.
        seed: of its draws.
    """

    bins: int
    method: ConformalMethod
    coverage: float
    known_pass: float
    selective: Sequence[float]
    resamples: int
    seed: int

    def fit(self, rows: Rows) -> calibration.Fitted:
        """Fits everything on all classes."""
        return calibration.fit(
            rows.similarity, rows.truth, rows.groups, self.method, self.coverage, self.known_pass
        )

    def values(self, parts: Sequence[tuple[Rows, NDArray[Any]]], n: int, classes: int) -> Values:
        """Fits on each part's rows what the pictures at its places are judged by."""
        scale, conformal = np.empty(n), np.empty(n)
        without = tuple(Without(np.empty(n), np.empty(n), np.empty(n)) for _ in range(classes))
        for rows, judged in parts:
            fitted = self.fit(rows)
            scale[judged], conformal[judged] = fitted.logit_scale, fitted.conformal_threshold
            for number, one in enumerate(without):
                known = rows.take(rows.truth != number)
                similarity = np.delete(known.similarity, number, axis=1)
                truth = known.truth - (known.truth > number)
                own = calibration.fit_logit_scale(similarity, truth)[0] if len(truth) else 1.0
                one.scale[judged] = own
                one.similarity[judged] = self._passed(similarity.max(axis=1), known.groups)
                one.probability[judged] = self._passed(softmax(similarity, own).max(axis=1), known.groups)
        return Values(scale, conformal, without)

    def probabilities(self, rows: Rows, own_scale: float, values: Values) -> list[Figure]:
        """Calibration error, Brier score and likelihood before and after, and after minus before."""
        before, after = softmax(rows.similarity, own_scale), softmax(rows.similarity, values.scale)
        reliability = np.stack(
            [
                calibration.reliability_sums(shares, rows.truth, rows.groups, self.bins, equal_mass)
                for equal_mass in (False, True)
                for shares in (before, after)
            ],
            axis=1,
        )
        errors = self._bootstrap(reliability, calibration.calibration_error)
        losses = [
            *(calibration.brier(shares, rows.truth) for shares in (before, after)),
            *(
                calibration.negative_log_likelihood(rows.similarity, rows.truth, scale)
                for scale in (own_scale, values.scale)
            ),
        ]
        means = self._means(np.stack(losses, axis=1), rows.groups)
        figures = []
        for drawn, names in (
            (errors, ("ece", "adaptive_ece")),
            (means, ("brier", "negative_log_likelihood")),
        ):
            for number, name in enumerate(names):
                first, second = (2 * number,), (2 * number + 1,)
                figures += [
                    Figure(f"{name}_before", drawn.interval(*first), len(rows.truth)),
                    Figure(f"{name}_after", drawn.interval(*second), len(rows.truth)),
                    Figure(f"{name}_change", drawn.difference(second, first), len(rows.truth)),
                ]
        for figure in figures:
            if "ece" in figure.name:
                figure.about["bins"] = self.bins
        return figures

    def sets(self, rows: Rows, values: Values) -> list[Figure]:
        """Coverage and size of the conformal sets."""
        shares = softmax(rows.similarity, values.scale)
        inside = conformal_scores(shares, self.method) <= values.conformal[:, None]
        size = inside.sum(axis=1)
        covered = inside[np.arange(len(size)), rows.truth]
        drawn = self._means(np.stack([covered, size, size == 0, size == 1], axis=1), rows.groups)
        figures = [
            Figure(f"conformal_{name}", drawn.interval(number), len(size))
            for number, name in enumerate(("coverage", "set_size", "empty", "singleton"))
        ]
        pairs = stats.group_sums(np.stack([covered, np.ones(len(size))], axis=1), rows.groups)
        each = np.stack([pairs[:, 0] / np.maximum(pairs[:, 1], 1), pairs[:, 1] > 0], axis=1)
        of_groups = stats.bootstrap(each, stats.ratio, self.resamples, self.seed)
        figures.append(Figure("conformal_coverage_of_groups", of_groups, len(size)))
        for figure in figures:
            figure.about.update(conformal_method=self.method, coverage=self.coverage)
        return figures

    def selection(self, rows: Rows, values: Values) -> list[Figure]:
        """Accuracy on the surest pictures, and the area under the curve of risk against coverage."""
        ranked, right = confidence(rows, values)
        parts = np.array(self.selective)

        def statistic(weights: Floats) -> Floats:
            area = ranking.area_under_risk(ranked, right, weights)
            return np.column_stack([area, ranking.accuracy_at(ranked, right, weights, parts)])

        drawn = ranking.resampled(ranked, rows.groups, statistic, self.resamples, self.seed)
        about, n = {"resamples": len(drawn.drawn)}, len(right)
        figures = [Figure("area_under_risk_coverage", drawn.interval(0), n, dict(about))]
        for number, part in enumerate(self.selective, start=1):
            figures.append(Figure(f"accuracy_at_{part:.0%}_coverage", drawn.interval(number), n, dict(about)))
        return figures

    def none_of_these(self, rows: Rows, values: Values, classes: Sequence[str]) -> list[Figure]:
        """Each class left out in turn, so that its pictures are none of the others; then the mean.

        Without a threshold there is no figure of what is rejected: a share of 0 would be no finding. So it
        is left out for a class without which there were too few groups, and then of the mean too.
        """
        figures = []
        for definition in (SIMILARITY, PROBABILITY):
            areas, shares = [], []
            for number, one in enumerate(values.without):
                others = np.delete(rows.similarity, number, axis=1)
                highest, threshold = others.max(axis=1), one.similarity
                if definition == PROBABILITY:
                    highest, threshold = softmax(others, one.scale).max(axis=1), one.probability
                areas.append(self._area(highest, rows.truth != number, rows.groups))
                shares.append(_rejected(highest < threshold, rows.truth == number))
            sums = stats.group_sums(np.stack(shares, axis=1), rows.groups)
            rates = self._bootstrap(sums, lambda some: _ratio(some[..., 0], some[..., 1]))
            means = self._mean_figures(areas, rates, definition, len(rows.truth))
            figures += means if all(one.fitted for one in values.without) else means[:1]
            if definition == SIMILARITY:
                for number, name in enumerate(classes):
                    about = {"definition": definition, "left_out": name}
                    n = int((rows.truth == number).sum())
                    drawn = {**about, "resamples": len(areas[number].drawn)}
                    figures.append(Figure("none_auroc", areas[number].interval(), len(rows.truth), drawn))
                    if values.without[number].fitted:
                        figures.append(Figure("none_rejected", rates.interval(number, 0), n, about))
        return figures

    def _mean_figures(
        self, areas: Sequence[stats.Resampled], rates: stats.Resampled, definition: str, n: int
    ) -> list[Figure]:
        area = ranking.mean(areas)
        each = [stats.Resampled(rates.value[k], rates.drawn[:, k]) for k in range(len(areas))]
        rate = ranking.mean(each)
        about = {"definition": definition, "known_pass": self.known_pass}
        return [
            Figure("none_auroc_mean", area.interval(), n, {**about, "resamples": len(area.drawn)}),
            Figure("none_rejected_mean", rate.interval(0), n, dict(about)),
            Figure("known_rejected_mean", rate.interval(1), n, dict(about)),
        ]

    def _area(self, highest: Floats, known: NDArray[np.bool_], groups: Numbers) -> stats.Resampled:
        ranked = ranking.Ranking.of(highest)

        def statistic(weights: Floats) -> Floats:
            return ranking.auroc(ranked, known, weights)

        return ranking.resampled(ranked, groups, statistic, self.resamples, self.seed)

    def _passed(self, values: Floats, groups: Numbers) -> float:
        return -calibration.group_quantile(-values, groups, self.known_pass)

    def _means(self, values: NDArray[Any], groups: Numbers) -> stats.Resampled:
        rows = np.column_stack([values, np.ones(len(values))])
        sums = stats.group_sums(rows, groups)
        return self._bootstrap(sums, lambda some: some[..., :-1] / some[..., -1:])

    def _bootstrap(self, sums: Floats, statistic: Any) -> stats.Resampled:
        return stats.bootstrap_many(sums, statistic, self.resamples, self.seed)


def confidence(rows: Rows, values: Values) -> tuple[ranking.Ranking, NDArray[np.bool_]]:
    """Pictures by the probability of their most probable class, and which answers are right."""
    shares = softmax(rows.similarity, values.scale)
    return ranking.Ranking.of(shares.max(axis=1)), shares.argmax(axis=1) == rows.truth


def risk_curve(rows: Rows, values: Values, most: int = 200) -> list[tuple[float, float]]:
    """Points (coverage, share of wrong answers) from the surest pictures to all, at most `most` of them."""
    ranked, right = confidence(rows, values)
    ones = np.ones((len(right), 1))
    kept, rights = ranked.running(ones)[:, 0], ranked.running(ones, right)[:, 0]
    places = np.unique(np.linspace(0, len(kept) - 1, most).astype(int))
    return [(float(kept[i] / len(right)), float(1 - rights[i] / kept[i])) for i in places]


def _rejected(rejected: NDArray[np.bool_], unknown: NDArray[np.bool_]) -> Floats:
    """[n, 2, 2]: of the unknown and of the known kind, whether it was rejected and whether it is one."""
    kinds = np.stack([unknown, ~unknown], axis=1)
    return np.stack([kinds & rejected[:, None], kinds], axis=2).astype(np.float64)


def _ratio(above: Floats, below: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(above / below)
