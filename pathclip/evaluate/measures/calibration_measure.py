"""Calibration as a measure of a zero-shot task: how far its probabilities can be believed, and the values
that make them better, for the model's card.
"""  # noqa: D205

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from pathclip.errors import ConfigError
from pathclip.evaluate import stats
from pathclip.evaluate.classification import zeroshot
from pathclip.evaluate.features.encode import data_hash
from pathclip.evaluate.measures import calibration
from pathclip.evaluate.measures.calibration_figures import (
    PROBABILITY,
    SIMILARITY,
    Figure,
    Judge,
    Rows,
    Values,
)
from pathclip.evaluate.measures.calibration_sections import calibration_section, none_section
from pathclip.evaluate.reporting.report import value_text
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Measured, Split, TaskResult, score, subject_context
from pathclip.evaluate.validation_rows import apart_from_test, encoded_part
from pathclip.runtime.calibration import CONFORMAL_METHODS, Calibrated
from pathclip.types import Score

PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Calibration:
    """Temperature, conformal sets, "none of these" and selective accuracy of a model's answers.

    Everything is fitted on plain pictures: on the validation rows if the task has such that are not tested
    on, nor of a tested group; else on one half of the test groups for judging the other. The twin under
    randomised colour is judged by the same values, as a picture from a new laboratory would be.

    Attributes:
        bins: of the calibration error.
        coverage: the share of pictures of new groups whose conformal set is to hold their class.
        conformal: how the sets are made, see `pathclip.runtime.calibration.conformal_scores`.
        known_pass: the share of known pictures that "none of these" is to let pass.
        selective: parts of the pictures, the surest first, on which accuracy is measured.
    """

    learns: ClassVar[bool] = False

    bins: int = 15
    coverage: float = 0.9
    conformal: Literal["lac", "aps"] = "lac"
    known_pass: float = 0.95
    selective: Sequence[float] = (0.5, 0.8, 0.9, 1.0)

    def __post_init__(self) -> None:
        """Refuses values out of range.

        Raises:
            ConfigError: names the key.
        """
        if self.bins < 2:
            raise ConfigError(f"bins: {self.bins}, but at least 2 are needed")
        if self.conformal not in CONFORMAL_METHODS:
            raise ConfigError(f"conformal: '{self.conformal}' is none of {', '.join(CONFORMAL_METHODS)}")
        for key, value in (("coverage", self.coverage), ("known_pass", self.known_pass)):
            if not 0 < value < 1:
                raise ConfigError(f"{key}: {value} is not between 0 and 1")
        for part in self.selective:
            if not 0 < part <= 1:
                raise ConfigError(f"selective: {part} is not above 0 and at most 1")

    def run(self, measured: Measured) -> TaskResult:
        """Measures every precision of the model, and fits what its card is to keep.

        Raises:
            ConfigError: the task does not show plain pictures.
        """
        if PLAIN not in measured.variants:
            raise ConfigError(f"task {measured.name}: calibration needs '{PLAIN}' among its variants")
        measured, remarks = _without_tested(measured)
        models = [one for one in measured.subjects if one.role == "model"]
        halves = calibration.halves(measured.test.truth, measured.test.groups, measured.settings.seed)
        fitting = measured.validation or measured.test
        if not models or (measured.validation is None and halves is None):
            why = "all pictures to test on are of one group" if models else "there is no model"
            return TaskResult((), (), (*remarks, f"No calibration: {why}."), {"fitted_on": None})

        judge = self._judge(measured)
        scores: list[Score] = []
        remarks += _where_fitted(measured, fitting)
        fitted: dict[str, Calibrated] = {}
        shown: dict[str, dict[str, tuple[Rows, Values]]] = {}
        for subject in models:
            rows = _rows(measured, fitting, subject, PLAIN)
            best = judge.fit(rows)
            fitted[subject.encoder.precision] = self._calibrated(measured, fitting, subject, best)
            remarks += self._remarks_on(subject, best, len(np.unique(fitting.groups)))
            n = len(measured.test.truth)
            parts: list[tuple[Rows, Any]] = [(rows, np.arange(n))]
            if measured.validation is None and halves is not None:
                parts = [
                    (rows.take(np.flatnonzero(halves != half)), np.flatnonzero(halves == half))
                    for half in (0, 1)
                ]
            values = judge.values(parts, n, len(measured.classes))
            remarks += _halves_too_small(subject, best, values, len(np.unique(fitting.groups)))
            shown[subject.key] = {}
            for variant in measured.variants:
                tested = _rows(measured, measured.test, subject, variant)
                shown[subject.key][variant] = (tested, values)
                figures = _figures(judge, tested, subject, values, list(measured.classes))
                scores += _scores(measured, subject, variant, figures)
            too_few = [
                name for name, one in zip(measured.classes, values.without, strict=True) if not one.fitted
            ]
            remarks += _verdict(subject, scores, too_few)

        first = models[0]
        sections = (
            calibration_section(measured.name, first, shown[first.key], scores, self.bins, self.coverage),
            none_section(measured.name, first, scores, list(measured.classes), self.known_pass),
        )
        entries = {precision: one.entry() for precision, one in fitted.items()}
        about = {
            "fitted_on": "validation" if measured.validation else "halves of the test groups",
            "temperature": {
                one.encoder.precision: one.encoder.logit_scale / fitted[one.encoder.precision].logit_scale
                for one in models
            },
            "fitted": entries,
        }
        return TaskResult(tuple(scores), sections, tuple(remarks), about, fitted=entries)

    def _judge(self, measured: Measured) -> Judge:
        settings = measured.settings
        return Judge(
            self.bins,
            self.conformal,
            self.coverage,
            self.known_pass,
            tuple(self.selective),
            settings.resamples,
            settings.seed,
        )

    def _calibrated(
        self, measured: Measured, fitting: Split, subject: Subject, best: calibration.Fitted
    ) -> Calibrated:
        images = fitting.images
        return Calibrated(
            task=measured.name,
            precision=subject.encoder.precision,
            classes={name: tuple(words) or (name,) for name, words in measured.classes.items()},
            templates=tuple(measured.templates),
            logit_scale=best.logit_scale,
            none_threshold=best.none_threshold,
            conformal_method=self.conformal,
            conformal_threshold=best.conformal_threshold,
            coverage=self.coverage,
            known_pass=self.known_pass,
            n=len(fitting.truth),
            groups=len(np.unique(fitting.groups)),
            model_hash=subject.model_hash,
            data_hash=data_hash(fitting.encoded.sha256, images.labels, images.groups),
            code_version=measured.settings.code_version,
        )

    def _remarks_on(self, subject: Subject, best: calibration.Fitted, groups: int) -> list[str]:
        remarks = []
        if best.at_bound:
            remarks.append(
                f"{subject.title}: no temperature fits best (every answer is right, or similarities say "
                f"nothing); the factor of similarity is set to the bound {best.logit_scale:g}."
            )
        if best.conformal_threshold >= 1:
            remarks.append(
                f"{subject.title}: {groups} groups are too few, or too badly told apart, for sets of less "
                f"than all classes at {self.coverage:.0%} coverage."
            )
        if best.none_threshold <= -1:
            remarks.append(
                f"{subject.title}: {groups} groups are too few to let {self.known_pass:.0%} of new "
                "ones pass, so nothing is called none of these."
            )
        return remarks


