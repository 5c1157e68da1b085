"""Linear probe: how much of a task a linear classifier reads from the frozen embeddings.

Twice. 'As published' follows the code that PLIP was released with (Huang et al. 2023,
doi:10.1038/s41591-023-02504-3; PathologyFoundation/plip, `reproducibility/`): scikit-learn's `SGDClassifier`
with log-loss, L2 penalty, balanced classes and up to 10,000 epochs on the normalised embeddings; alpha of
0.0001, 0.001, 0.01 and 0.1; means over seeds; F1 as the figure. That code has no validation rows: it measures
every alpha on the test rows, and its notebook plots the best of them. So the figure flatters, and is there to
compare with published ones. The paper names the F1 weighted; the released script calls it so, but averages
over classes plainly. Both are given.

The corrected probe is a multinomial logistic regression by L-BFGS. Features are standardised by mean and
deviation of the rows it is fitted on, classes weigh the same. Its strength is chosen on validation rows, or
on groups of the training rows that are held back for it, never on the test rows; then it is fitted on all
training rows. The same on colour features alone stands beside it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate.marks import PROBE_ON_COLOUR_ONLY, learnt_colour_remarks
from pathclip.evaluate.measures.learning import (
    Learnable,
    Numbers,
    Rows,
    inner_split,
    learnable,
    require,
)
from pathclip.evaluate.measures.learning_sections import (
    bars,
    learning_about,
    learning_section,
    not_measured,
)
from pathclip.evaluate.measures.learnt_scores import (
    Predictions,
    learning_answers,
    learning_scores,
    seed_values,
)
from pathclip.evaluate.reporting import report
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Measured, TaskResult
from pathclip.progress import track
from pathclip.runtime.cores import available_cores

PUBLISHED, CORRECTED, COLOUR = (
    "linear_probe_as_published",
    "linear_probe",
    PROBE_ON_COLOUR_ONLY,
)
# How the released code calls scikit-learn.
_PUBLISHED_EPOCHS = 10_000
_AS_PUBLISHED = (
    "As published: alpha is the one with the best weighted F1 on the test rows, as the released code of PLIP "
    "reports it; this flatters. Believe the corrected probe."
)
Features = NDArray[Any]
Places = Sequence[tuple[Numbers, Numbers]]


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """A linear classifier on frozen embeddings.

    Attributes:
        inverse_strengths: C of the corrected probe to choose from, of the loss summed over the rows.
        inner_share: of each class's groups in the training rows, held back to choose C on where the task has
            no validation rows.
        seeds: of SGD, and of the groups held back.
        published: measure PLIP's protocol too.
        alphas: its strengths.
        max_iter: iterations of L-BFGS at most.
    """

    inverse_strengths: Sequence[float] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    inner_share: float = 0.2
    seeds: int = 5
    published: bool = True
    alphas: Sequence[float] = (0.0001, 0.001, 0.01, 0.1)
    max_iter: int = 1000
    learns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, values in (("inverse_strengths", self.inverse_strengths), ("alphas", self.alphas)):
            require(name, list(values), len(values) > 0 and min(values) > 0, "at least one number above 0")
        require("inner_share", self.inner_share, 0 < self.inner_share < 1, "a share between 0 and 1")
        for name, value in (("seeds", self.seeds), ("max_iter", self.max_iter)):
            require(name, value, value >= 1, "at least 1")

    def run(self, measured: Measured) -> TaskResult:
        """Measures every subject in every variant, and colours alone."""
        from threadpoolctl import threadpool_limits

        given = learnable(measured)
        if given.train is None:
            return not_measured(measured, "Linear probe", given)
        runs: list[tuple[Subject | None, str]] = [
            (subject, variant) for variant in measured.variants for subject in [*measured.subjects, None]
        ]
        places = self._places(given, measured.settings.seed)
        predictions, alphas, unfinished = [], {}, 0
        # Products of this size take longer on several threads than on one.
        with threadpool_limits(1):
            for subject, variant in track(runs, f"{measured.name}: linear probe"):
                found, ended = self._corrected(measured, given, places, subject, variant)
                predictions.append(found)
                unfinished += not ended
                if subject and self.published:
                    found, values = self._published(measured, given.train, subject, variant)
                    predictions.append(found)
                    alphas[f"{subject.key}, {variant}"] = values
        scores = learning_scores(measured, given, predictions)
        remarks = [*given.remarks, *learnt_colour_remarks(scores, measured.marks)]
        if given.validation is None and not places:
            remarks.append(
                "No class has two groups to learn from: C could not be chosen and is the middle one."
            )
        if unfinished:
            remarks.append(f"{unfinished} probes had not converged after {self.max_iter} iterations.")
        if alphas:
            remarks.append(_AS_PUBLISHED)
        section = learning_section(
            f"{measured.name}: linear probe",
            scores,
            remarks,
            _caption(given, measured),
            bars([one for one in scores if one.context.get("method") != PUBLISHED]),
            _alpha_table(alphas),
        )
        return TaskResult(
            tuple(scores),
            (section,),
            tuple(remarks),
            learning_about(
                given, weighted_f1_by_alpha=alphas, chosen={_who(p): _choice(p) for p in predictions}
            ),
            learning_answers(measured, predictions),
        )

    def _places(self, given: Learnable, seed: int) -> Places:
        """Where to fit and to choose within the training rows, per seed; none with validation rows."""
        if given.validation is not None:
            return []
        assert given.train is not None
        found = [inner_split(given.train, self.inner_share, seed + number) for number in range(self.seeds)]
        return [one for one in found if one]

    def _corrected(
        self, measured: Measured, given: Learnable, places: Places, subject: Subject | None, variant: str
    ) -> tuple[Predictions, bool]:
        assert given.train is not None
        rows, truth = _features(given.train, subject, variant), given.train.truth
        unseen = _features(_all(measured), subject, variant)
        chosen_on = "groups of the training rows"
        if given.validation is not None:
            held = _features(given.validation, subject, variant)
            chosen = [self._choose(rows, truth, held, given.validation.truth)]
            chosen_on = "validation rows"
        else:
            chosen = [self._choose(rows[i], truth[i], rows[o], truth[o]) for i, o in places]
        if not chosen:
            chosen, chosen_on = [sorted(self.inverse_strengths)[len(self.inverse_strengths) // 2]], "nothing"
        fitted = {c: fit_probe(rows, truth, c, self.max_iter) for c in dict.fromkeys(chosen)}
        said = {c: probe.predict(unseen) for c, probe in fitted.items()}
        sure = fitted[chosen[0]].predict_proba(unseen).max(axis=1).astype(np.float64)
        ended = all(probe[-1].n_iter_.max() < self.max_iter for probe in fitted.values())
        about = {"inverse_strength": chosen, "chosen_on": chosen_on}
        method = CORRECTED if subject else COLOUR
        classes = np.stack([said[c] for c in chosen])
        return Predictions(method, variant, classes, subject, about, sure), ended

    def _choose(self, rows: Features, truth: Numbers, held: Features, held_truth: Numbers) -> float:
        """The C with the best balanced accuracy on held rows, of equals the smallest."""
        from sklearn.metrics import balanced_accuracy_score

        best, highest, weights = 0.0, -1.0, None
        for c in sorted(self.inverse_strengths):
            probe = fit_probe(rows, truth, c, self.max_iter, weights)
            weights = probe[-1]
            value = float(balanced_accuracy_score(held_truth, probe.predict(held)))
            if value > highest:
                best, highest = c, value
        return best

    def _published(
        self, measured: Measured, train: Rows, subject: Subject, variant: str
    ) -> tuple[Predictions, dict[str, float]]:
        rows, unseen = train.embeddings(subject.key, variant), _all(measured).embeddings(subject.key, variant)
        seeds = [measured.settings.seed + number for number in range(self.seeds)]
        wanted = [(alpha, seed) for alpha in self.alphas for seed in seeds]

        def classes(alpha: float, seed: int) -> Numbers:
            return fit_published(rows, train.truth, alpha, seed).predict(unseen).astype(np.int64)

        with ThreadPoolExecutor(available_cores()) as pool:
            said = list(pool.map(lambda one: classes(*one), wanted))
        by_alpha = np.stack(said).reshape(len(self.alphas), len(seeds), -1)
        values = [float(seed_values(measured, one, ["weighted_f1"]).mean()) for one in by_alpha]
        best = int(np.argmax(values))
        about = {"alpha": self.alphas[best], "chosen_on": "test rows, as published"}
        named = {str(alpha): value for alpha, value in zip(self.alphas, values, strict=True)}
        return Predictions(PUBLISHED, variant, by_alpha[best], subject, about), named


def fit_probe(
    rows: Features, truth: Numbers, inverse_strength: float, max_iter: int = 1000, start: Any = None
) -> Any:
    """Standardisation and a multinomial logistic regression as a scikit-learn pipeline.

    Args:
        rows: float [m, d].
        truth: int64 [m], at least two classes.
        inverse_strength: C.
        max_iter: of L-BFGS.
        start: a fitted regression on the same rows to go on from.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(
        C=inverse_strength, max_iter=max_iter, class_weight="balanced", warm_start=start is not None
    )
    if start is not None:
        regression.coef_, regression.intercept_ = start.coef_, start.intercept_
        regression.classes_ = start.classes_
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said in a remark
        return make_pipeline(StandardScaler(), regression).fit(rows, truth)


