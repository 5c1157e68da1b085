"""One HTML file that needs nothing else: style, plots and pictures are in it. `pathclip demo` uses it too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathclip import atomic
from pathclip.evaluate.plots import bar_chart, confusion_svg, line_chart
from pathclip.page import Section, data_url, page, thumbnail
from pathclip.types import Score

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "Section",
    "bar_chart",
    "confusion_svg",
    "escape",
    "line_chart",
    "picture_grid",
    "score_table",
    "write_report",
    "write_scores",
]

SCHEMA_VERSION = 1


def write_report(path: str | Path, title: str, sections: Sequence[Section], lead: str = "") -> Path:
    """Writes the sections as one self-contained HTML file.

    Args:
        path: of the file; replaced at once if it exists.
        title: plain text.
        sections: in their order.
        lead: plain text below the title.

    Returns:
        The path.
    """
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    lead = f'<p class="lead">{escape(lead)}</p>'
    atomic.write_text(Path(path), page(title, sections, lead, style))
    return Path(path)


def write_scores(path: str | Path, scores: Sequence[Score], **more: Any) -> Path:
    """Writes `report.json`: the scores as mappings, and what else the caller names.

    NaN, which JSON does not have, becomes null.
    """
    content = {"schema_version": SCHEMA_VERSION, **more, "scores": [asdict(score) for score in scores]}
    atomic.write_json(Path(path), _without_nan(content))
    return Path(path)


def score_table(scores: Sequence[Score]) -> str:
    """Scores as an HTML table: one row per figure and method, one column per variant.

    Args:
        scores: those of one task read best; the keys 'task', 'method', 'model', 'precision' and 'variant'
            of their context are used where present.
    """
    variants = list(dict.fromkeys(str(score.context.get("variant", "value")) for score in scores))
    rows: dict[tuple[str, ...], dict[str, Score]] = {}
    for score in scores:
        rows.setdefault(_row_key(score), {})[str(score.context.get("variant", "value"))] = score
    head = "".join(f"<th>{escape(words(variant))}</th>" for variant in variants)
    body = []
    for (task, name, method), cells in rows.items():
        first = next(iter(cells.values()))
        figures = "".join(
            f'<td class="figure">{value_text(cells[v]) if v in cells else ""}</td>' for v in variants
        )
        body.append(
            f"<tr><td>{escape(task)}</td><td>{escape(words(name))}</td><td>{escape(method)}</td>"
            f'{figures}<td class="figure">{first.n}</td></tr>'
        )
    return (
        f'<div class="wide"><table><thead><tr><th>task</th><th>score</th><th>by</th>{head}<th>n</th></tr>'
        f"</thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def picture_grid(
    pictures: Sequence[tuple[Image.Image, str]], side: int = 120, marks: Sequence[bool] | None = None
) -> str:
    """Pictures as small JPEGs with captions, in rows.

    Args:
        pictures: image and plain text each.
        side: longest side of a thumbnail in pixels.
        marks: a frame per picture: green for True, red for False; None for no frames.
    """
    cells = []
    for number, (image, caption) in enumerate(pictures):
        mark = "" if marks is None else (" right" if marks[number] else " wrong")
        cells.append(
            f'<figure class="picture{mark}"><img src="{data_url(thumbnail(image, side))}" alt="">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    return f'<div class="grid" style="--side:{side}px">{"".join(cells)}</div>'


def paragraphs(lines: Sequence[str], kind: str = "") -> str:
    """Plain lines as `<p>` elements of a class: '' or 'remark'."""
    return "".join(f'<p class="{kind}">{escape(line)}</p>' for line in lines if line)


def value_text(score: Score) -> str:
    """'0.931 [0.902, 0.957]'; without the interval where there is none."""
    if not math.isfinite(score.value):
        return "n/a"
    digits = 1 if "rank" in score.name else 3
    text = f"{score.value:.{digits}f}"
    if not math.isfinite(score.low) or score.low == score.high:
        return text
    return f"{text} [{score.low:.{digits}f}, {score.high:.{digits}f}]"


def words(name: str) -> str:
    """'balanced_accuracy' as people write it."""
    return name.replace("_", " ")


def method_text(context: Mapping[str, Any]) -> str:
    """Who made a score: 'lite (int8, onnx)', 'colour only' …."""
    return str(context.get("by") or words(str(context.get("method", ""))))


def _row_key(score: Score) -> tuple[str, ...]:
    name = score.name
    if definition := score.context.get("definition"):
        name = f"{name} ({words(str(definition))})"
    return str(score.context.get("task", "")), name, method_text(score.context)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