def _without_tested(measured: Measured) -> tuple[Measured, list[str]]:
    """The task with those validation rows only that may be fitted on, and a remark on the others."""
    rows = measured.validation
    if rows is None:
        return measured, []
    kept, remarks = apart_from_test(rows, measured.test)
    images, encoded = rows.images.take(kept.tolist()), encoded_part(rows.encoded, kept)
    part = Split(images, rows.truth[kept], stats.group_index(images.groups), encoded)
    return replace(measured, validation=part if len(kept) else None), remarks


def _rows(measured: Measured, split: Split, subject: Subject, variant: str) -> Rows:
    vectors = split.encoded.embeddings[subject.key][variant]
    similar = zeroshot.similarities(vectors, measured.vectors[subject.key])
    return Rows(similar.astype(np.float64), split.truth, split.groups)


def _figures(
    judge: Judge, tested: Rows, subject: Subject, values: Values, classes: list[str]
) -> list[Figure]:
    return [
        *judge.probabilities(tested, subject.encoder.logit_scale, values),
        *judge.sets(tested, values),
        *judge.selection(tested, values),
        *judge.none_of_these(tested, values, classes),
    ]


def _scores(measured: Measured, subject: Subject, variant: str, figures: Sequence[Figure]) -> list[Score]:
    about: Mapping[str, Any] = {
        **measured.context,
        "variant": variant,
        "method": "calibration",
        "fitted_on": "validation" if measured.validation else "the other half of the groups",
        **subject_context(subject),
    }
    return [score(one.name, one.found, one.n, {**about, **one.about}) for one in figures]


