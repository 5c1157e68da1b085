r"""Tables for papers: the headline figures in Markdown and in LaTeX, with a caption that says what they are.

The LaTeX needs `\usepackage{booktabs}` and nothing else; it is ASCII but for letters of names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathclip import atomic
from pathclip.evaluate.reporting import report
from pathclip.evaluate.reporting.headlines import Headline, by_task, headline_scores, headlines
from pathclip.types import Score

DASH = "–"
_LATEX = {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    **{"–": "--", "—": "---", "−": "$-$", "→": r"$\rightarrow$", "×": r"$\times$", "≤": r"$\leq$"},
    **{"≥": r"$\geq$", "±": r"$\pm$", "…": r"\dots{}", "“": "``", "”": "''", "’": "'", "<": r"\textless{}"},
    **{">": r"\textgreater{}", "|": r"\textbar{}", "µ": r"$\mu$"},
}


@dataclass(frozen=True, slots=True)
class Table:
    """A table of plain text.

    Attributes:
        name: for LaTeX's label, without 'tab:'.
        caption: below or above it.
        head: of the columns.
        rows: cells.
        figures: number of columns at the right that hold figures.
    """

    name: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    figures: int


def write_tables(folder: Path, title: str, scores: Sequence[Score], remarks: Mapping[str, Any]) -> list[Path]:
    """Writes `report.md` and `report.tex`.

    Args:
        folder: of the report.
        title: plain text.
        scores: of the run.
        remarks: task → what a reader must know before believing its figures.

    Returns:
        The two paths.
    """
    tables = score_tables(scores)
    lines = [f"# {markdown_text(title)}", "", report_notice(), ""]
    for table in tables:
        lines += [markdown(table), ""]
        lines += [f"- {markdown_text(remark)}" for remark in remarks.get(table.name, ())]
        lines += [""] if remarks.get(table.name) else []
    latex_text = "% needs \\usepackage{booktabs}\n" + "\n".join(latex(table) for table in tables)
    atomic.write_text(folder / "report.md", "\n".join(lines).rstrip() + "\n")
    atomic.write_text(folder / "report.tex", latex_text)
    return [folder / "report.md", folder / "report.tex"]


def report_notice() -> str:
    """What every table of figures is read with."""
    return (
        "Beside each figure its 95 % interval. A score in plain colours is to be read together with its twin "
        "under randomised colour and with what colours alone reach. Research software, not for diagnosis."
    )


def score_tables(scores: Sequence[Score]) -> list[Table]:
    """A summary of all tasks, and one table per task with every encoder and baseline."""
    found = [summary_table(headlines(scores))] if headlines(scores) else []
    for task, own in by_task(scores).items():
        shown = [one for one in headline_scores(own) if not one.name.endswith("_difference")]
        differences = [one for one in headline_scores(own) if one.name.endswith("_difference")]
        rows, variants = report.score_rows([*shown, *differences])
        found.append(
            Table(
                task,
                f"{task}: {caption(own)}",
                ("score", "by", *map(report.words, variants), "n"),
                tuple(
                    (
                        figure,
                        by,
                        *(report.value_with_marks(cells[v]) if v in cells else DASH for v in variants),
                        str(next(iter(cells.values())).n),
                    )
                    for (_, figure, by), cells in rows.items()
                ),
                len(variants) + 1,
            )
        )
    return found


def summary_table(lines: Sequence[Headline]) -> Table:
    """One line per task; see `Headline`."""
    return Table(
        "summary",
        "All tasks, with 95 % bootstrap intervals over the groups of each: the headline figure of the first "
        "encoder, its twin under randomised colour, what colours alone and chance reach, and int8 minus fp32 "
        "on the same images.",
        (
            *("task", "score", "by", "value", "randomised colour", "colour only", "chance"),
            *("int8 minus fp32", "n"),
        ),
        tuple(
            (
                line.task,
                report.figure_text(line.score),
                report.method_text(line.score.context),
                report.value_with_marks(line.score),
                *(
                    DASH if one is None else report.value_with_marks(one)
                    for one in (line.twin, line.colour_only, line.chance, line.difference)
                ),
                str(line.score.n),
            )
            for line in lines
        ),
        6,
    )


def caption(scores: Sequence[Score]) -> str:
    """What the figures of one task are of, and what their intervals are over.

    >>> about = {"groups": 30, "grouped": True, "resamples": 10000, "data_hash": "ab12" * 16}
    >>> caption([Score("accuracy", 0.5, 90, 0.4, 0.6, about)])
    'n = 90; 95 % percentile bootstrap intervals over 30 groups, 10000 resamples; data ab12ab12ab12.'
    """
    first = scores[0]
    about = first.context
    unit = (
        f"{about.get('groups')} groups"
        if about.get("grouped")
        else "single images, whose groups are not known (so too narrow)"
    )
    marks = dict.fromkeys(mark for one in scores for mark in report.score_marks(one))
    text = (
        f"n = {first.n}; 95 % percentile bootstrap intervals over {unit}, {about.get('resamples')} "
        f"resamples; data {str(about.get('data_hash', ''))[:12]}."
    )
    for mark in marks:
        meaning = next((said for name, said in report.MARKS.items() if mark.startswith(name)), "")
        text += f" {mark.capitalize()}: {meaning}"
    return text


def markdown(table: Table) -> str:
    """The table in Markdown, its caption below."""
    words = len(table.head) - table.figures
    lines = [
        f"| {' | '.join(map(markdown_text, table.head))} |",
        f"|{'|'.join(['---'] * words + ['---:'] * table.figures)}|",
        *(f"| {' | '.join(map(markdown_text, row))} |" for row in table.rows),
        "",
        markdown_text(table.caption),
    ]
    return "\n".join(lines)


def markdown_text(text: str) -> str:
    r"""Plain text with every character escaped that Markdown or HTML in it would take for a command.

    >>> print(markdown_text("a_b <i> ![x](y)"))
    a\_b \<i\> \!\[x\](y)
    >>> print(markdown_text("# no heading &amp; 5 & 6"))
    \# no heading \&amp; 5 & 6
    >>> print(markdown_text("0.9 [0.8, 1.0]"))
    0.9 [0.8, 1.0]
    """
    text = re.sub(r"([\\|<>*`_~!\[\]]|&(?=#?\w+;))", r"\\\1", " ".join(text.split()))
    text = re.sub(r"\\\[([-+]?[\d.]+, [-+]?[\d.]+)\\\]", r"[\1]", text)  # an interval is no link
    return re.sub(r"^([#+-](?=[#+\s-]|$)|\d+(?=[.)](?:\s|$)))", _escaped_start, text)


def latex(table: Table) -> str:
    """The table in LaTeX as a float, in the manner of the package booktabs."""
    columns = "l" * (len(table.head) - table.figures) + "r" * table.figures
    label = re.sub(r"[^a-z0-9]+", "-", table.name.lower()).strip("-")
    lines = [
        *(r"\begin{table}", r"\centering", rf"\caption{{{latex_text(table.caption)}}}"),
        *(rf"\label{{tab:{label}}}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"),
        " & ".join(map(latex_text, table.head)) + r" \\",
        r"\midrule",
        *(" & ".join(map(latex_text, row)) + r" \\" for row in table.rows),
        *(r"\bottomrule", r"\end{tabular}", r"\end{table}", ""),
    ]
    return "\n".join(lines)


def latex_text(text: str) -> str:
    r"""Plain text with every character escaped that LaTeX would take for a command.

    >>> latex_text("50 % of a_b & c")
    '50 \\% of a\\_b \\& c'
    """
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def _escaped_start(found: re.Match[str]) -> str:
    """What would begin a heading or a list; a number is kept from it by an escaped point."""
    return f"{found[1]}\\" if found[1].isdecimal() else f"\\{found[1]}"
