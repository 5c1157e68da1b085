"""What stands in the way of comparing two reports, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pathclip.evaluate.comparison.measurements import Measurement, Side
from pathclip.evaluate.reporting.report import words

FEWEST_GROUPS = 6  # of five, even if every swap counts, p cannot fall below 2 / 2^5 = 0.06


def obstacle(what: Measurement, first: Side, second: Side) -> str:
    """Why the figures of two sides cannot be compared; '' if they can."""
    one, other = first.contexts[what], second.contexts[what]
    both = f"{first.label} and {second.label}"
    ranked = [side.answers[what].rank is not None for side in (first, second)]
    if ranked[0] != ranked[1]:
        return f"{what.task}: of {both} one keeps ranks and the other classes; not compared."
    classes = [_classes(context) for context in (one, other)]
    if classes[0] and classes[1] and set(classes[0]) != set(classes[1]):
        return (
            f"{what.task}: {both} tell different classes apart ({len(classes[0])} and {len(classes[1])}), "
            "so their figures answer different questions; not compared."
        )
    if ranked[0] and one.get("data_hash") != other.get("data_hash"):
        return (
            f"{what.task}: {both} searched different pairs (data {_short(one)} and {_short(other)}); a rank "
            "depends on all that is searched, so they are not compared."
        )
    return ""


def told(
    what: Measurement, first: Side, second: Side, n: int, groups: int, left_out: tuple[int, int, int]
) -> list[str]:
    """What a reader must know of one row: other data, other prompts, pictures left out.

    Args:
        what: was measured.
        first: the one side.
        second: the other.
        n: shared pictures.
        groups: of them.
        left_out: pictures that only the first has, that only the second has, and that both name differently.
    """
    one, other = first.contexts[what], second.contexts[what]
    both = f"{first.label} and {second.label}"
    lines = []
    if one.get("data_hash") != other.get("data_hash"):
        lines.append(
            f"{what.task}: {both} measured different data under one name (data {_short(one)} and "
            f"{_short(other)}); compared on the {n} pictures that both have."
        )
    if any(left_out):
        mine, theirs, differing = left_out
        lines.append(
            f"{what.task}: left out are {mine} that only {first.label} has, {theirs} that only "
            f"{second.label} has, and {differing} whose class differs."
        )
    if one.get("prompts") != other.get("prompts"):
        lines.append(f"{what.task}: {both} used different prompts, so prompts are part of the difference.")
    seeds = max(seeds_of(first, what), seeds_of(second, what))
    if seeds > 1:
        lines.append(
            f"{what.task}: of the {words(what.method)} only the answers of the first seed are kept and "
            f"compared; the reports give the mean over {seeds} seeds."
        )
    if groups < FEWEST_GROUPS:
        lines.append(f"{what.task}: only {groups} groups, too few for any difference to be shown.")
    return lines


def seeds_of(side: Side, what: Measurement) -> int:
    """Over how many seeds the report's figure is a mean: what was learnt, or drawn; else 1."""
    seeds = side.contexts[what].get("seeds")
    return seeds if isinstance(seeds, int) else 1


def only_in_one(first: Side, second: Side) -> list[str]:
    """Tasks that one side lacks, and encoders that find no partner."""
    tasks = [{what.task for what in side.answers} for side in (first, second)]
    lines = [
        f"Only in {side.label}: {', '.join(sorted(more))}."
        for side, more in ((first, tasks[0] - tasks[1]), (second, tasks[1] - tasks[0]))
        if more
    ]
    for task in sorted((first.silent | second.silent) - (tasks[0] ^ tasks[1])):
        lines.append(f"{task}: it keeps no answers to single pictures, so it is not compared.")
    for task in sorted(tasks[0] & tasks[1]):
        held = [{what.precision for what in side.answers if what.task == task} for side in (first, second)]
        if not held[0] & held[1]:
            lines.append(
                f"{task}: {first.label} has {', '.join(sorted(held[0]))}, {second.label} has "
                f"{', '.join(sorted(held[1]))}: no precision in common."
            )
    return lines


def no_picture_in_common(what: Measurement, first: Side, second: Side) -> str:
    """Why there is no row."""
    return (
        f"{what.task}: {first.label} and {second.label} have no picture in common, so they are not compared."
    )


def _classes(context: Mapping[str, Any]) -> Sequence[str]:
    prompts = context.get("prompts")
    classes = prompts.get("classes") if isinstance(prompts, Mapping) else None
    return [str(one) for one in classes] if isinstance(classes, Mapping | list) else []


def _short(context: Mapping[str, Any]) -> str:
    return str(context.get("data_hash") or "unknown")[:8]
