"""What the report shows of something learnt: remarks, charts, figures with their spread over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pathclip.evaluate.measures.learning import Learnable
from pathclip.evaluate.measures.learnt_scores import BALANCED
from pathclip.evaluate.reporting import report
from pathclip.evaluate.reporting.task_parts import score_chart
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Measured, TaskResult
from pathclip.types import Score

Point = tuple[float, float, float, float]  # x, value, low, high


def learning_section(
    title: str, scores: Sequence[Score], remarks: Sequence[str], caption: str, chart: str = "", more: str = ""
) -> report.Section:
    """Marks and remarks, a chart, every score with its spread over seeds.

    Args:
        title: plain text.
        scores: of the measure.
        remarks: plain text, one paragraph each.
        caption: plain text below.
        chart: trusted SVG; by default balanced accuracies as bars.
        more: trusted HTML below the table.
    """
    told = report.marks_explained(scores) + report.paragraphs(remarks, "remark")
    html = told + (chart or bars(scores)) + score_spread_table(scores) + more
    return report.Section(title, html, caption)


def bars(scores: Sequence[Score]) -> str:
    """Balanced accuracy of each method and encoder as bars, one per variant."""
    return score_chart(scores, BALANCED)


def points_of(
    scores: Sequence[Score],
    entry: str,
    subject: Subject,
    variant: str,
    method: str,
    precision: str | None = None,
) -> list[Point]:
    """Balanced accuracies of a method with one encoder, by an entry of their context.

    Args:
        scores: of a measure.
        entry: of their context, such as 'shots'.
        subject: the encoder.
        variant: of the pictures.
        method: how was learnt.
        precision: that the scores name; None for that of the encoder.
    """
    wanted = (BALANCED, method, variant, subject.role, precision or subject.encoder.precision)
    found = []
    for one in scores:
        about = one.context
        mine = (one.name, about.get("method"), about["variant"], about.get("role"), about.get("precision"))
        if mine == wanted:
            found.append((about[entry], one.value, one.low, one.high))
    return found


def lines_with_intervals(
    lines: Mapping[str, Sequence[Point]], x_label: str, levels: Mapping[str, float] | None = None
) -> str:
    """A line chart of shares with intervals as upright strokes, those of each line a little aside.

    Args:
        lines: name → points in the order of x; a line without points is left out.
        x_label: of the axis.
        levels: name → height of a level line.

    Returns:
        An `<svg>` element; '' if there is no point.
    """
    lines = {name: line for name, line in lines.items() if line}
    if not lines:
        return ""
    xs = [point[0] for line in lines.values() for point in line]
    series: dict[str, list[tuple[float, float]]] = {
        name: [(min(xs), level), (max(xs), level)] for name, level in (levels or {}).items()
    }
    series |= {name: [(x, value) for x, value, _, _ in line] for name, line in lines.items()}
    strokes = []
    for number, line in enumerate(lines.values()):
        aside = max(xs) / 150 * (number - (len(lines) - 1) / 2)
        for x, _, low, high in line:
            strokes += [(x + aside, low), (x + aside, high), (x + aside, math.nan)]
    series["95 % intervals"] = strokes
    return report.line_chart(series, x_label, y_range=(0, 1))


def score_spread_table(scores: Sequence[Score]) -> str:
    """One row per figure and method; per variant the score with its interval and the SD over seeds."""
    rows, variants = report.score_rows(scores)
    head = ["score", "by"]
    for variant in variants:
        head += [report.words(variant), "SD over seeds"]
    body = []
    for (_, figure, by), cells in rows.items():
        line = [report.escape(report.words(figure)), report.escape(by)]
        for variant in variants:
            one = cells.get(variant)
            line += [report.value_html(one), _spread(one)]
        body.append([*line, str(next(iter(cells.values())).n)])
    return report.html_table([*head, "n"], body, plain=2)


def not_measured(measured: Measured, what: str, given: Learnable) -> TaskResult:
    """The result of a measure that has nothing to learn from: no figure, and why."""
    remark = f"{what} not measured: {given.refusal}."
    remarks = (*given.remarks, remark)
    section = report.Section(f"{measured.name}: {what.lower()}", report.paragraphs(remarks, "remark"))
    return TaskResult((), (section,), remarks, {"refusal": given.refusal})


def learning_about(given: Learnable, **more: Any) -> Mapping[str, Any]:
    """For `report.json`: from how many pictures was learnt, and what the measure adds."""
    return {
        "learnt_from": len(given.train) if given.train else 0,
        "chosen_on": len(given.validation) if given.validation else 0,
        **more,
    }


def _spread(one: Score | None) -> str:
    sd = one.context.get("sd_over_seeds") if one else None
    return "–" if sd is None or one is None else f"{sd:.3f} ({one.context['seeds']})"
