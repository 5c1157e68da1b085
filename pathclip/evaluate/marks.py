"""What is held against a score: that its pictures were trained on, or that colour alone would do."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pathclip.evaluate.leaks import Leak, beyond_chance
from pathclip.evaluate.reporting.report import (
    LEAK,
    NEARLY_SOLVED_BY_COLOUR,
    SOLVED_BY_COLOUR,
    method_text,
    value_text,
    words,
)
from pathclip.evaluate.subjects import Subject
from pathclip.types import Score

# Of the way from chance to the model's own figure: colours that come so far nearly solve a task.
NEARLY = 0.9
# Methods that ask an encoder and learn nothing on the task's own rows.
ASKED = ("zero_shot", "first_template")
# What a linear probe learns from colours, on the rows that the others of its measure learn from.
PROBE_ON_COLOUR_ONLY = "linear_probe_on_colour_only"


@dataclass(frozen=True, slots=True)
class Marks:
    """Puts `marks` into the context of the scores that something is held against.

    'leak': test pictures were trained on; of a paired difference, by either side. 'solved by colour': a
    classifier that sees nothing but colours reaches the lower end of the model's interval of balanced
    accuracy, in that variant. 'nearly solved by colour': it does not, but comes `NEARLY` of the way there
    from chance. Colours that do not exceed chance solve nothing, however low the model.

    Of what asks an encoder, a score of balanced accuracy is judged by its own interval and any other by that
    of zero-shot classification. Of what was learnt, all figures of an encoder, method and variant are judged
    by their balanced accuracy, against a linear probe on colours if that is among them, else against the
    colours of the task; but for what was learnt from a part of the rows: the colours learnt from all.

    Attributes:
        leaking: subject's key → whether it was trained on test pictures, see `is_leaking`.
        split_leaks: whether test pictures or their groups stand in the task's training rows, too: that is
            held against the colours, which learn from all of those rows.
        learnt_leaks: whether near-duplicates of test pictures are among the rows that measures learn from,
            which leave out the test pictures themselves and their groups.
        models: method, precision and variant → the model's balanced accuracy.
        colour_only: variant → balanced accuracy of the colours.
        chance: balanced accuracy of guessing.
    """

    leaking: Mapping[str, bool] = field(default_factory=dict)
    split_leaks: bool = False
    learnt_leaks: bool = False
    models: Mapping[tuple[str, str, str], Score] = field(default_factory=dict)
    colour_only: Mapping[str, float] = field(default_factory=dict)
    chance: float = math.nan

    def put(self, scores: Sequence[Score], learnt: bool = False) -> list[Score]:
        """The scores with their marks; those that they bear already are not put twice.

        Args:
            scores: of the task.
            learnt: whether they come of a measure that learns on the training rows.
        """
        of_learnt = self._of_learnt(scores) if learnt else {}
        found = []
        for one in scores:
            marks = [LEAK] if self._leaks(one.context, learnt) else []
            marks += one.context.get("marks", ())
            if learnt:
                marks += of_learnt.get(_learnt_key(one.context), [])
            elif _is_models(one.context):
                marks += self._of_asked(one)
            marks = list(dict.fromkeys(marks))
            found.append(replace(one, context={**one.context, "marks": marks}) if marks else one)
        return found

    def _leaks(self, context: Mapping[str, Any], learnt: bool) -> bool:
        if is_of_leaking(context, [key for key, leaks in self.leaking.items() if leaks]):
            return True
        if learnt:
            return self.learnt_leaks
        return (
            self.split_leaks and context.get("method") == "colour_only" and not context.get("cross_validated")
        )

    def _of_asked(self, one: Score) -> list[str]:
        method, precision, variant = (str(one.context[key]) for key in ("method", "precision", "variant"))
        judged = self.models.get((method if method in ASKED else "zero_shot", precision, variant))
        if one.name == "balanced_accuracy":
            judged = one
        return self._of_colour(judged, self.colour_only.get(variant, math.nan)) if judged else []

    def _of_learnt(self, scores: Sequence[Score]) -> dict[tuple[Any, ...], list[str]]:
        """Marks by encoder, method and variant."""
        colours = learnt_colours(scores, self)
        return {
            _learnt_key(one.context): self._of_colour(one, colours.get(str(one.context["variant"]), math.nan))
            for one in scores
            if one.name == "balanced_accuracy" and _is_models(one.context) and _of_all_rows(one.context)
        }

    def _of_colour(self, judged: Score, colours: float) -> list[str]:
        if not math.isfinite(colours) or colours <= self.chance:
            return []
        if colours >= (judged.low if math.isfinite(judged.low) else judged.value):
            return [SOLVED_BY_COLOUR]
        near = colours - self.chance >= NEARLY * (judged.value - self.chance)
        return [NEARLY_SOLVED_BY_COLOUR] if near else []


def marks_of(
    scores: Sequence[Score], leaking: Mapping[str, bool], split_leaks: bool, learnt_leaks: bool = False
) -> Marks:
    """Marks by what the scores of zero-shot classification and of the colours are."""
    models, colours, chance = {}, {}, math.nan
    for one in scores:
        context = one.context
        if one.name == "balanced_accuracy" and _is_models(context):
            models[str(context["method"]), str(context["precision"]), str(context["variant"])] = one
        if one.name == "balanced_accuracy" and context.get("method") == "colour_only":
            colours[str(context["variant"])] = one.value
        if one.name == "balanced_accuracy" and context.get("method") == "chance":
            chance = one.value
    return Marks(leaking, split_leaks, learnt_leaks, models, colours, chance)


def is_leaking(subject: Subject, leak: Leak) -> bool:
    """Whether a subject was trained on test pictures; see `leaks.beyond_chance`."""
    return beyond_chance(leak, len(leak.mask), len(subject.seen or ()))


def is_of_leaking(context: Mapping[str, Any], leaking: Collection[str]) -> bool:
    """Whether a score, or either side of a difference, is of an encoder trained on test pictures.

    What one precision of a model was trained on, the others were too, and what was trained on from it.

    Args:
        context: of the score.
        leaking: keys of such encoders: 'model fp32'.

    >>> is_of_leaking({"first": {"role": "model"}, "second": {"role": "untrained"}}, ["model int8"])
    True
    """
    sides = [context, context.get("first") or {}, context.get("second") or {}]
    roles = {key.split()[0] for key in leaking}
    return any(side.get("role") in roles for side in sides)


def learnt_colours(scores: Sequence[Score], marks: Marks) -> dict[str, float]:
    """Variant → balanced accuracy of what colours alone teach a measure with these scores."""
    probes = {
        str(one.context["variant"]): one.value
        for one in scores
        if one.name == "balanced_accuracy" and one.context.get("method") == PROBE_ON_COLOUR_ONLY
    }
    return probes or dict(marks.colour_only)


def learnt_colour_remarks(scores: Sequence[Score], marks: Marks) -> list[str]:
    """As `colour_remarks`, of what a measure learnt: its scores with their marks."""
    colours = learnt_colours(scores, marks)
    return [
        f"{words(str(one.context['variant'])).capitalize()}: {mark}. {method_text(one.context).capitalize()} "
        f"has {value_text(one)}, colours alone {colours[str(one.context['variant'])]:.3f}."
        for one in scores
        if one.name == "balanced_accuracy"
        for mark in one.context.get("marks", ())
        if mark in (SOLVED_BY_COLOUR, NEARLY_SOLVED_BY_COLOUR)
    ]


def colour_remarks(scores: Sequence[Score], marks: Marks) -> list[str]:
    """One line for each encoder of the model and variant whose zero-shot score colour alone comes up to."""
    return [
        f"{words(str(one.context['variant'])).capitalize()}: {mark}. {one.context['by']} has "
        f"{value_text(one)}, a classifier that sees nothing but colours "
        f"{marks.colour_only[one.context['variant']]:.3f}, chance {marks.chance:.3f}."
        for one in scores
        if one.name == "balanced_accuracy" and one.context.get("method") == "zero_shot"
        for mark in one.context.get("marks", ())
        if mark in (SOLVED_BY_COLOUR, NEARLY_SOLVED_BY_COLOUR)
    ]


def _is_models(context: Mapping[str, Any]) -> bool:
    return context.get("role") == "model" and {"method", "precision", "variant"} <= {*context}


def _learnt_key(context: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(context.get(key) for key in ("by", "variant", "method", "shots", "fraction"))


def _of_all_rows(context: Mapping[str, Any]) -> bool:
    return "shots" not in context and context.get("fraction", 1.0) == 1.0
