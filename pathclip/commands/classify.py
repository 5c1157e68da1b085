"""`pathclip classify`: pictures by descriptions of the classes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pathclip.commands import flags
from pathclip.commands.picture_sources import Row, Source, open_source
from pathclip.errors import DataError

if TYPE_CHECKING:
    from pathclip.runtime.calibration import Answer, Calibrated
    from pathclip.runtime.encoder import Encoder

EXAMPLES = """
pathclip classify model-int8 tile.jpg --labels "colon adenocarcinoma,benign colon tissue"
pathclip classify model-int8 tiles/ --labels "tumour,stroma,adipose" --top 1 --json
pathclip classify model-int8 'tiles/*.png' --labels "tumour,normal" --templates "an H&E image of {}"
pathclip classify model-int8 tiles/ --task lc25000 --out answers.csv
pathclip classify model-int8 tiles.csv --column file --labels "tumour,normal" --out answers.parquet
find tiles -name '*.jpg' -print0 | pathclip classify model-int8 - --labels "tumour,normal" --out answers.jsonl
"""
_MARKS = {"leak": "leak: the model was trained on its pictures"}


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of every picture.

    Attributes:
        classes: class → its wordings.
        templates: sentences with `{}` for the class.
        calibrated: what was fitted on exactly this question; None if nothing was.
    """

    classes: Mapping[str, Sequence[str]]
    templates: tuple[str, ...]
    calibrated: Calibrated | None = None


def main(verb: str, arguments: Sequence[str]) -> int:
    """Runs the verb; returns the exit status."""
    return flags.run(verb, arguments, command, EXAMPLES)


@dataclass(frozen=True, slots=True)
class _Answered:
    """What became of one picture: an answer or an error."""

    row: Row
    answer: Answer | None
    error: str | None = None


def command(
    folder: Annotated[Path, typer.Argument(help="Model folder.", show_default=False)],
    images: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders or patterns; or a table (.csv, .tsv); or - for paths on stdin.",
            show_default=False,
        ),
    ],
    labels: Annotated[
        str | None, typer.Option(help="Two classes or more, with commas between.", show_default=False)
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Classes of a task that the model is calibrated for.", show_default=False),
    ] = None,
    templates: Annotated[
        list[str] | None,
        typer.Option(help="Sentence with {} for the class; may be repeated. Default: the model's own."),
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="Show only so many classes.", show_default=False)
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            help="Column of the table with the paths, relative to the table. Default: path.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File of answers: .csv, .jsonl or .parquet.", show_default=False),
    ] = None,
    as_json: flags.Json = False,
    precision: flags.Precision = "auto",
    runtime: flags.Runtime = "auto",
    threads: flags.Threads = None,
    batch_size: flags.BatchSize = 16,
) -> int:
    """Classifies pictures by the similarity to descriptions of the classes.

    Probabilities compare the given classes with each other: they always sum to one, even where none
    fits. Where the model is calibrated for the classes, they say how often such an answer is right, with
    the classes that cannot be ruled out and a warning where a picture resembles none of them. Research
    software, not for diagnosis.

    A picture that cannot be read gets a line on stderr; the others go on, and the exit status is 1.
    """
    if (labels is None) == (task is None):
        raise DataError('give either --labels "tumour,normal" or --task NAME')
    if as_json and out is not None:
        raise DataError("give either --json or --out FILE")
    names = _names(labels) if labels is not None else []
    source = open_source(images, column)
    if out is not None:
        from pathclip.commands.answers_out import check_out

        check_out(out, source.table)
    encoder = flags.open_model(folder, precision, threads, runtime, source.count())
    question = _by_task(encoder, task, templates) if task else _by_labels(encoder, names, templates)
    answered = _answers(encoder, source, question, batch_size, threads)
    if out is not None:
        return _write(out, answered, source, question, top)
    if as_json:
        return _print_document(answered, encoder, source, question, top)
    return _print(answered, question, top)


def _names(labels: str) -> list[str]:
    names = [name.strip() for name in labels.split(",") if name.strip()]
    if len(names) < 2:
        raise DataError('--labels needs two classes or more, with commas between: --labels "tumour,normal"')
    return names


def _by_labels(encoder: Encoder, names: list[str], templates: list[str] | None) -> _Question:
    """Labels that are the classes of a calibrated task are asked for as they were there."""
    from pathclip.runtime.calibration import of_classes
    from pathclip.runtime.classify import label_wordings, own_templates

    wordings = label_wordings(names)
    found = of_classes(encoder.folder, wordings, encoder.precision)
    if found and not templates:
        return _Question(found.classes, found.templates, found)
    if found:
        _not_calibrated(found)
    return _Question(wordings, tuple(templates or own_templates(encoder)))


