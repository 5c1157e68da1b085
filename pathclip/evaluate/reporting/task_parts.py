"""What the sections of several kinds of tasks have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pathclip.evaluate.reporting import report
from pathclip.types import Score


def score_chart(scores: Sequence[Score], name: str) -> str:
    """One figure as bars with intervals, on an axis that ends at 1: a row for who scored, a bar per variant.

    Args:
        scores: of a task.
        name: of the figure.
    """
    kept = [one for one in scores if one.name == name]
    labels = list(dict.fromkeys(report.method_text(one.context) for one in kept))
    columns: dict[str, list[Score]] = {}
    for label in labels:
        for one in kept:
            if report.method_text(one.context) == label:
                columns.setdefault(report.words(str(one.context["variant"])), []).append(one)
    return report.bar_chart(
        labels,
        {variant: [one.value for one in row] for variant, row in columns.items()},
        {variant: [(one.low, one.high) for one in row] for variant, row in columns.items()},
        top=1.0,
    )


def prompt_details(about: Mapping[str, Any]) -> str:
    """Prompts, licence and citation, folded; `about` as in `TaskResult`, of a task with classes."""
    prompts = about["prompts"]
    wordings = [f"{key}: {', '.join(words)}" for key, words in prompts["classes"].items()]
    wordings += [
        f"absence of {key}: {', '.join(words)}" for key, words in prompts.get("negatives", {}).items()
    ]
    return (
        "<details><summary>Prompts, licence, citation</summary>"
        + report.paragraphs([f"Templates: {'; '.join(prompts['templates'])}", *wordings])
        + report.paragraphs([f"Licence: {about['licence'] or 'not stated'}", about["citation"]])
        + "</details>"
    )