def fit_published(rows: Features, truth: Numbers, alpha: float, seed: int) -> Any:
    """The classifier of PLIP's released code, fitted on normalised embeddings [m, d]."""
    from sklearn.linear_model import SGDClassifier

    return SGDClassifier(
        loss="log_loss",
        penalty="l2",
        alpha=alpha,
        max_iter=_PUBLISHED_EPOCHS,
        class_weight="balanced",
        random_state=seed,
    ).fit(rows, truth)


def _features(rows: Rows, subject: Subject | None, variant: str) -> Features:
    return rows.embeddings(subject.key, variant) if subject else rows.colours(variant)


def _all(measured: Measured) -> Rows:
    return Rows(measured.test, np.arange(len(measured.test.truth)))


def _caption(given: Learnable, measured: Measured) -> str:
    where = "groups of the training rows held back"
    if given.validation is not None:
        where = f"{len(given.validation)} validation pictures"
    return (
        f"Learnt from {len(given.train or ())} pictures, tested on {len(measured.test.truth)}. The bars are "
        f"balanced accuracies of the corrected probe, its strength chosen on {where}. Intervals are 95 % "
        "over the groups of the test rows; the spread over seeds stands apart."
    )


def _alpha_table(alphas: dict[str, dict[str, float]]) -> str:
    if not alphas:
        return ""
    names = list(next(iter(alphas.values())))
    rows = [
        [report.escape(report.words(who)), *(f"{values[name]:.3f}" for name in names)]
        for who, values in alphas.items()
    ]
    table = report.html_table(["weighted F1 of", *(f"alpha {name}" for name in names)], rows)
    return f"<details><summary>As published, every alpha</summary>{table}</details>"


def _who(one: Predictions) -> str:
    return f"{one.method}, {one.subject.key if one.subject else 'colours'}, {one.variant}"


def _choice(one: Predictions) -> Any:
    return one.about.get("alpha", one.about.get("inverse_strength"))