def _by_task(encoder: Encoder, task: str, templates: list[str] | None) -> _Question:
    from pathclip.runtime.calibration import of_task

    found = of_task(encoder.folder, task, encoder.precision)
    if not templates:
        return _Question(found.classes, found.templates, found)
    _not_calibrated(found)
    return _Question(found.classes, tuple(templates))


def _not_calibrated(found: Calibrated) -> None:
    flags.complain(
        f"pathclip classify: the calibration of task '{found.task}' holds for its own templates; with "
        "--templates the probabilities are not calibrated"
    )


def _answers(
    encoder: Encoder, source: Source, question: _Question, batch_size: int, threads: int | None
) -> Iterator[_Answered]:
    """Answers in the order of the pictures, a batch in memory and another one ahead."""
    from pathclip.progress import track
    from pathclip.runtime.calibration import Answer
    from pathclip.runtime.classify import class_embeddings, classify, classify_calibrated
    from pathclip.runtime.cores import available_cores
    from pathclip.runtime.images import printable, read_batches
    from pathclip.runtime.prompt_cache import PromptCache

    def answers(pixels: Any) -> Iterator[Answer]:
        if question.calibrated:
            yield from classify_calibrated(encoder, pixels, question.calibrated, classes)
        else:
            for ranked in classify(encoder, pixels, question.classes, question.templates, classes):
                yield Answer(tuple(ranked), (), False)

    classes = class_embeddings(encoder, question.classes, question.templates, PromptCache.of_user())
    # Going through a large folder twice takes a while: only for somebody who sees the time left.
    total = source.count() if flags.is_watched() else None
    rows = track(source.rows(), "classifying", total)
    workers = threads or available_cores()
    for batch in read_batches(rows, encoder.preprocess, batch_size, workers, Row.file):
        found = answers(batch.pixels)
        for row, error in batch.outcomes:
            if error is None:
                yield _Answered(row, next(found))
            else:
                flags.complain(f"pathclip classify: {error}")
                yield _Answered(row, None, printable(str(error)))


def _print(answered: Iterator[_Answered], question: _Question, top: int | None) -> int:
    failed = False
    for one in answered:
        failed |= one.answer is None
        if one.answer is not None:
            print(_table(one.row.given, one.answer, question, top), flush=True)
    return int(failed)


def _print_document(
    answered: Iterator[_Answered], encoder: Encoder, source: Source, question: _Question, top: int | None
) -> int:
    """One JSON document, written as the answers come; begun with the first, so that a mistake prints none."""
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
    for one in answered:
        entry = _entry(one, source, question, top)
        if one.answer is None:
            failed.append(entry)
            continue
        print(",\n" if begun else f'{_json(described)[:-2]},\n  "images": [\n', end="")
        print(indent(_json(entry), "    "), end="", flush=True)
        begun = True
    if begun:
        print(f"\n  ],\n{_json({'failed': failed})[2:]}")
    else:
        print(_json({**described, "images": [], "failed": failed}))
    return int(bool(failed))


def _write(
    out: Path, answered: Iterator[_Answered], source: Source, question: _Question, top: int | None
) -> int:
    from pathclip.commands.answers_out import Columns, writing
    from pathclip.runtime.images import printable

    columns = Columns(source.column, source.columns, tuple(question.classes), question.calibrated is not None)
    count, failed = 0, 0
    with writing(out, columns) as write:
        for one in answered:
            write(_entry(one, source, question, top))
            count += 1
            failed += one.answer is None
    unread = f"; {failed} could not be read" if failed else ""
    print(f"{printable(out)}: {count} picture{'s' if count != 1 else ''}{unread}")
    return int(failed > 0)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _entry(one: _Answered, source: Source, question: _Question, top: int | None) -> dict[str, Any]:
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


def _table(path: str, answer: Answer, question: _Question, top: int | None) -> str:
    lines = [path, *(f"{label.probability:7.3f}  {label.name}" for label in answer.labels[:top])]
    if found := question.calibrated:
        if answer.none:
            nearest = max(label.similarity for label in answer.labels)
            lines.append(f"  none of these? similarity {nearest:.3f}, below {found.none_threshold:.3f}")
        members = ", ".join(answer.possible) or "no class is probable enough"
        lines.append(f"  calibrated on {_fitted_on(found)}; {found.coverage:.0%} set: {members}")
    return "\n".join(lines)


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
