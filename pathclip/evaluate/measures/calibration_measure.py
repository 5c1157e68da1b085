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
from pathclip.evaluate.leaks import find_leak, telling_hashes
from pathclip.evaluate.marks import is_leaking, is_of_leaking
from pathclip.evaluate.measures import calibration
from pathclip.evaluate.measures.calibration_figures import (
    Figure,
    Judge,
    Rows,
    Values,
)
from pathclip.evaluate.measures.calibration_remarks import (
    PLAIN,
    halves_too_small,
    limits,
    verdict_on,
    where_fitted,
    worth_keeping,
)
from pathclip.evaluate.measures.calibration_sections import calibration_section, none_section
from pathclip.evaluate.reporting.report import LEAK
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Measured, Split, TaskResult, score, subject_context
from pathclip.evaluate.validation_rows import apart_from_test, encoded_part
from pathclip.runtime.calibration import CONFORMAL_METHODS, Calibrated
from pathclip.types import Score


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
        remarks += where_fitted(measured, fitting)
        groups = len(np.unique(fitting.groups))
        fitted: dict[str, Calibrated] = {}
        temperatures: dict[str, float] = {}
        marks = _marks(measured, fitting)
        shown: dict[str, dict[str, tuple[Rows, Values]]] = {}
        for subject in models:
            rows = _rows(measured, fitting, subject, PLAIN)
            best = judge.fit(rows)
            precision = subject.encoder.precision
            temperatures[precision] = subject.encoder.logit_scale / best.logit_scale
            if worth_keeping(best, groups):
                fitted[precision] = self._calibrated(measured, fitting, subject, best, marks)
            remarks += limits(subject, best, groups, self.coverage, self.known_pass)
            n = len(measured.test.truth)
            parts: list[tuple[Rows, Any]] = [(rows, np.arange(n))]
            if measured.validation is None and halves is not None:
                parts = [
                    (rows.take(np.flatnonzero(halves != half)), np.flatnonzero(halves == half))
                    for half in (0, 1)
                ]
            values = judge.values(parts, n, len(measured.classes))
            remarks += halves_too_small(subject, best, values, groups)
            shown[subject.key] = {}
            for variant in measured.variants:
                tested = _rows(measured, measured.test, subject, variant)
                shown[subject.key][variant] = (tested, values)
                figures = _figures(judge, tested, subject, values, list(measured.classes))
                scores += _scores(measured, subject, variant, figures)
            too_few = [
                name for name, one in zip(measured.classes, values.without, strict=True) if not one.fitted
            ]
            remarks += verdict_on(subject, scores, too_few)

        first = models[0]
        sections = (
            calibration_section(measured.name, first, shown[first.key], scores, self.bins, self.coverage),
            none_section(measured.name, first, scores, list(measured.classes), self.known_pass),
        )
        entries = {precision: one.entry() for precision, one in fitted.items()}
        about = {
            "fitted_on": "validation" if measured.validation else "halves of the test groups",
            "temperature": temperatures,
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
        self,
        measured: Measured,
        fitting: Split,
        subject: Subject,
        best: calibration.Fitted,
        marks: tuple[str, ...],
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
            marks=marks,
        )


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


def _marks(measured: Measured, fitting: Split) -> tuple[str, ...]:
    """'leak' if the model was trained on pictures of the task, tested on or fitted on."""
    leaking = [key for key, leaks in measured.marks.leaking.items() if leaks]
    encoded = fitting.encoded
    for one in measured.subjects if fitting is measured.validation else ():
        found = find_leak(one.seen, encoded.sha256, encoded.perceptual, telling_hashes(encoded))
        leaking += [one.key] if is_leaking(one, found) else []
    return (LEAK,) if is_of_leaking({"role": "model"}, leaking) else ()
