"""`pathclip classify`: pictures by descriptions of the classes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pathclip.commands import flags
from pathclip.errors import DataError

if TYPE_CHECKING:
    from pathclip.runtime.calibration import Answer, Calibrated
    from pathclip.runtime.encoder import Encoder

EXAMPLES = """
pathclip classify model-int8 tile.jpg --labels "colon adenocarcinoma,benign colon tissue"
pathclip classify model-int8 tiles/ --labels "tumour,stroma,adipose" --top 1 --json
pathclip classify model-int8 'tiles/*.png' --labels "tumour,normal" --templates "an H&E image of {}"
pathclip classify model-int8 tiles/ --task lc25000
"""
BATCH = 16
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


def command(
    folder: Annotated[Path, typer.Argument(help="Model folder.", show_default=False)],
    images: Annotated[list[str], typer.Argument(help="Files, folders or patterns.", show_default=False)],
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
    as_json: flags.Json = False,
    precision: flags.Precision = "auto",
    threads: flags.Threads = None,
) -> int:
    """Classifies pictures by the similarity to descriptions of the classes.

    Probabilities compare the given classes with each other: they always sum to one, even where none
    fits. Where the model is calibrated for the classes, they say how often such an answer is right, with
    the classes that cannot be ruled out and a warning where a picture resembles none of them. Research
    software, not for diagnosis.
    """
    if (labels is None) == (task is None):
        raise DataError('give either --labels "tumour,normal" or --task NAME')
    names = _names(labels) if labels is not None else []
    paths = flags.picture_files(images)
    encoder = flags.open_model(folder, precision, threads)
    question = _by_task(encoder, task, templates) if task else _by_labels(encoder, names, templates)

    failed: list[dict[str, str]] = []
    document = []
    for path, answer in _answers(encoder, paths, question, failed):
        document.append(_entry(path, answer, question, top))
        if not as_json:
            print(_table(path, answer, question, top), flush=True)
    if as_json:
        described = {
            "model": {"name": encoder.name, "hash": encoder.folder.hash, "precision": encoder.precision},
            "templates": list(question.templates),
            "calibrated": _described(question.calibrated) if question.calibrated else None,
            "images": document,
            "failed": failed,
        }
        print(json.dumps(described, ensure_ascii=False, indent=2))
    return 1 if failed else 0


def _names(labels: str) -> list[str]:
    names = [name.strip() for name in labels.split(",") if name.strip()]
    if len(names) < 2:
        raise DataError('--labels needs two classes or more, with commas between: --labels "tumour,normal"')
    return names


def _by_labels(encoder: Encoder, names: list[str], templates: list[str] | None) -> _Question:
    """Labels that are the classes of a calibrated task are asked for as they were there."""
    from pathclip.runtime.calibration import of_classes
    from pathclip.runtime.classify import TEMPLATES, label_wordings

    wordings = label_wordings(names)
    found = of_classes(encoder.folder, wordings, encoder.precision)
    if found and not templates:
        return _Question(found.classes, found.templates, found)
    if found:
        _not_calibrated(found)
    own = (encoder.folder.card.get("prompts") or {}).get("templates")
    return _Question(wordings, tuple(templates or own or TEMPLATES))


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
    encoder: Encoder, paths: Sequence[Path], question: _Question, failed: list[dict[str, str]]
) -> Iterator[tuple[Path, Answer]]:
    from pathclip.runtime.calibration import Answer
    from pathclip.runtime.classify import class_embeddings, classify, classify_calibrated
    from pathclip.runtime.cores import available_cores
    from pathclip.runtime.images import printable, read_batches

    def on_error(path: Path, error: DataError) -> None:
        failed.append({"path": printable(path), "error": str(error)})
        flags.complain(f"pathclip classify: {error}")

    classes = class_embeddings(encoder, question.classes, question.templates)
    workers = min(available_cores(), len(paths))
    for batch in read_batches(paths, encoder.preprocess, on_error, BATCH, workers):
        if question.calibrated:
            answers = classify_calibrated(encoder, batch.pixels, question.calibrated, classes)
        else:
            ranked = classify(encoder, batch.pixels, question.classes, embeddings=classes)
            answers = [Answer(tuple(labels), (), False) for labels in ranked]
        yield from zip(batch.paths, answers, strict=True)


def _entry(path: Path, answer: Answer, question: _Question, top: int | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": str(path), "labels": [asdict(label) for label in answer.labels[:top]]}
    if question.calibrated:
        entry |= {"set": list(answer.possible), "none_of_these": answer.none}
    return entry


def _table(path: Path, answer: Answer, question: _Question, top: int | None) -> str:
    lines = [str(path), *(f"{label.probability:7.3f}  {label.name}" for label in answer.labels[:top])]
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
