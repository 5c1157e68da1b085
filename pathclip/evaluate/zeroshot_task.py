"""Zero-shot classification as a task: every encoder, both colour variants, and the baselines beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import DataError
from pathclip.evaluate import colour, report, stats, zeroshot
from pathclip.evaluate.datasets import LabelledData, LabelledImages
from pathclip.evaluate.encode import VARIANTS, Encoded, data_hash, encode_pictures
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import (
    Settings,
    TaskResult,
    compared,
    exact,
    leaks,
    paired,
    score,
    subject_context,
)
from pathclip.evaluate.zeroshot_sections import confusion_section, scores_section, wrong_section
from pathclip.runtime.classify import TEMPLATES
from pathclip.types import Score

Numbers = NDArray[np.int64]
SOLVED_BY_COLOUR = "solved by colour"


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """Classes, their wordings and templates, on labelled pictures.

    Attributes:
        dataset: pictures to test on, and pictures that the colour-only baseline learns from.
        classes: class as the data calls it → its wordings; None takes the data's own names as wordings.
        templates: sentences with `{}` for the class; None takes those of `pathclip classify`.
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
        """Measures every subject.

        Raises:
            DataError: a class without example, an example without class, prompts that are empty or shared, a
                picture that cannot be read, embeddings that are not numbers.
        """
        test = self.dataset.test.first(settings.limit)
        train = self.dataset.train.first(settings.limit) if self.dataset.train else None
        classes = {key: list(value) for key, value in (self.classes or _own_names(test)).items()}
        left_out: list[str] = []
        if self.without_example == "leave_out":
            left_out = [key for key in classes if key not in test.labels]
            classes = {key: words for key, words in classes.items() if key not in left_out}
            train = train.of_classes(classes) if train else None
        templates = list(self.templates or TEMPLATES)
        try:
            truth = class_numbers(test, list(classes))
            vectors = {one.key: zeroshot.class_vectors(one.encoder, classes, templates) for one in subjects}
            learnt = class_numbers(train, list(classes)) if train else None
        except DataError as error:
            raise DataError(f"task {name}: {error}") from None

        encoded = _encode(test, subjects, self.variants, settings, f"{name}: test pictures")
        learning = None
        if train and learnt is not None:
            colours = _encode(train, [], self.variants, settings, f"{name}: colours").colours
            learning = _Learning(colours, learnt, stats.group_index(train.groups))
        groups = stats.group_index(test.groups)
        similar = {
            (one.key, variant): zeroshot.similarities(encoded.embeddings[one.key][variant], vectors[one.key])
            for one in subjects
            for variant in self.variants
        }
        figures = _Figures(
            truth,
            groups,
            len(classes),
            settings,
            {
                "task": name,
                "data_hash": data_hash(encoded.sha256, test.labels, test.groups),
                "groups": int(groups.max()) + 1,
                "grouped": any(test.groups),
                "resamples": settings.resamples,
                "seed": settings.seed,
                "code_version": settings.code_version,
                "prompts": {"templates": templates, "classes": classes},
            },
        )
        scores: list[Score] = []
        counts, remarks = leaks(subjects, encoded.sha256)
        remarks += _remarks(test, train, self.note)
        if left_out:
            remarks.append(f"Left out, because no picture to test on has them: {', '.join(left_out)}.")
        for variant in self.variants:
            predicted = {one.key: zeroshot.predict(similar[one.key, variant]) for one in subjects}
            for one in subjects:
                about = {"variant": variant, "method": "zero_shot", **subject_context(one)}
                about["leaked"] = counts[one.key]
                scores += figures.all(predicted[one.key], about)
            scores += _baselines(figures, variant, encoded, learning)
            for first, second in paired(subjects):
                about = {"variant": variant, **compared(first, second)}
                scores.append(figures.difference(predicted[first.key], predicted[second.key], about))
            remarks += _solved_by_colour(scores, variant)

        about = {
            "kind": "zero_shot",
            "licence": self.licence,
            "citation": self.citation,
            "images": len(test),
            "groups": figures.context["groups"],
            "per_class": {key: int((truth == number).sum()) for number, key in enumerate(classes)},
            "baselines_learn_from": len(train) if train else 0,
            "prompts": figures.context["prompts"],
        }
        shown = next(iter(subjects), None)
        sections = [scores_section(name, scores, remarks, about)]
        if shown:
            variant = self.variants[0]
            chosen = similar[shown.key, variant]
            sections.append(confusion_section(name, shown, variant, truth, chosen, list(classes)))
            sections += wrong_section(name, shown, variant, test, truth, chosen, list(classes))
        return TaskResult(tuple(scores), tuple(sections), tuple(remarks), about)


