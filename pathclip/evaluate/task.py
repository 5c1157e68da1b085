"""What every evaluation task takes and gives; a task is data (`conf/task/`) on one of two classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pathclip.evaluate.leaks import leak_remarks, leaked
from pathclip.evaluate.report import Section, method_text, words
from pathclip.evaluate.stats import Interval
from pathclip.evaluate.subjects import Subject
from pathclip.types import Score


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run sets for all its tasks.

    Attributes:
        batch_size: pictures per call of an encoder.
        seed: of random colours, bootstrap and baselines.
        resamples: of the bootstrap.
        limit: pictures per split at most; None for all.
        code_version: goes into every score.
    """

    batch_size: int = 32
    seed: int = 0
    resamples: int = 10_000
    limit: int | None = None
    code_version: str = ""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a task gives.

    Attributes:
        scores: every figure.
        sections: of the report, in order.
        remarks: what a reader must know before believing the figures.
        about: for `report.json`: licence, citation, prompts, counts.
    """

    scores: tuple[Score, ...]
    sections: tuple[Section, ...]
    remarks: tuple[str, ...]
    about: Mapping[str, Any]


class Task(Protocol):
    """A measurement of encoders on data."""

    def run(self, name: str, subjects: Sequence[Subject], settings: Settings) -> TaskResult:
        """Measures every subject; `name` is the task's in the config."""


def subject_context(subject: Subject) -> dict[str, Any]:
    """What a score says of the encoder it belongs to."""
    return {
        "by": subject.title,
        "model": subject.encoder.name,
        "role": subject.role,
        "model_hash": subject.model_hash,
        "precision": subject.encoder.precision,
        "runtime": subject.encoder.runtime,
    }


def leaks(subjects: Sequence[Subject], sha256: Sequence[str]) -> tuple[dict[str, int | None], list[str]]:
    """Leaked test pictures per subject's key (see `pathclip.evaluate.leaks`), and remarks on them."""
    counts = {one.key: leaked(one.seen, sha256) for one in subjects}
    named = {one.encoder.name: counts[one.key] for one in subjects if one.role == "model"}
    remarks = [line for name, count in named.items() for line in leak_remarks(name, count, len(sha256))]
    return counts, remarks


def score(name: str, found: Interval, n: int, context: Mapping[str, Any]) -> Score:
    """A Score of an interval."""
    return Score(name, found.value, n, found.low, found.high, dict(context))


def exact(value: float) -> Interval:
    """A figure that is known and not estimated, such as chance."""
    return Interval(value, value, value)


def compared(first: Subject, second: Subject) -> dict[str, Any]:
    """Context of a paired difference, first minus second."""
    by = f"{first.encoder.precision} minus {second.encoder.precision}"
    if first.role != second.role:
        by = f"{first.key} minus {second.key}"
    return {
        "method": "paired_difference",
        "by": by,
        "first": subject_context(first),
        "second": subject_context(second),
    }


def paired(subjects: Sequence[Subject]) -> list[tuple[Subject, Subject]]:
    """The comparisons worth an interval: int8 minus fp32, and the model minus the untrained one."""
    of = {subject.key: subject for subject in subjects}
    pairs = []
    if "model int8" in of and "model fp32" in of:
        pairs.append((of["model int8"], of["model fp32"]))
    trained = of.get("model fp32", of.get("model int8"))
    untrained = next((subject for subject in subjects if subject.role == "untrained"), None)
    if trained and untrained:
        pairs.append((trained, untrained))
    return pairs


def headline(scores: Sequence[Score], name: str, **where: Any) -> tuple[list[str], dict[str, list[Score]]]:
    """Scores of one figure as rows (who) and columns (variant), for a bar chart.

    Args:
        scores: of a task; paired differences are left out.
        name: of the figure.
        **where: entries of the context that must be equal.

    Returns:
        Labels, and per variant the scores in the order of the labels.
    """
    kept = [
        one
        for one in scores
        if one.name == name and all(one.context.get(key) == value for key, value in where.items())
    ]
    labels = list(dict.fromkeys(method_text(one.context) for one in kept))
    columns: dict[str, list[Score]] = {}
    for label in labels:
        for one in kept:
            if method_text(one.context) == label:
                columns.setdefault(words(str(one.context["variant"])), []).append(one)
    return labels, columns
