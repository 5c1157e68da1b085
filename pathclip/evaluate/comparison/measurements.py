"""Which answers of two reports belong together: those to the same task, method, variant and precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any

from pathclip.errors import DataError
from pathclip.evaluate.comparison.saved_report import SavedReport
from pathclip.evaluate.reporting.report import DETAILS, what_differs, words
from pathclip.evaluate.task import Answers

# Entries that say who answered and of which run; they do not make it another measurement.
_ENCODERS = frozenset(
    {"by", "model", "role", "model_hash", "precision", "runtime", "code_version", "data_hash", "prompts"}
    | {"leaked", "near_leaked", "marks", "seed", "resamples", "groups", "grouped"}
)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured, whichever model it was.

    Attributes:
        task: its name.
        method: 'zero_shot', 'retrieval' ….
        variant: 'plain' or 'randomised_colour'.
        role: 'model' or 'untrained'.
        precision: 'int8' or 'fp32'.
        detail: what else tells it from others of its report: direction and definition of a retrieval, say.
    """

    task: str
    method: str
    variant: str
    role: str
    precision: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are compared.

    Attributes:
        label: 'A', 'B' …, or the precision.
        about: title and what identifies it: model hash, code version.
        answers: of each measurement.
        contexts: of its scores: data hash, prompts.
        marks: what is held against its scores.
        silent: tasks that left scores but no answers of single pictures.
    """

    label: str
    about: Mapping[str, Any]
    answers: Mapping[Measurement, Answers]
    contexts: Mapping[Measurement, Mapping[str, Any]]
    marks: Mapping[Measurement, tuple[str, ...]]
    silent: frozenset[str] = frozenset()


def sides_of(reports: Sequence[SavedReport]) -> list[Side]:
    """A, B, C …: one of each report.

    Raises:
        DataError: more reports than letters.
    """
    if len(reports) > len(ascii_uppercase):
        raise DataError(f"{len(reports)} reports; at most {len(ascii_uppercase)} can be compared at once")
    return [_side(label, report) for label, report in zip(ascii_uppercase, reports, strict=False)]


def within(report: SavedReport) -> list[tuple[Side, Side]]:
    """Pairs inside one report: fp32 and int8, and the untrained model and the trained one.

    Raises:
        DataError: it holds one encoder only.
    """
    whole = _side("A", report)
    held = {(what.role, what.precision) for what in whole.answers}
    pairs = []
    if {("model", "fp32"), ("model", "int8")} <= held:
        pairs.append((_part(whole, "fp32", "model", "fp32"), _part(whole, "int8", "model", "int8")))
    trained = next((one for one in ("fp32", "int8") if ("model", one) in held), None)
    untrained = next((precision for role, precision in sorted(held) if role == "untrained"), None)
    if trained and untrained:
        pairs.append(
            (_part(whole, "untrained", "untrained", untrained), _part(whole, "trained", "model", trained))
        )
    if not pairs:
        raise DataError(
            f"{report.folder}: one encoder only, so there is nothing to compare inside it; name two reports"
        )
    return pairs


def measurements(answers: Sequence[Answers]) -> dict[Measurement, Answers]:
    """The answers of one report by what was measured."""
    found: dict[Measurement, Answers] = {}
    for key in dict.fromkeys(_key(one.about) for one in answers):
        same = [one for one in answers if _key(one.about) == key]
        for position, one in enumerate(same):
            detail = what_differs([other.about for other in same], position, _ENCODERS)
            found[replace(key, detail=", ".join(filter(None, (key.detail, detail))))] = one
    return found


def _side(label: str, report: SavedReport) -> Side:
    answers = measurements(report.answers)
    scores = {what: _scores(report, what, one.about) for what, one in answers.items()}
    model = next((one for one in report.models if one.get("role") == "model"), {})
    about = {
        "name": model.get("name", "no model"),
        "model_hash": model.get("model_hash", ""),
        "report": report.folder.name,
        "code_version": report.settings.get("code_version", ""),
        "encoders": [
            f"{one.get('role')} {one.get('precision')} ({one.get('runtime')})" for one in report.models
        ],
    }
    contexts = {what: own[0] if own else dict(answers[what].about) for what, own in scores.items()}
    marks = {
        what: tuple(dict.fromkeys(str(mark) for one in own for mark in one.get("marks") or ()))
        for what, own in scores.items()
    }
    silent = frozenset(report.tasks) - {what.task for what in answers}
    return Side(label, about, answers, contexts, marks, silent)


def _scores(report: SavedReport, what: Measurement, about: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Contexts of the scores that a measurement gave."""
    same = {key: getattr(what, key) for key in ("task", "method", "variant", "role", "precision")}
    same |= {key: str(about[key]) for key in DETAILS if key in about}
    return [
        one["context"]
        for one in report.scores
        if all(str(one["context"].get(key, "")) == value for key, value in same.items())
    ]


def _part(whole: Side, label: str, role: str, precision: str) -> Side:
    """The encoders of one kind, under keys that those of another kind have too."""
    kept = {
        what: replace(what, role="", precision="") for what in whole.answers if _is(what, role, precision)
    }

    def taken(values: Mapping[Measurement, Any]) -> dict[Measurement, Any]:
        return {key: values[what] for what, key in kept.items()}

    about = {**whole.about, "encoders": [f"{role} {precision}"]}
    return Side(label, about, taken(whole.answers), taken(whole.contexts), taken(whole.marks))


def _is(what: Measurement, role: str, precision: str) -> bool:
    return what.role == role and what.precision == precision


def _key(about: Mapping[str, Any]) -> Measurement:
    def entry(key: str) -> str:
        return str(about.get(key, ""))

    detail = ", ".join(f"{words(key)} {words(str(about[key]))}" for key in DETAILS if key in about)
    return Measurement(
        entry("task"), entry("method"), entry("variant"), entry("role"), entry("precision"), detail
    )