@dataclass(frozen=True, slots=True)
class _Figures:
    """Turns predictions into scores; holds what all of them share."""

    truth: Numbers
    groups: Numbers
    classes: int
    settings: Settings
    context: Mapping[str, Any]

    def all(self, predicted: Numbers, about: Mapping[str, Any]) -> list[Score]:
        sums = self._confusions(predicted)
        return [
            score(name, self._interval(sums, metric), len(self.truth), {**self.context, **about})
            for name, metric in zeroshot.METRICS.items()
        ]

    def difference(self, first: Numbers, second: Numbers, about: Mapping[str, Any]) -> Score:
        def subtract(one: Any, other: Any) -> Any:
            return zeroshot.balanced_accuracy(one) - zeroshot.balanced_accuracy(other)

        found = self._interval([self._confusions(first), self._confusions(second)], subtract)
        name = "balanced_accuracy_difference"
        return score(name, found, len(self.truth), {**self.context, **about})

    def chance(self, variant: str) -> list[Score]:
        about = {**self.context, "variant": variant, "method": "chance"}
        value = exact(colour.chance(self.classes))
        return [score(name, value, len(self.truth), about) for name in ("balanced_accuracy", "accuracy")]

    def _confusions(self, predicted: Numbers) -> Any:
        return zeroshot.grouped_confusion(self.truth, predicted, self.classes, self.groups)

    def _interval(self, sums: Any, statistic: Any) -> stats.Interval:
        return stats.bootstrap(sums, statistic, self.settings.resamples, self.settings.seed)


@dataclass(frozen=True, slots=True)
class _Learning:
    """The rows that baselines learn from: colour features by variant, classes and groups."""

    colours: Mapping[str, NDArray[np.float64]]
    truth: Numbers
    groups: Numbers


def class_numbers(images: LabelledImages, classes: Sequence[str]) -> Numbers:
    """The class of each picture as a number: int64 [n].

    Raises:
        DataError: a picture of no class of the task, or (in the test split) a class without picture.
    """
    position = {name: number for number, name in enumerate(classes)}
    for path, label in zip(images.paths, images.labels, strict=True):
        if label not in position:
            raise DataError(f"{path}: its class '{label}' is none of {', '.join(classes)}")
    missing = [name for name in classes if name not in images.labels]
    if missing and images.split == "test":
        raise DataError(
            f"class '{missing[0]}' has no example among the {len(images)} pictures to test on; "
            "take it out of the classes or choose other rows"
        )
    return np.array([position[label] for label in images.labels], np.int64)


def _own_names(images: LabelledImages) -> dict[str, list[str]]:
    return {label: [label] for label in sorted(set(images.labels))}


def _encode(
    images: LabelledImages,
    subjects: Sequence[Subject],
    variants: Sequence[str],
    settings: Settings,
    description: str,
) -> Encoded:
    return encode_pictures(
        images.contents,
        images.paths,
        subjects,
        variants,
        settings.batch_size,
        settings.seed,
        description,
    )


def _baselines(figures: _Figures, variant: str, encoded: Encoded, learning: _Learning | None) -> list[Score]:
    """Colour only, majority and chance, in one variant."""
    rows, seed = encoded.colours[variant], figures.settings.seed
    about: dict[str, Any] = {"variant": variant, "method": "colour_only"}
    answers: colour.ColourAnswers | None
    if learning is not None:
        seen = learning.colours[variant]
        answers = colour.classify_by_colour(seen, learning.truth, learning.groups, rows, seed)
        most = colour.majority_class(learning.truth, figures.classes)
    else:
        about["cross_validated"] = True
        answers = colour.cross_classify_by_colour(rows, figures.truth, figures.groups, seed)
        most = colour.majority_class(figures.truth, figures.classes)
    found = []
    if answers is not None:
        found = figures.all(answers.classes, {**about, "classifier": answers.classifier})
    majority = np.full(len(figures.truth), most, np.int64)
    found += figures.all(majority, {"variant": variant, "method": "majority"})
    return found + figures.chance(variant)


def _remarks(test: LabelledImages, train: LabelledImages | None, note: str) -> list[str]:
    remarks = [note.strip()] if note.strip() else []
    if not any(test.groups):
        remarks.append("Groups are not known: intervals treat every picture as independent; too narrow.")
    if train is None:
        remarks.append("No training rows: colour only is cross-validated over the groups of the test rows.")
    elif shared := {*filter(None, test.groups)} & {*train.groups}:
        remarks.append(f"Leaking split: {len(shared)} groups are in the training and in the test rows.")
    return remarks


def _solved_by_colour(scores: Sequence[Score], variant: str) -> list[str]:
    """A remark for each model that colour alone comes up to, within the model's own interval."""
    rows = {
        (one.context["method"], one.context.get("by")): one
        for one in scores
        if one.name == "balanced_accuracy" and one.context["variant"] == variant
    }
    base = rows.get(("colour_only", None))
    return [
        f"{report.words(variant).capitalize()}: {SOLVED_BY_COLOUR}. {by} has {report.value_text(one)}, "
        f"a classifier that sees nothing but colours {base.value:.3f}."
        for (method, by), one in rows.items()
        if base and method == "zero_shot" and one.context["role"] == "model" and base.value >= one.low
    ]
