"""What is held against a score: that its pictures were trained on, or that colour alone would do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pathclip.evaluate.leaks import CHANCE, Leak
from pathclip.evaluate.reporting.report import (
    LEAK,
    NEARLY_SOLVED_BY_COLOUR,
    SOLVED_BY_COLOUR,
    value_text,
    words,
)
from pathclip.evaluate.subjects import Subject
from pathclip.types import Score

# Of the way from chance to the model's own figure: colours that come so far nearly solve a task.
NEARLY = 0.9
# Methods that ask an encoder and learn nothing on the task's own rows.
ASKED = ("zero_shot", "first_template")


@dataclass(frozen=True, slots=True)
class Marks:
    """Puts `marks` into the context of the model's scores that something is held against.

    'leak': test pictures were trained on. 'solved by colour': a classifier that sees nothing but colours
    reaches the lower end of the model's interval of balanced accuracy, in that variant. 'nearly solved by
    colour': it does not, but comes `NEARLY` of the way there from chance. A score of balanced accuracy is
    judged by its own interval, any other by that of zero-shot classification; what was learnt
    on the training rows is not judged here, but by its measure, which knows what colours learn that way.

    Attributes:
        leaking: subject's key → whether it was trained on test pictures, see `is_leaking`.
        split_leaks: whether test pictures or their groups stand in the task's training rows, too: that is
            held against all that was learnt there, the colours included.
        models: method, precision and variant → the model's balanced accuracy.
        colour_only: variant → balanced accuracy of the colours.
        chance: balanced accuracy of guessing.
    """

    leaking: Mapping[str, bool]
    split_leaks: bool
    models: Mapping[tuple[str, str, str], Score]
    colour_only: Mapping[str, float]
    chance: float

    def put(self, scores: Sequence[Score], learnt: bool = False) -> list[Score]:
        """The scores with their marks.

        Args:
            scores: of the task.
            learnt: whether they come of a measure that learns on the training rows.
        """
        found = []
        for one in scores:
            marks = list(one.context.get("marks", ()))
            if self._leaks(one.context, learnt):
                marks.insert(0, LEAK)
            if _is_models(one.context) and not learnt:
                marks += self._of_colour(one)
            found.append(replace(one, context={**one.context, "marks": marks}) if marks else one)
        return found

    def _leaks(self, context: Mapping[str, Any], learnt: bool) -> bool:
        if _is_models(context) and self.leaking.get(f"model {context['precision']}"):
            return True
        of_colours = context.get("method") == "colour_only" and not context.get("cross_validated")
        return self.split_leaks and (of_colours or learnt)

    def _of_colour(self, one: Score) -> list[str]:
        method, precision, variant = (str(one.context[key]) for key in ("method", "precision", "variant"))
        judged = self.models.get((method if method in ASKED else "zero_shot", precision, variant))
        if one.name == "balanced_accuracy":
            judged = one
        colours = self.colour_only.get(variant, -math.inf)
        if judged is None or not math.isfinite(colours):
            return []
        if colours >= judged.low:
            return [SOLVED_BY_COLOUR]
        near = colours - self.chance >= NEARLY * (judged.value - self.chance)
        return [NEARLY_SOLVED_BY_COLOUR] if near else []


def marks_of(scores: Sequence[Score], leaking: Mapping[str, bool], split_leaks: bool) -> Marks:
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
    return Marks(leaking, split_leaks, models, colours, chance)


def is_leaking(subject: Subject, leak: Leak) -> bool:
    """Whether test pictures were trained on, or more nearly so than chance brings (a Poisson count)."""
    expected = len(leak.mask) * 8 * len(subject.seen or ()) * CHANCE
    return bool(leak.exact) or (leak.near or 0) > expected + 3 * math.sqrt(expected)


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
