"""What the report shows of the choices of prompts: their distribution, and which words are responsible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate.measures.distribution_plot import distribution_svg
from pathclip.evaluate.reporting import report

if TYPE_CHECKING:
    from pathclip.evaluate.measures.prompt_choices import Choices, Tried

LEAST_SPREAD = 0.01  # of mean balanced accuracy, for wordings to be called responsible
ENSEMBLE, SINGLE = "all prompts averaged", "first template, first wordings"
_NAMES = {"balanced_accuracy": "Balanced accuracy", "weighted_f1": "Weighted F1, as PLIP reports it"}


def prompt_section(name: str, choices: Choices, tried: Sequence[Tried]) -> report.Section:
    """A histogram for each metric with a row for each encoder and variant, and the means by part."""
    html = report.paragraphs(prompt_remarks(choices, tried), "remark")
    for metric, title in _NAMES.items():
        html += f"<h3>{report.escape(title)}</h3>"
        # Each on an axis of its own: beside an untrained model, the spread of a trained one is a line.
        for role in dict.fromkeys(one.subject.role for one in tried):
            own = [one for one in tried if one.subject.role == role]
            rows = {_label(one): one.values[metric].tolist() for one in own}
            marks = {
                _label(one): {ENSEMBLE: one.ensemble[metric], SINGLE: float(one.values[metric][0])}
                for one in own
            }
            html += distribution_svg(rows, marks, f"{title}, {role}")
    html += (
        "<details><summary>Which wording is responsible</summary>"
        + _parts_table(choices, tried)
        + "</details>"
    )
    caption = (
        f"Tried were {_how_many(choices)}: one template for all classes and one wording for each class. "
        "Below each histogram the range, the middle half and the median. In the table: mean balanced "
        "accuracy of the choices that have this template or this wording."
    )
    return report.Section(f"{name}: choices of prompts", html, caption)


def prompt_remarks(choices: Choices, tried: Sequence[Tried]) -> list[str]:
    """How far the choice decides, for each encoder of the model and variant; and what decides most."""
    lines = []
    for one in tried:
        if one.subject.role != "model":
            continue
        values, together = one.values["balanced_accuracy"], one.ensemble["balanced_accuracy"]
        median = np.quantile(values, 0.5, method="lower")  # of a choice, as the score is
        lines.append(
            f"{_label(one)}: balanced accuracy from {values.min():.3f} to {values.max():.3f} by the choice "
            f"of prompts ({_how_many(choices)}; median {median:.3f}). All prompts averaged: "
            f"{together:.3f}, no worse than {(values <= together).mean():.0%} of the choices; the first "
            f"template alone: {values[0]:.3f}, no worse than {(values <= values[0]).mean():.0%}."
            + _decisive(choices, values)
        )
    return lines


def part_means(
    choices: Choices, values: NDArray[np.float64]
) -> Iterator[tuple[str, str, NDArray[np.bool_], float]]:
    """Each template and each wording: what it belongs to, its text, which choices have it, their mean."""
    parts = [("template", list(choices.templates))]
    parts += [(name, list(words)) for name, words in choices.classes.items()]
    for column, (owner, texts) in enumerate(parts):
        for place, text in enumerate(texts):
            having = choices.rows[:, column] == place
            yield owner, text, having, float(values[having].mean()) if having.any() else float("nan")


def _decisive(choices: Choices, values: NDArray[np.float64]) -> str:
    """What depends most on its wording: the template, or a class."""
    means: dict[str, list[tuple[float, str]]] = {}
    for owner, text, _, mean in part_means(choices, values):
        if np.isfinite(mean):
            means.setdefault(owner, []).append((mean, text))
    spread = {owner: max(several)[0] - min(several)[0] for owner, several in means.items()}
    owner = max(spread, key=lambda key: spread[key])
    if spread[owner] < LEAST_SPREAD:
        return ""
    (worst, bad), (best, good) = min(means[owner]), max(means[owner])
    what = "the template" if owner == "template" else f"the wording of '{owner}'"
    return f" Most depends on {what}: with '{good}' {best:.3f} in the mean, with '{bad}' {worst:.3f}."


def _parts_table(choices: Choices, tried: Sequence[Tried]) -> str:
    columns = [
        [(having, mean) for _, _, having, mean in part_means(choices, one.values["balanced_accuracy"])]
        for one in tried
    ]
    named = [(owner, text) for owner, text, _, _ in part_means(choices, tried[0].values["balanced_accuracy"])]
    rows = [
        [
            report.escape(owner),
            report.escape(text),
            *("–" if np.isnan(column[row][1]) else f"{column[row][1]:.3f}" for column in columns),
            str(int(columns[0][row][0].sum())),
        ]
        for row, (owner, text) in enumerate(named)
    ]
    head = ["of", "words", *map(_label, tried), "choices"]
    return report.html_table(head, rows, plain=2)


def _label(tried: Tried) -> str:
    who = tried.subject.encoder.precision
    if tried.subject.role != "model":
        who = f"{tried.subject.role}, {who}"
    return f"{who}, {report.words(tried.variant)}"


def _how_many(choices: Choices) -> str:
    if len(choices.rows) == choices.total:
        return f"all {choices.total:,} choices"
    return f"{len(choices.rows):,} of {choices.total:,} choices"
