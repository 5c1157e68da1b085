"""One HTML file that needs nothing else: style, plots and pictures are in it. `pathclip demo` uses it too."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathclip import atomic
from pathclip.evaluate.reporting.headlines import OWN_USE, headline_scores
from pathclip.evaluate.reporting.plots import bar_chart, confusion_svg, line_chart
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
MOST_ROWS = 24  # a longer table of scores opens on a click; its headline figures stay in sight
# Entries of a context that make several figures of one method, the first to be told.
DETAILS = ("class", "direction", "definition", "pool", "shots", "fraction", "k")
LEAK = "leak"
SOLVED_BY_COLOUR = "solved by colour"
NEARLY_SOLVED_BY_COLOUR = "nearly solved by colour"
MARKS = {
    LEAK: "whoever answered had learnt from pictures that it is tested on here, so the figure says little "
    "about pictures that it has not seen.",
    SOLVED_BY_COLOUR: "a classifier that sees nothing but colours comes within the figure's interval, so the "
    "figure does not show that structure was read. Its twin under randomised colour tells more.",
    NEARLY_SOLVED_BY_COLOUR: "a classifier that sees nothing but colours comes nine tenths of the way from "
    "chance to the figure. Its twin under randomised colour tells more.",
}


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
    atomic.write_json(Path(path), without_nan(content))
    return Path(path)


def score_table(scores: Sequence[Score], most: int = MOST_ROWS) -> str:
    """Scores as an HTML table: one row per figure and method, one column per variant.

    Args:
        scores: those of one task read best; the keys 'task', 'method', 'model', 'precision', 'variant' and
            'marks' of their context are used where present.
        most: rows that are shown at once; of a longer table the headline figures stay in sight.
    """
    rows, variants = score_rows(scores)
    names = {_row_key(score)[:2] for score in headline_scores(scores)}
    first = {key: cells for key, cells in rows.items() if key[:2] in names}
    others = {key: cells for key, cells in rows.items() if key[:2] not in names}
    if len(rows) <= most or not others:
        return _table(rows, variants)
    return (
        f"{_table(first, variants)}<details><summary>{len(others)} more figures</summary>"
        f"{_table(others, variants)}</details>"
    )


def score_rows(
    scores: Sequence[Score],
) -> tuple[dict[tuple[str, str, str], dict[str, Score]], list[str]]:
    """Scores as the rows of a table.

    Returns:
        (task, figure, by) → variant → score, and the variants in their order. Scores that would share a cell
        get rows of their own, told apart by those entries of their context that differ: 'shots 4', say.
    """
    variants = list(dict.fromkeys(_variant(score) for score in scores))
    cells: dict[tuple[str, str, str, str], list[Score]] = {}
    for score in scores:
        cells.setdefault((*_row_key(score), _variant(score)), []).append(score)
    rows: dict[tuple[str, str, str], dict[str, Score]] = {}
    for (task, figure, by, variant), several in cells.items():
        for position, score in enumerate(several):
            detail = what_differs([one.context for one in several], position)
            rows.setdefault((task, figure, f"{by}, {detail}" if detail else by), {})[variant] = score
    return rows, variants


def picture_grid(
    pictures: Sequence[tuple[Image.Image, str]], side: int = 120, marks: Sequence[bool] | None = None
) -> str:
    """Pictures as small JPEGs with captions, in rows.

    Args:
        pictures: image and plain text each; a line break in the text stays one.
        side: longest side of a thumbnail in pixels.
        marks: a frame per picture: green for True, red for False; None for no frames.
    """
    cells = []
    for number, (image, caption) in enumerate(pictures):
        mark = "" if marks is None else (" right" if marks[number] else " wrong")
        cells.append(picture_figure(data_url(thumbnail(image, side)), caption, mark))
    return f'<div class="grid" style="--side:{side}px">{"".join(cells)}</div>'


def picture_figure(url: str, caption: str, mark: str = "") -> str:
    """One picture of a grid: its `data:` URL, plain text below it, and ' right' or ' wrong' for a frame."""
    lines = "<br>".join(escape(line) for line in caption.split("\n"))
    return f'<figure class="picture{mark}"><img src="{url}" alt=""><figcaption>{lines}</figcaption></figure>'


def paragraphs(lines: Sequence[str], kind: str = "") -> str:
    """Plain lines as `<p>` elements of a class: '' or 'remark'."""
    return "".join(f'<p class="{kind}">{escape(line)}</p>' for line in lines if line)


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], plain: int = 1) -> str:
    """A table that scrolls sideways where it is too wide.

    Args:
        head: plain text of each column.
        rows: trusted HTML of each cell.
        plain: columns from the left that hold words; the others hold figures.
    """
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td>{cell}</td>" if number < plain else f'<td class="figure">{cell}</td>'
            for number, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def value_text(score: Score) -> str:
    """'0.931 [0.902, 0.957]'; without the interval where there is none."""
    if not math.isfinite(score.value):
        return "n/a"
    digits = 1 if "rank" in score.name else 3
    text = f"{score.value:.{digits}f}"
    if not math.isfinite(score.low) or score.low == score.high:
        return text
    return f"{text} [{score.low:.{digits}f}, {score.high:.{digits}f}]"


def score_marks(score: Score) -> list[str]:
    """What is held against a score: 'leak', 'solved by colour', or nothing."""
    return [str(mark) for mark in score.context.get("marks") or ()]


def value_with_marks(score: Score) -> str:
    """The value as plain text, with what is held against it.

    >>> value_with_marks(Score("accuracy", 0.9, 10, 0.8, 1.0, {"marks": ["leak"]}))
    '0.900 [0.800, 1.000] (leak)'
    """
    marks = score_marks(score)
    return value_text(score) + (f" ({', '.join(marks)})" if marks else "")


def value_html(score: Score | None) -> str:
    """The value with a badge for each mark; a dash where there is no score."""
    if score is None:
        return "–"
    return value_text(score) + mark_badges(score_marks(score))


def mark_badges(marks: Sequence[str]) -> str:
    """Each mark as a small badge."""
    return "".join(
        f' <span class="mark{" grave" if mark.startswith(LEAK) else ""}">{escape(mark)}</span>'
        for mark in marks
    )


def marks_explained(scores: Sequence[Score]) -> str:
    """For the top of a task's section: what each badge means that some score of it bears; '' without."""
    found = dict.fromkeys(mark for score in scores for mark in score_marks(score))
    lines = []
    for mark in found:
        meaning = next((text for name, text in MARKS.items() if mark.startswith(name)), "see the remarks.")
        lines.append(f'<p class="remark">{mark_badges([mark]).strip()} {escape(meaning)}</p>')
    return "".join(lines)


