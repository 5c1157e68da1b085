"""A comparison as a table in the terminal, and as `compare.html`, `.json`, `.md` and `.tex`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from pathclip import atomic
from pathclip.evaluate.comparison.compare import SIGNIFICANT, Comparison, Row
from pathclip.evaluate.reporting import report
from pathclip.evaluate.reporting.paper_tables import Table, latex, markdown, markdown_text
from pathclip.evaluate.reporting.plots import difference_chart
from pathclip.evaluate.stats import Interval

SCHEMA_VERSION = 1


def write_comparison(folder: str | Path, found: Comparison) -> list[Path]:
    """Writes the four files.

    Returns:
        Their paths, `compare.html` first.
    """
    out = Path(folder)
    title = f"Comparison of {', '.join(found.sides)}"
    tables = [table(found, pair) for pair in _pairs(found)]
    lines = [f"# {markdown_text(title)}", "", *(f"- {markdown_text(line)}" for line in sides_text(found)), ""]
    for one in tables:
        lines += [markdown(one), ""]
    lines += [f"- {markdown_text(remark)}" for remark in found.remarks]
    report.write_report(out / "compare.html", title, _sections(found), "  ".join(sides_text(found)))
    atomic.write_json(out / "compare.json", as_json(found))
    atomic.write_text(out / "compare.md", "\n".join(lines).rstrip() + "\n")
    atomic.write_text(out / "compare.tex", "% needs \\usepackage{booktabs}\n" + "\n".join(map(latex, tables)))
    return [out / f"compare.{kind}" for kind in ("html", "json", "md", "tex")]


def as_json(found: Comparison) -> dict[str, Any]:
    """Content of `compare.json`: the sides, every row with all that it depends on, and the remarks."""
    rows = [
        {
            **asdict(row.what),
            "figure": row.figure,
            "first": {"side": row.first, **asdict(row.values[0]), "marks": row.marks[0]},
            "second": {"side": row.second, **asdict(row.values[1]), "marks": row.marks[1]},
            "difference": asdict(row.difference),
            "p": row.p,
            "p_holm": row.p_holm,
            "n": row.n,
            "groups": row.groups,
            "left_out": dict(zip(("first_only", "second_only", "class_differs"), row.left_out, strict=True)),
            "verdict": row.verdict,
        }
        for row in found.rows
    ]
    content = {
        "schema_version": SCHEMA_VERSION,
        "sides": found.sides,
        "difference": "second minus first",
        "resamples": found.resamples,
        "seed": found.seed,
        "significant_below": SIGNIFICANT,
        "rows": rows,
        "remarks": list(found.remarks),
    }
    return dict(report.without_nan(content))


def print_comparison(found: Comparison) -> None:
    """The table on stdout, what the sides are above it, remarks below."""
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 200  # a log has no edge to wrap at
    for line in sides_text(found):
        console.print(line, soft_wrap=True)
    for pair in _pairs(found):
        shown = table(found, pair)
        rich = RichTable(box=None, pad_edge=False, header_style="bold")
        for name in shown.head:
            rich.add_column(name, overflow="fold")
        for row in shown.rows:
            rich.add_row(*row)
        console.print(rich)
    for remark in found.remarks:
        console.print(remark, soft_wrap=True)
    console.print(note(found), soft_wrap=True)


def sides_text(found: Comparison) -> list[str]:
    """What each letter stands for."""
    return [
        f"{label}: {side['name']}, weights {str(side['model_hash'])[:12] or 'not known'}, "
        f"report {side['report']}, pathclip {side['code_version']}; {', '.join(side['encoders'])}."
        for label, side in found.sides.items()
    ]


def table(found: Comparison, pair: tuple[str, str]) -> Table:
    """The rows of two sides as plain text."""
    first, second = pair
    rows = [row for row in found.rows if (row.first, row.second) == pair]
    head = ("task", "measured", "verdict", first, second, f"{second} minus {first}", "p", "p (Holm)")
    return Table(
        f"compare-{first}-{second}",
        f"{first} against {second}. {note(found)}",
        (*head, "n", "groups"),
        tuple(
            (
                row.what.task,
                measured_text(row),
                row.verdict,
                *(_with_marks(value, marks) for value, marks in zip(row.values, row.marks, strict=True)),
                _interval_text(row.difference, sign=True),
                p_text(row.p),
                p_text(row.p_holm),
                str(row.n),
                str(row.groups),
            )
            for row in rows
        ),
        7,
    )


def note(found: Comparison) -> str:
    """How to read the figures."""
    return (
        "In brackets 95 % bootstrap intervals over groups, paired for the difference; p by swapping the "
        f"answers of whole groups, {found.resamples} resamples each, seed {found.seed}; Holm over all "
        f"{len(found.rows)} rows. Better: p (Holm) below {SIGNIFICANT}. No difference shown is no proof that "
        "there is none."
    )


def measured_text(row: Row) -> str:
    """'balanced accuracy, zero shot, plain, int8' and what else tells the row from others."""
    what = row.what
    role = "" if what.role == "model" else what.role
    parts = (row.figure, what.method, what.variant, f"{role} {what.precision}".strip(), what.detail)
    return ", ".join(report.words(part) for part in parts if part)


def p_text(p: float) -> str:
    """A p-value with the digits that resamples can give.

    >>> [p_text(p) for p in (0.0423, 0.00001, float("nan"))]
    ['0.042', '<0.001', '–']
    """
    if math.isnan(p):
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _sections(found: Comparison) -> list[report.Section]:
    sections = []
    for first, second in _pairs(found):
        rows = [row for row in found.rows if (row.first, row.second) == (first, second)]
        chart = difference_chart(
            [_label(row) for row in rows],
            [(row.difference.value, row.difference.low, row.difference.high) for row in rows],
        )
        plain = table(found, (first, second))
        cells = [_html_cells(row, words) for row, words in zip(rows, plain.rows, strict=True)]
        html = (
            report.paragraphs(found.remarks, "remark")
            + f"<h3>{escape(second)} minus {escape(first)}</h3>{chart}"
            + report.html_table(plain.head, cells, plain=3)
        )
        sections.append(report.Section(f"{first} against {second}", html, note(found)))
    return sections


def _label(row: Row) -> str:
    """Short, for the chart; the figure stands in the table."""
    return f"{row.what.task}, {measured_text(row).removeprefix(report.words(row.figure) + ', ')}"


def _html_cells(row: Row, words: Sequence[str]) -> list[str]:
    cells = [escape(word) for word in words]
    for column, value, marks in zip((3, 4), row.values, row.marks, strict=True):
        cells[column] = _interval_text(value) + report.mark_badges(marks)
    cells[2] = f"<strong>{cells[2]}</strong>" if row.verdict.endswith("better") else cells[2]
    return cells


def _with_marks(value: Interval, marks: Sequence[str]) -> str:
    return _interval_text(value) + (f" ({', '.join(marks)})" if marks else "")


def _interval_text(value: Interval, sign: bool = False) -> str:
    if not math.isfinite(value.value):
        return "n/a"
    plus = "+" if sign else ""
    if not math.isfinite(value.low) or value.low == value.high:
        return f"{value.value:{plus}.3f}"
    return f"{value.value:{plus}.3f} [{value.low:{plus}.3f}, {value.high:{plus}.3f}]"


def _pairs(found: Comparison) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row.first, row.second) for row in found.rows))