def _where_fitted(measured: Measured, fitting: Split) -> list[str]:
    groups, grouped = len(np.unique(fitting.groups)), any(fitting.images.groups)
    many = f"{len(fitting.truth)} pictures in {groups} groups"
    if measured.validation is None:
        remarks = [
            "Calibration: the task has no validation rows, so each half of the test groups is judged by "
            f"values that were fitted on the other half; the values to be stored are fitted on all {many}."
        ]
    else:
        remarks = [f"Calibration: all values are fitted on {many} of the validation rows."]
    remarks.append(
        "Conformal coverage holds for new groups that are exchangeable with those fitted on: not for another "
        "laboratory or scanner, and not for each class by itself."
        + ("" if grouped else " Groups are not known here: pictures count as independent, so it may be less.")
    )
    return remarks


def _halves_too_small(subject: Subject, best: calibration.Fitted, values: Values, groups: int) -> list[str]:
    """What is stored was fitted on all groups; where a half has too few for that, it was not judged."""
    if best.conformal_threshold >= 1 or not (values.conformal >= 1).any():
        return []
    return [
        f"{subject.title}: a half of the {groups} groups is too few for sets of less than all classes, so "
        f"coverage and size of the sets here are not those of the stored threshold "
        f"{best.conformal_threshold:.3f}, which is fitted on all of them and could not be judged."
    ]


def _verdict(subject: Subject, scores: Sequence[Score], too_few: Sequence[str]) -> list[str]:
    """Whether it works on plain pictures, in numbers; of `too_few` classes there is no threshold."""
    mine = {
        (one.name, one.context.get("definition")): one
        for one in scores
        if one.context["by"] == subject.title
        and one.context["variant"] == PLAIN
        and "left_out" not in one.context
    }
    area, other = (mine["none_auroc_mean", definition] for definition in (SIMILARITY, PROBABILITY))
    areas = (
        f"AUROC {value_text(area)} by the highest similarity, {value_text(other)} by the highest probability."
    )
    if too_few:
        return [
            f"{subject.title}: 'none of these' cannot be judged: too few groups to fit a threshold on, with "
            f"{', '.join(too_few)} left out. {areas}"
        ]
    caught, lost = (mine[name, SIMILARITY] for name in ("none_rejected_mean", "known_rejected_mean"))
    if not area.low > 0.5:  # NaN does not work either
        verdict = "does not work here"
    elif caught.value < 0.5:
        verdict = "misses most here"
    else:
        verdict = "works in part here" if caught.value < 0.9 else "works here"
    return [
        f"{subject.title}: 'none of these' {verdict}. With one class left out in turn, it rejects "
        f"{value_text(caught)} of the pictures of that class, and {value_text(lost)} of the others. {areas}"
    ]
