"""Zero-shot classification as a task: every encoder, both colour variants, and the baselines beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pathclip.evaluate.classification.zeroshot_figures import Comparison, Figures, Predictor
from pathclip.evaluate.classification.zeroshot_inputs import class_numbers, limited, measured_task
from pathclip.evaluate.classification.zeroshot_predictors import (
    baseline_predictors,
    encoder_predictors,
    indistinct_classes,
)
from pathclip.evaluate.classification.zeroshot_sections import (
    confusion_section,
    recall_section,
    scores_section,
    wrong_section,
)
from pathclip.evaluate.datasets import LabelledData
from pathclip.evaluate.features.encode import VARIANTS
from pathclip.evaluate.leaks import learnt_leaks, split_leaks
from pathclip.evaluate.marks import colour_remarks, is_leaking, marks_of
from pathclip.evaluate.profile import measured as timed
from pathclip.evaluate.reporting.report import SOLVED_BY_COLOUR
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import (
    Answers,
    Measured,
    Settings,
    TaskResult,
    compared,
    few_groups,
    leaks,
    paired,
)
from pathclip.runtime.classify import TEMPLATES

__all__ = ["SOLVED_BY_COLOUR", "ZeroShot", "class_numbers"]


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """Classes, their wordings and templates, on labelled pictures.

    Attributes:
        dataset: pictures to test on, those that the colour-only baseline and further measures learn from,
            and those that further measures are fitted on.
        classes: class as the data calls it → its wordings; None takes the data's own names as wordings.
        templates: sentences with `{}` for the class; None takes `pathclip.runtime.classify.TEMPLATES`,
            whatever templates the model's card names. The first, with the first wording of each class, is
            measured alone too, as most figures are published.
        variants: of 'plain' and 'randomised_colour'.
        without_example: what to do with a class that no picture to test on has: 'refuse' to go on, or
            'leave_out' the class, with a remark; fewer classes are easier to tell apart.
        licence: of the data.
        citation: of the data.
        note: what a reader must know of the data.
    """

    dataset: LabelledData
    classes: Mapping[str, Sequence[str]] | None = None
    templates: Sequence[str] | None = None
    variants: Sequence[str] = VARIANTS
    without_example: Literal["refuse", "leave_out"] = "refuse"
    licence: str = ""
    citation: str = ""
    note: str = ""

    def run(self, name: str, subjects: Sequence[Subject], settings: Settings) -> TaskResult:
        """Measures every subject, and then what `settings.measures` names.

        Raises:
            DataError: a class without example, an example without class, prompts that are empty or shared, a
                picture that cannot be read, embeddings that are not numbers.
        """
        measured, left_out = self._measured(name, subjects, settings)
        test, train = measured.test, measured.train
        with timed(settings.profile, "leak check"):
            leaking, remarks = leaks(subjects, test.encoded)
            own = split_leaks(train, test)[1] if train else []
            learnt = learnt_leaks(train, test) if train else False
        shared = _shared_groups(measured)
        remarks += own + _remarks(measured, self.note, shared) + indistinct_classes(measured)
        if left_out:
            remarks.append(f"Left out, because no picture to test on has them: {', '.join(left_out)}.")

        figures = Figures(test.truth, test.groups, list(measured.classes), settings, measured.context)
        predictors: list[Predictor] = []
        answers: list[Answers] = []
        for one in subjects:
            leak = {"leaked": leaking[one.key].exact, "near_leaked": leaking[one.key].near}
            found, said = encoder_predictors(measured, one, leak)
            predictors += found
            answers += said
        for variant in self.variants:
            predictors += baseline_predictors(measured, variant)
        with timed(settings.profile, "metrics and their intervals"):
            scores = figures.scores(predictors, _comparisons(subjects, self.variants))
        held = {one.key: is_leaking(one, leaking[one.key]) for one in subjects}
        marks = marks_of(scores, held, bool(own or shared), learnt)
        scores = marks.put(scores)
        measured = replace(measured, marks=marks)
        remarks += colour_remarks(scores, marks)

        about: dict[str, Any] = {
            "kind": "zero_shot",
            "licence": self.licence,
            "citation": self.citation,
            "images": len(test.images),
            "groups": measured.context["groups"],
            "per_class": {key: test.images.labels.count(key) for key in measured.classes},
            "baselines_learn_from": len(train.images) if train else 0,
            "prompts": measured.context["prompts"],
            "measures": {},
        }
        with timed(settings.profile, "sections of the report"):
            sections = [scores_section(name, scores, remarks, about), recall_section(name, scores)]
            if subjects:
                sections.append(confusion_section(measured, subjects[0], self.variants[0]))
                sections += wrong_section(measured, subjects[0], self.variants[0])
        fitted: dict[str, dict[str, Any]] = {}
        for key, measure in settings.measures.items():
            with timed(settings.profile, "measure", key):
                result = measure.run(measured)
            scores += marks.put(result.scores, measure.learns)
            sections += result.sections
            remarks += result.remarks
            answers += result.answers
            about["measures"][key] = result.about
            for precision, values in result.fitted.items():
                fitted[precision] = {**fitted.get(precision, {}), **values}
        return TaskResult(tuple(scores), tuple(sections), tuple(remarks), about, tuple(answers), fitted)

    def _measured(
        self, name: str, subjects: Sequence[Subject], settings: Settings
    ) -> tuple[Measured, list[str]]:
        """The encoded task, and the classes left out."""
        data = limited(self.dataset, settings.limit)
        own = {label: [label] for label in sorted(set(data.test.labels))}
        classes = {key: list(value) for key, value in (self.classes or own).items()}
        left_out: list[str] = []
        if self.without_example == "leave_out":
            left_out = [key for key in classes if key not in data.test.labels]
            classes = {key: words for key, words in classes.items() if key not in left_out}
            train, validation = (
                part.of_classes(classes) if part else None for part in (data.train, data.validation)
            )
            data = LabelledData(data.test, train, validation)
        templates = list(self.templates or TEMPLATES)
        return measured_task(name, data, classes, templates, self.variants, subjects, settings), left_out


def _comparisons(subjects: Sequence[Subject], variants: Sequence[str]) -> list[Comparison]:
    return [
        Comparison(first.key, second.key, {"variant": variant, **compared(first, second)})
        for variant in variants
        for first, second in paired(subjects)
    ]


def _shared_groups(measured: Measured) -> set[str]:
    """Groups that are in the training and in the test rows."""
    if measured.train is None:
        return set()
    return {*filter(None, measured.test.images.groups)} & {*measured.train.images.groups}


def _remarks(measured: Measured, note: str, shared: set[str]) -> list[str]:
    remarks = [note.strip()] if note.strip() else []
    if not any(measured.test.images.groups):
        remarks.append("Groups are not known: intervals treat every picture as independent; too narrow.")
    remarks += few_groups(measured.context["groups"])
    if measured.train is None:
        remarks.append(
            "No training rows: colour only is cross-validated over the groups of the test rows, and the "
            "majority class is that of the test rows themselves."
        )
    elif shared:
        remarks.append(f"Leaking split: {len(shared)} groups are in the training and in the test rows.")
    return remarks
