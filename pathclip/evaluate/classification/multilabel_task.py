"""Multi-label zero-shot classification as a task: which of the classes does a picture show, if any?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import DataError
from pathclip.evaluate.classification import multilabel
from pathclip.evaluate.classification.multilabel_colour import (
    ColourScores,
    cross_presence_by_colour,
    presence_by_colour,
)
from pathclip.evaluate.classification.multilabel_figures import MultiLabelFigures, Ranked
from pathclip.evaluate.classification.multilabel_inputs import (
    MultiLabelSplit,
    encoded_split,
    presence,
    presence_answers,
    presence_vectors,
    without_tested,
)
from pathclip.evaluate.classification.multilabel_sections import classes_section, scores_section
from pathclip.evaluate.datasets import MultiLabelData
from pathclip.evaluate.features.encode import VARIANTS, data_hash
from pathclip.evaluate.marks import is_leaking, is_of_leaking
from pathclip.evaluate.reporting import report
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import (
    Answers,
    Settings,
    TaskResult,
    compared,
    few_groups,
    leaks,
    paired,
    subject_context,
)
from pathclip.runtime.classify import TEMPLATES
from pathclip.types import Score

Floats = NDArray[np.float64]
METHOD = "multi_label"
VALIDATION, OTHER_HALF = "validation", "the other half of the groups"


@dataclass(frozen=True, slots=True)
class MultiLabel:
    """Classes, their wordings and templates, on pictures that show any number of them.

    A picture's score for a class is its cosine similarity to the class; where the class has wordings of
    absence, the similarity to those is taken off. Thresholds, one per class, are those of the highest F1 on
    the validation rows, or on one half of the test groups for the other half. Validation rows that are tested
    on, or of a tested group, are left out.

    Attributes:
        dataset: pictures to test on, and those that thresholds are fitted on and colour only learns from.
        classes: class as the data calls it → its wordings.
        templates: sentences with `{}` for the class; None takes `pathclip.runtime.classify.TEMPLATES`,
            whatever templates the model's card names.
        negatives: class → wordings of its absence, 'tissue without tumour'; classes may be left out.
        variants: of 'plain' and 'randomised_colour'.
        licence: of the data.
        citation: of the data.
        note: what a reader must know of the data.
    """

    dataset: MultiLabelData
    classes: Mapping[str, Sequence[str]]
    templates: Sequence[str] | None = None
    negatives: Mapping[str, Sequence[str]] | None = None
    variants: Sequence[str] = VARIANTS
    licence: str = ""
    citation: str = ""
    note: str = ""

    def run(self, name: str, subjects: Sequence[Subject], settings: Settings) -> TaskResult:
        """Measures every subject.

        Raises:
            DataError: a class that no picture to test on shows, or that all of them show; a picture with a
                class that the task does not have; prompts that are empty or shared; a picture that cannot be
                read; embeddings that are not numbers.
        """
        classes = {key: list(words) or [key] for key, words in self.classes.items()}
        templates = list(self.templates or TEMPLATES)
        negatives = {key: list(words) for key, words in (self.negatives or {}).items()}
        images = self.dataset.test.first(settings.limit)
        held_out = self.dataset.validation.first(settings.limit) if self.dataset.validation else None
        try:
            present = presence(images, list(classes))
            known = presence(held_out, list(classes)) if held_out else None
            vectors = {one.key: presence_vectors(one, classes, templates, negatives) for one in subjects}
        except DataError as error:
            raise DataError(f"task {name}: {error}") from None

        with_what = subjects, self.variants, settings
        test = encoded_split(images, present, *with_what, f"{name}: test pictures")
        fitting, shared = None, list[str]()
        if held_out and known is not None:
            fitting = encoded_split(held_out, known, *with_what, f"{name}: validation pictures")
            fitting, shared = without_tested(fitting, test)
        labels = [",".join(sorted(row)) for row in images.labels]
        prompts = {"templates": templates, "classes": classes, "negatives": negatives}
        context = {
            "task": name,
            "data_hash": data_hash(test.encoded.sha256, labels, images.groups),
            "groups": int(test.groups.max()) + 1,
            "grouped": any(images.groups),
            "resamples": settings.resamples,
            "seed": settings.seed,
            "code_version": settings.code_version,
            "prompts": prompts,
        }
        figures = MultiLabelFigures(present, test.groups, list(classes), settings, context)

        leaking, remarks = leaks(subjects, test.encoded)
        scores: list[Score] = []
        answers: list[Answers] = []
        for variant in self.variants:
            ranked: dict[str, Ranked] = {}
            for one in subjects:
                leak = {"leaked": leaking[one.key].exact, "near_leaked": leaking[one.key].near}
                about = {"variant": variant, "method": METHOD, **subject_context(one), **leak}
                values = _similarities(test, one, variant, vectors)
                before = _similarities(fitting, one, variant, vectors) if fitting else None
                ranked[one.key] = figures.rank(values)
                scores += figures.ranked_scores(ranked[one.key], about)
                decided, about = _decided(figures, values, fitting, before, about)
                if decided is not None:
                    scores += figures.decided_scores(decided, about)
                    answers += presence_answers(test, decided, list(classes), {**context, **about})
            scores += _baselines(figures, test, fitting, variant)
            for first, second in paired(subjects):
                about = {"variant": variant, **compared(first, second)}
                scores += figures.difference(ranked[first.key], ranked[second.key], about)
        scores, solved = _marked(scores, {one.key for one in subjects if is_leaking(one, leaking[one.key])})
        remarks += shared + _remarks(self.note, test, fitting, list(classes)) + solved
        about = {
            "kind": METHOD,
            "licence": self.licence,
            "citation": self.citation,
            "images": len(images),
            "groups": context["groups"],
            "per_class": dict(zip(classes, map(int, present.sum(axis=0)), strict=True)),
            "without_class": int((~present.any(axis=1)).sum()),
            "thresholds_fitted_on": VALIDATION if fitting else OTHER_HALF,
            "colour_thresholds_fitted_on": OTHER_HALF,
            "prompts": prompts,
        }
        sections = (scores_section(name, scores, remarks, about), classes_section(name, scores, about))
        return TaskResult(tuple(scores), sections, tuple(remarks), about, tuple(answers))


def _similarities(
    split: MultiLabelSplit, subject: Subject, variant: str, vectors: Mapping[str, Floats]
) -> Floats:
    scores: Floats = split.encoded.embeddings[subject.key][variant] @ vectors[subject.key].T
    return scores


def _decided(
    figures: MultiLabelFigures,
    values: Floats,
    fitting: MultiLabelSplit | None,
    before: Floats | None,
    about: Mapping[str, Any],
) -> tuple[NDArray[np.bool_] | None, dict[str, Any]]:
    """Decisions at thresholds fitted on the validation rows in the same variant, or on the other half.

    Args:
        figures: of the test pictures.
        values: scores [n, c] of the test pictures.
        fitting: the validation rows, if there are any.
        before: scores [m, c] of those; None takes halves of the test groups.
        about: entries of the scores' context.

    Returns:
        Bool [n, c], None if all test pictures are of one group; and `about` with the thresholds.
    """
    if fitting is None or before is None:
        return figures.cross_decided(values), {**about, "thresholds_fitted_on": OTHER_HALF}
    thresholds = multilabel.f1_thresholds(before, fitting.present)
    named = dict(zip(figures.classes, map(float, thresholds), strict=True))
    return values >= thresholds, {**about, "thresholds_fitted_on": VALIDATION, "thresholds": named}


def _baselines(
    figures: MultiLabelFigures, test: MultiLabelSplit, fitting: MultiLabelSplit | None, variant: str
) -> list[Score]:
    """Colour only, majority and chance in one variant."""
    rows, seed = test.encoded.colours[variant], figures.settings.seed
    found: ColourScores | None
    if fitting is None:
        found = cross_presence_by_colour(rows, test.present, test.groups, seed)
    else:
        learnt = fitting.encoded.colours[variant], fitting.present, fitting.groups
        found = presence_by_colour(*learnt, rows, seed)
    scores: list[Score] = []
    if found is not None:
        about: dict[str, Any] = {"variant": variant, "method": "colour_only", "classifier": found.classifier}
        if fitting is None:
            about["cross_validated"] = True
        scores += figures.ranked_scores(figures.rank(found.scores), about)
        decided, about = _decided(figures, found.scores, None, None, about)
        scores += [] if decided is None else figures.decided_scores(decided, about)
    most = (fitting or test).present.mean(axis=0) > 0.5
    majority = np.broadcast_to(most, test.present.shape)
    about = {"variant": variant, "method": "majority"}
    if fitting is None:
        about["learnt_from_test"] = True
    scores += figures.decided_scores(majority, about)
    return scores + figures.chance({"variant": variant, "method": "chance"})


def _marked(scores: Sequence[Score], leaking: set[str]) -> tuple[list[Score], list[str]]:
    """The scores with what is held against them, and remarks on what colour alone solves."""
    means = [one for one in scores if one.name == "mean_average_precision"]
    colours = {one.context["variant"]: one.value for one in means if one.context["method"] == "colour_only"}
    solved, remarks = set(), []
    for one in means:
        variant = one.context["variant"]
        reached, least = colours.get(variant, -np.inf), one.low if np.isfinite(one.low) else one.value
        if one.context.get("role") == "model" and reached >= least:
            solved.add((variant, one.context["by"]))
            remarks.append(
                f"{report.words(variant).capitalize()}: {report.SOLVED_BY_COLOUR}. {one.context['by']} has a "
                f"mean average precision of {report.value_text(one)}, a classifier that sees nothing but "
                f"colours {reached:.3f}."
            )
    found = []
    for one in scores:
        marks = []
        if is_of_leaking(one.context, leaking):
            marks.append(report.LEAK)
        if (one.context["variant"], one.context.get("by")) in solved:
            marks.append(report.SOLVED_BY_COLOUR)
        found.append(replace(one, context={**one.context, "marks": marks}) if marks else one)
    return found, remarks


def _remarks(
    note: str, test: MultiLabelSplit, fitting: MultiLabelSplit | None, classes: Sequence[str]
) -> list[str]:
    remarks = [note.strip()] if note.strip() else []
    if not any(test.images.groups):
        remarks.append("Groups are not known: intervals treat every picture as independent; too narrow.")
    remarks += few_groups(int(test.groups.max()) + 1)
    if fitting is None:
        return [
            *remarks,
            "No validation rows: thresholds are fitted on one half of the test groups for the other half, "
            "and colour only is cross-validated over the groups. What the majority of pictures show is that "
            "of the test rows themselves.",
        ]
    for key, shown in zip(classes, fitting.present.sum(axis=0), strict=True):
        if not shown:
            remarks.append(f"No validation row shows '{key}', so it is never said to be there.")
    return remarks