def words(name: str) -> str:
    """'balanced_accuracy' as people write it."""
    return name.replace("_", " ")


def method_text(context: Mapping[str, Any]) -> str:
    """Who made a score: 'lite (int8, onnx)', 'linear probe, lite (int8, onnx)', 'colour only' …."""
    by, method = str(context.get("by") or ""), str(context.get("method", ""))
    if not by or method in (*OWN_USE, "paired_difference", "") or words(method) in by:
        return by or words(method)
    return f"{words(method)}, {by}"


def figure_text(score: Score) -> str:
    """Name of a figure with what else defines it: 'text to image recall@10 (exact pair)'."""
    details = [words(str(score.context[key])) for key in ("definition",) if score.context.get(key)]
    return words(score.name) + (f" ({', '.join(details)})" if details else "")


def what_differs(contexts: Sequence[Mapping[str, Any]], position: int, ignored: Collection[str] = ()) -> str:
    """What tells one context from the others: 'shots 4'; its number where nothing does, '' if it is alone.

    >>> what_differs([{"shots": 1, "seed": 3}, {"shots": 4, "seed": 3}], 1)
    'shots 4'
    """
    if len(contexts) == 1:
        return ""
    entries = dict.fromkeys([*DETAILS, *(key for one in contexts for key in one)])
    told: list[str] = []
    for key in entries:
        values = [one.get(key) for one in contexts]
        if key in ignored or not all(isinstance(value, str | int | float | None) for value in values):
            continue
        if len(set(values)) > 1:
            told.append(key)
        if len({tuple(one.get(key) for key in told) for one in contexts}) == len(contexts):
            own = contexts[position]
            return ", ".join(
                f"{words(key)} {words(str(own[key]))}" for key in told if own.get(key) is not None
            )
    return f"no. {position + 1}"


def without_nan(value: Any) -> Any:
    """The value with None for every number that JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(rows: Mapping[tuple[str, str, str], Mapping[str, Score]], variants: Sequence[str]) -> str:
    body = []
    for key, cells in rows.items():
        first = next(iter(cells.values()))
        figures = [value_html(cells[one]) if one in cells else "" for one in variants]
        body.append([*map(escape, key), *figures, str(first.n)])
    return html_table(["task", "score", "by", *map(words, variants), "n"], body, plain=3)


def _variant(score: Score) -> str:
    return str(score.context.get("variant", "value"))


def _row_key(score: Score) -> tuple[str, str, str]:
    return str(score.context.get("task", "")), figure_text(score), method_text(score.context)
