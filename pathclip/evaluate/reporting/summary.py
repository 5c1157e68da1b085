"""The top of a report: every task in one line, with what its figure must be read beside."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pathclip.evaluate.reporting import report
from pathclip.evaluate.reporting.headlines import headlines
from pathclip.types import Score

COLUMNS = (
    "task",
    "score",
    "value",
    "randomised colour",
    "colour only",
    "chance",
    "int8\u00a0−\u00a0fp32",
    "n",
)


def summary_section(scores: Sequence[Score]) -> report.Section | None:
    """Per task: figure with interval, its twin, colour only, chance, int8 minus fp32, and marks.

    Returns:
        None where no encoder was measured.
    """
    lines = headlines(scores)
    if not lines:
        return None
    rows = [
        [
            escape(line.task),
            escape(report.figure_text(line.score)),
            *(
                report.value_html(one)
                for one in (line.score, line.twin, line.colour_only, line.chance, line.difference)
            ),
            str(line.score.n),
        ]
        for line in lines
    ]
    shown = [one for line in lines for one in (line.score, line.twin) if one]
    by = dict.fromkeys(report.method_text(line.score.context) for line in lines)
    caption = (
        f"Of {', '.join(by)}. In brackets 95 % bootstrap intervals over groups. A plain figure that colours "
        "alone come near to says little: read its twin. A dash: not measured."
    )
    html = report.html_table(COLUMNS, rows, plain=2) + report.marks_explained(shown)
    return report.Section("Summary", html, caption)
