"""Which figures stand for a task, and what belongs beside each: baselines, colour twin, int8 against fp32."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pathclip.types import Score

# The first of these that a task has stands for it; for retrieval it is recall at its largest k.
FIGURES = ("balanced_accuracy", "mean_average_precision", "macro_auroc", "macro_f1")
# Methods that use an encoder as it is, with nothing learnt upon it.
OWN_USE = ("zero_shot", "retrieval", "multi_label")
LEARNT_SHOWN = ("linear_probe", "linear_probe_on_colour_only")
_RECALL = re.compile(r"(text_to_image|image_to_text)_recall@(\d+)")


@dataclass(frozen=True, slots=True)
class Headline:
    """A task in one line.

    Attributes:
        task: its name.
        score: the figure of the first encoder, in plain colours where the task has them.
        twin: the same under randomised colour.
        colour_only: what a classifier reaches that sees nothing but colours.
        chance: what guessing reaches.
        difference: int8 minus fp32, paired.
    """

    task: str
    score: Score
    twin: Score | None = None
    colour_only: Score | None = None
    chance: Score | None = None
    difference: Score | None = None


def headlines(scores: Iterable[Score]) -> list[Headline]:
    """One line per task; none for a task in which no encoder was measured."""
    found = []
    for task, own in by_task(scores).items():
        mine = _under_first_definition(own, headline_names(own)[:1])
        shown = next((one for one in mine if _is_encoders(one.context)), None)
        if shown is None:
            continue
        variant = shown.context.get("variant")
        found.append(
            Headline(
                task,
                shown,
                next((one for one in mine if _is_twin(one, shown)), None),
                _of_method(mine, "colour_only", variant),
                _of_method(mine, "chance", variant),
                _int8_minus_fp32(own, shown),
            )
        )
    return found


def headline_scores(scores: Sequence[Score]) -> list[Score]:
    """The scores worth a short table: of each task its headline figures, their baselines and differences.

    Of what was learnt on training rows the linear probe alone; the others stand in the report.
    """
    kept = []
    for own in by_task(scores).values():
        kept += _under_first_definition(own, headline_names(own))
    return [
        one for one in kept if "learnt_from" not in one.context or one.context.get("method") in LEARNT_SHOWN
    ]


def headline_names(scores: Sequence[Score]) -> list[str]:
    """Names of the figures that stand for one task: one, or recall both ways, at 10 or the largest k.

    >>> headline_names([Score(name, 0.5, 9, 0.4, 0.6) for name in ("accuracy", "balanced_accuracy")])
    ['balanced_accuracy']
    >>> headline_names([Score(f"text_to_image_recall@{k}", 0.5, 9, 0.4, 0.6) for k in (1, 5, 10)])
    ['text_to_image_recall@10']
    """
    names = list(dict.fromkeys(one.name for one in scores))
    for name in FIGURES:
        if name in names:
            return [name]
    recalls = [found for name in names if (found := _RECALL.fullmatch(name))]
    if recalls:
        ks = {int(found[2]) for found in recalls}
        shown = 10 if 10 in ks else max(ks)
        return [found[0] for found in recalls if int(found[2]) == shown]
    return names[:1]


def by_task(scores: Iterable[Score]) -> dict[str, list[Score]]:
    """Scores by the task of their context, in their order."""
    found: dict[str, list[Score]] = {}
    for one in scores:
        found.setdefault(str(one.context.get("task", "")), []).append(one)
    return found


def _is_encoders(context: Mapping[str, Any]) -> bool:
    return context.get("role") == "model" and context.get("method", "zero_shot") in OWN_USE


def _under_first_definition(own: Sequence[Score], names: Sequence[str]) -> list[Score]:
    """The named figures and their differences, under the definition of a hit and on the pool named first."""
    found = [one for one in own if one.name.removesuffix("_difference") in names]
    return [
        one
        for one in found
        if all(one.context.get(key) == found[0].context.get(key) for key in ("definition", "pool"))
    ]


def _is_twin(one: Score, shown: Score) -> bool:
    same = ("by", "role", "precision", "runtime", "method")
    return one.context.get("variant") == "randomised_colour" and all(
        one.context.get(key) == shown.context.get(key) for key in same
    )


def _of_method(scores: Sequence[Score], method: str, variant: Any) -> Score | None:
    return next(
        (
            one
            for one in scores
            if one.context.get("method") == method and one.context.get("variant") == variant
        ),
        None,
    )


def _int8_minus_fp32(scores: Sequence[Score], shown: Score) -> Score | None:
    for one in scores:
        first, second = one.context.get("first") or {}, one.context.get("second") or {}
        if (
            one.name == f"{shown.name}_difference"
            and one.context.get("variant") == shown.context.get("variant")
            and one.context.get("definition") == shown.context.get("definition")
            and (first.get("precision"), second.get("precision")) == ("int8", "fp32")
            and first.get("role") == second.get("role") == "model"
        ):
            return one
    return None
