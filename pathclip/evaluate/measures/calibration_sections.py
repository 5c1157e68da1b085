"""What the report shows of calibration: reliability, risk against coverage, "none of these" per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate.measures import calibration
from pathclip.evaluate.measures.calibration_figures import SIMILARITY, Rows, Values, risk_curve
from pathclip.evaluate.reporting import report
from pathclip.evaluate.reporting.plots import number_text, ticks
from pathclip.evaluate.subjects import Subject
from pathclip.runtime.calibration import softmax
from pathclip.types import Score

Floats = NDArray[np.float64]
_WORDS = {
    "ece": "expected calibration error",
    "adaptive_ece": "expected calibration error, bins of as many pictures each",
    "brier": "Brier score",
    "negative_log_likelihood": "negative log-likelihood",
    "conformal_coverage": "conformal sets that hold the right class",
    "conformal_coverage_of_groups": "conformal sets that hold the right class, mean of the groups",
    "conformal_set_size": "classes in a conformal set",
    "conformal_empty": "conformal sets that are empty",
    "conformal_singleton": "conformal sets of one class",
    "area_under_risk_coverage": "area under risk against coverage",
    "none_auroc_mean": "none of these: AUROC, mean of the classes left out",
    "none_rejected_mean": "none of these: rejected pictures of the class left out",
    "known_rejected_mean": "none of these: rejected pictures of the other classes",
}
_WHEN = {
    "_before": ", as trained",
    "_after": ", fitted",
    "_change": ", fitted minus as trained",
}


def calibration_section(
    name: str,
    shown: Subject,
    judged: Mapping[str, tuple[Rows, Values]],
    scores: Sequence[Score],
    bins: int,
    coverage: float,
) -> report.Section:
    """Reliability diagram of each variant, risk-coverage curve, and all figures but those per class.

    Args:
        name: of the task.
        shown: the encoder whose diagrams are drawn.
        judged: variant → its pictures and what they were judged by.
        scores: of all encoders.
        bins: of the diagrams.
        coverage: of the conformal sets.
    """
    diagrams = []
    for variant, (rows, values) in judged.items():
        series = {
            label: calibration.reliability_sums(
                softmax(rows.similarity, scale), rows.truth, rows.groups, bins
            ).sum(axis=0)
            for label, scale in (("as trained", shown.encoder.logit_scale), ("fitted", values.scale))
        }
        diagrams.append(report.paragraphs([report.words(variant).capitalize()]) + reliability_diagram(series))
    curves = {report.words(variant): risk_curve(*pair) for variant, pair in judged.items()}
    html = (
        "".join(diagrams)
        + report.paragraphs(["Risk against coverage: wrong answers among the surest pictures"])
        + report.line_chart(curves, "coverage: share of pictures answered, the surest first", "risk")
        + report.score_table(
            [replace(one, name=figure_words(one.name)) for one in scores if "left_out" not in one.context],
            most=100,
        )
    )
    caption = (
        f"Diagrams of {shown.title}: a square per bin of confidence ({bins} of equal width), its side "
        "growing with the pictures in it; on the dashed line confidence is accuracy. ECE: expected "
        "calibration error over these bins; adaptive: over bins of as many pictures each. Both, and their "
        "intervals, lie too high where pictures are few. Brier score: summed over the classes, 0 to 2. "
        f"Conformal sets aim at {coverage:.0%} coverage; a model that is right more often leaves some empty."
    )
    return report.Section(f"{name}: calibration", html, caption)


def figure_words(name: str) -> str:
    """A figure of calibration as a reader wants it named.

    >>> figure_words("ece_before"), figure_words("accuracy_at_80%_coverage")
    ('expected calibration error, as trained', 'accuracy of the surest 80%')
    """
    for ending, when in _WHEN.items():
        if name.endswith(ending):
            return _WORDS[name.removesuffix(ending)] + when
    if name.startswith("accuracy_at_"):
        return f"accuracy of the surest {name.removeprefix('accuracy_at_').removesuffix('_coverage')}"
    return _WORDS.get(name, report.words(name))


def none_section(
    name: str, shown: Subject, scores: Sequence[Score], classes: Sequence[str], known_pass: float
) -> report.Section:
    """How well each class, left out, is told from the others; a table, a row per class."""
    mine = [one for one in scores if one.context["by"] == shown.title and "left_out" in one.context]
    variants = list(dict.fromkeys(str(one.context["variant"]) for one in mine))
    columns = [(figure, variant) for figure in ("none_auroc", "none_rejected") for variant in variants]
    heads = {"none_auroc": "AUROC", "none_rejected": "rejected"}
    head = "".join(f"<th>{heads[figure]}, {report.words(variant)}</th>" for figure, variant in columns)
    cells = {(one.context["left_out"], one.name, one.context["variant"]): one for one in mine}
    body = "".join(
        f"<tr><td>{escape(left_out)}</td>"
        + "".join(
            f'<td class="figure">{_cell(cells.get((left_out, figure, variant)))}</td>'
            for figure, variant in columns
        )
        + "</tr>"
        for left_out in classes
    )
    caption = (
        f"{shown.title}. Each class is left out in turn, so that its pictures are none of the others. A "
        "picture is rejected if its highest similarity is below a threshold that "
        f"{known_pass:.0%} of the pictures of the other classes are to pass; –: too few groups to fit it on. "
        "An AUROC of 0.5 is chance. The encoder may have been trained on the class left out; tissue that it "
        "never saw can lie nearer."
    )
    table = (
        f'<div class="wide"><table><thead><tr><th>class left out</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
    return report.Section(f"{name}: none of these ({report.words(SIMILARITY)})", table, caption)


def reliability_diagram(series: Mapping[str, Any]) -> str:
    """Accuracy against confidence, with the diagonal of perfect calibration.

    Args:
        series: name → sums [bins, 3] of `calibration.reliability_sums`: pictures, confidence, right answers.

    Returns:
        An `<svg>` element.
    """
    left, head, side = 64.0, 30.0, 300.0
    foot = head + side
    parts = []
    for number, label in enumerate(series):
        x = left + 110 * number
        parts.append(f'<rect class="s{number}" x="{x:.1f}" y="4" width="11" height="11"/>')
        parts.append(_small(x + 16, 14, label, "start"))
    for tick in ticks(0, 1):
        x, y = left + tick * side, foot - tick * side
        parts.append(f'<line class="grid" x1="{left}" x2="{left + side}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_small(left - 8, y + 4, number_text(tick), "end"))
        parts.append(_small(x, foot + 16, number_text(tick), "middle"))
    parts.append(
        f'<line class="reference" x1="{left}" x2="{left + side}" y1="{foot:.1f}" y2="{foot - side:.1f}"/>'
    )
    for number, sums in enumerate(series.values()):
        points = _points(np.asarray(sums, np.float64))
        path = "L".join(f"{left + x * side:.1f} {foot - y * side:.1f}" for x, y, _, _ in points)
        parts.append(f'<path class="line s{number}" d="M{path}"/>' if len(points) > 1 else "")
        for x, y, share, count in points:
            edge = 4 + 14 * share**0.5
            parts.append(
                f'<rect class="s{number}" x="{left + x * side - edge / 2:.1f}" '
                f'y="{foot - y * side - edge / 2:.1f}" width="{edge:.1f}" height="{edge:.1f}">'
                f"<title>confidence {x:.3f}, accuracy {y:.3f}, {count} pictures</title></rect>"
            )
    parts.append(_small(left + side / 2, foot + 36, "confidence", "middle"))
    parts.append(_small(left - 8, head - 12, "accuracy", "end"))
    width, height = left + side + 20, foot + 44
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _cell(one: Score | None) -> str:
    return "–" if one is None else report.value_text(one)


def _points(sums: Floats) -> list[tuple[float, float, float, int]]:
    """Mean confidence, accuracy, share and number of the pictures of each bin that has any."""
    total = sums[:, 0].sum()
    return [
        (float(conf / count), float(right / count), float(count / total), int(count))
        for count, conf, right in sums
        if count
    ]


def _small(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="small" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
