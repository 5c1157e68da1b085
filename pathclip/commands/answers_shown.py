"""Answers of `pathclip classify` on stdout: a table for people, or one JSON document for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from textwrap import indent
from typing import TYPE_CHECKING, Any

from pathclip.errors import PathclipError, escaped

if TYPE_CHECKING:
    from pathclip.commands.picture_sources import Row, Source
    from pathclip.runtime.calibration import Answer, Calibrated
    from pathclip.runtime.encoder import Encoder

_MARKS = {"leak": "leak: the model was trained on its pictures"}
# Those of ASCII and of Latin-1, by which a name could move the cursor or change the title of a terminal.


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of every picture.

    Attributes:
        classes: class → its wordings.
        templates: sentences with `{}` for the class.
        calibrated: what was fitted on exactly this question; None if nothing was.
    """

    classes: Mapping[str, Sequence[str]]
    templates: tuple[str, ...]
    calibrated: Calibrated | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of one picture: an answer or an error."""

    row: Row
    answer: Answer | None
    error: str | None = None


def print_table(answered: Iterable[Answered], question: Question, top: int | None) -> int:
    """Prints the classes of each picture as it is answered; returns the exit status."""
    failed = False
    for one in answered:
        failed |= one.answer is None
        if one.answer is not None:
            lines = _lines(one.row.given, one.answer, question, top)
            print("\n".join(map(escaped, lines)), flush=True)
    return int(failed)


def print_document(
    answered: Iterator[Answered], encoder: Encoder, source: Source, question: Question, top: int | None
) -> int:
    """Prints one JSON document as the answers come; returns the exit status.

    It is begun with the first picture, so that a mistake in the call prints none. Where the work ends
    early, it is ended all the same, with what ended it under 'error'.
    """
    described = {
        "model": {
            "name": encoder.name,
            "hash": encoder.folder.hash,
            "precision": encoder.precision,
            "runtime": encoder.runtime,
        },
        "templates": list(question.templates),
        "calibrated": _described(question.calibrated) if question.calibrated else None,
    }
    failed: list[dict[str, Any]] = []
    begun = False

    def end(**more: str) -> None:
        last = {"failed": failed, **more}
        if begun:
            print(f"\n  ],\n{_json(last)[2:]}", flush=True)
        else:
            print(_json({**described, "images": [], **last}), flush=True)

    try:
        for one in answered:
            entry = entry_of(one, source, question, top)
            if one.answer is None:
                failed.append(entry)
                continue
            opening = ",\n" if begun else f'{_json(described)[:-2]},\n  "images": [\n'
            begun = True
            sys.stdout.write(f"{opening}{indent(_json(entry), '    ')}")
            sys.stdout.flush()
    except (PathclipError, KeyboardInterrupt) as error:
        if begun or failed:
            from pathclip.runtime.images import printable

            reason = "stopped" if isinstance(error, KeyboardInterrupt) else printable(str(error))
            end(error=f"{reason}; pictures that are not listed here have no answer")
        raise
    end()
    return int(bool(failed))


def entry_of(one: Answered, source: Source, question: Question, top: int | None) -> dict[str, Any]:
    """What a document or a file says of one picture."""
    from pathclip.runtime.images import printable

    entry: dict[str, Any] = {"path": printable(one.row.given)}
    if source.table is not None:
        entry["row"] = dict(zip(source.columns, one.row.columns, strict=True))
    if one.answer is None:
        return entry | {"error": one.error}
    entry["labels"] = [asdict(label) for label in one.answer.labels[:top]]
    if question.calibrated:
        entry |= {"set": list(one.answer.possible), "none_of_these": one.answer.none}
    return entry


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _lines(path: str, answer: Answer, question: Question, top: int | None) -> list[str]:
    lines = [path, *(f"{label.probability:7.3f}  {label.name}" for label in answer.labels[:top])]
    if found := question.calibrated:
        if answer.none:
            nearest = max(label.similarity for label in answer.labels)
            lines.append(f"  none of these? similarity {nearest:.3f}, below {found.none_threshold:.3f}")
        members = ", ".join(answer.possible) or "no class is probable enough"
        lines.append(f"  calibrated on {_fitted_on(found)}; {found.coverage:.0%} set: {members}")
    return lines


def _fitted_on(found: Calibrated) -> str:
    """'lc25000 (leak: the model was trained on its pictures), n 732 in 247 groups'."""
    marks = "; ".join(_MARKS.get(mark, mark) for mark in found.marks)
    return f"{found.task}{f' ({marks})' if marks else ''}, n {found.n} in {found.groups} groups"


def _described(found: Calibrated) -> dict[str, Any]:
    return {
        "task": found.task,
        "coverage": found.coverage,
        "n": found.n,
        "groups": found.groups,
        "marks": list(found.marks),
        "logit_scale": found.logit_scale,
        "none_threshold": found.none_threshold,
        "classes": {name: list(words) for name, words in found.classes.items()},
    }
