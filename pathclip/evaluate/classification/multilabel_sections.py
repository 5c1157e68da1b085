"""What the report shows of a multi-label task: figures over all classes, then each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pathclip.evaluate.reporting import report
from pathclip.evaluate.reporting.task_parts import prompt_details, score_chart
from pathclip.types import Score


def scores_section(
    name: str, scores: Sequence[Score], remarks: Sequence[str], about: Mapping[str, Any]
) -> report.Section:
    """Remarks, mean average precision as bars, every figure over all classes, the prompts."""
    chart, details = score_chart(scores, "mean_average_precision"), prompt_details(about)
    table = report.score_table([one for one in scores if "class" not in one.context])
    fitted_on, of_colour = about["thresholds_fitted_on"], about["colour_thresholds_fitted_on"]
    but = f"; of colour only, which learns from these rows, on: {of_colour}" if of_colour != fitted_on else ""
    html = report.marks_explained(scores) + report.paragraphs(remarks, "remark") + chart + table + details
    caption = (
        f"Mean average precision above, with 95 % bootstrap intervals over {about['groups']} groups of "
        f"{about['images']} pictures, {about['without_class']} of which show none of the classes. Chance is "
        "what a random order is expected to reach, a little more than the mean share of the classes; equal "
        "scores for all pictures reach that share. F1, exact match and Hamming loss (the share of wrong "
        f"entries) are at thresholds fitted on: {fitted_on}{but}."
    )
    return report.Section(f"{name}: multi-label classification", html, caption)


def classes_section(name: str, scores: Sequence[Score], about: Mapping[str, Any]) -> report.Section:
    """AUROC and average precision of each class, by whoever ranked the pictures."""
    rows: dict[tuple[str, str], dict[str, Score]] = {}
    for one in scores:
        if "class" in one.context:
            by = f"{report.method_text(one.context)}, {report.words(str(one.context['variant']))}"
            rows.setdefault((one.context["class"], by), {})[one.name] = one
    figures = ("auroc", "average_precision")
    table = report.html_table(
        ["class", "by", "AUROC", "average precision", "pictures that show it"],
        [
            [
                report.escape(key),
                report.escape(by),
                *(report.value_text(cells[figure]) for figure in figures),
                str(about["per_class"][key]),
            ]
            for (key, by), cells in rows.items()
        ],
        plain=2,
    )
    caption = (
        "Each class against its absence. Average precision of a random order is a little above the share "
        "of the class."
    )
    return report.Section(f"{name}: each class", table, caption)
