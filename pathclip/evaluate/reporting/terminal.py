"""What an evaluation prints: a short table of headline figures, and where the time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pathclip.evaluate.profile import Profile
from pathclip.evaluate.reporting import report
from pathclip.evaluate.reporting.headlines import OWN_USE, headline_scores
from pathclip.evaluate.task import Settings
from pathclip.types import Score

# Of remarks that belong beside the figures at once.
GRAVE = ("LEAK", "Leaking split", "could not be looked for", "say little", "no intervals", "ot measured")


def print_scores(scores: Sequence[Score]) -> None:
    """A short table on stdout: of each task its headline figures, by every method, with marks.

    Names of models, which can be longer than a terminal is wide, stand above it once.
    """
    from rich.console import Console
    from rich.table import Table

    shown = headline_scores(scores)
    variants = list(dict.fromkeys(str(score.context["variant"]) for score in shown))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("task", "score", "by", *map(report.words, variants), "n"):
        table.add_column(column, overflow="fold")
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    counts: dict[tuple[str, ...], int] = {}
    for score in shown:
        key = (str(score.context["task"]), report.figure_text(score), _short_title(score.context))
        rows.setdefault(key, {})[str(score.context["variant"])] = report.value_with_marks(score)
        counts[key] = score.n
    for row, cells in rows.items():
        table.add_row(*row, *(cells.get(variant, "") for variant in variants), str(counts[row]))
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 168  # a log has no edge to wrap at
    named = {score.context["role"]: score.context["model"] for score in shown if "role" in score.context}
    for role, name in named.items():
        console.print(f"{role}: {name}", soft_wrap=True)
    console.print(table)


def print_remarks(remarks: Mapping[str, Sequence[str]], settings: Settings) -> None:
    """What must be known before a figure is passed on; and what else stands in the report."""
    if settings.limit:
        print(f"limit={settings.limit}: a trial, not a measurement of the whole task")
    for task, lines in remarks.items():
        for line in dict.fromkeys(lines):  # several measures leave out the same rows
            if any(word in line for word in GRAVE):
                print(f"{task}: {line}")
    if settings.measures:
        print(f"in the report too: {', '.join(settings.measures)}, and every other remark")


def print_profile(profile: Profile) -> None:
    """One line on stdout: how long it took, and how much of that the encoders did."""
    print(
        f"{profile.seconds:.0f} s, {profile.share():.0%} of them in the encoders, "
        f"which took {profile.processor_share():.0%} of the processor time"
    )


def _short_title(context: Mapping[str, Any]) -> str:
    if "role" not in context:
        return report.method_text(context)
    who = f"{context['role']} {context['precision']} ({context['runtime']})"
    method = str(context.get("method", ""))
    return who if method in ("", *OWN_USE) else f"{report.words(method)}, {who}"
