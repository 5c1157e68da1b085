"""`pathclip classify`: pictures by descriptions of the classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pathclip.commands import flags
from pathclip.commands.answers_shown import (
    Answered,
    Question,
    entry_of,
    print_document,
    print_table,
)
from pathclip.commands.picture_sources import Row, Source, open_source
from pathclip.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pathclip.runtime.calibration import Calibrated
    from pathclip.runtime.encoder import Encoder

EXAMPLES = """
pathclip classify model-int8 tile.jpg --labels "colon adenocarcinoma,benign colon tissue"
pathclip classify model-int8 tiles/ --labels "tumour,stroma,adipose" --top 1 --json
pathclip classify model-int8 'tiles/*.png' --labels "tumour,normal" --templates "an H&E image of {}"
pathclip classify model-int8 tiles/ --task lc25000 --out answers.csv
pathclip classify model-int8 tiles.csv --column file --labels "tumour,normal" --out answers.parquet
find tiles -name '*.jpg' -print0 | pathclip classify model-int8 - --labels "tumour,normal" --out answers.jsonl
"""


def main(verb: str, arguments: Sequence[str]) -> int:
    """Runs the verb; returns the exit status."""
    return flags.run(verb, arguments, command, EXAMPLES)


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
    # As if for one picture: a calibration was fitted in onnxruntime, and 'auto' takes that for so few.
    encoder = flags.open_model(folder, precision, threads, runtime, 1)
    question = _by_task(encoder, task, templates) if task else _by_labels(encoder, names, templates)
    if runtime == "auto" and encoder.runtime == "onnx" and not question.calibrated:
        encoder = flags.open_model(folder, precision, threads, runtime, source.count())
    answered = _answers(encoder, source, question, batch_size, threads)
    if out is not None:
        return _write(out, answered, source, question, top)
    if as_json:
        return print_document(answered, encoder, source, question, top)
    return print_table(answered, question, top)


def _names(labels: str) -> list[str]:
    names = [name.strip() for name in labels.split(",") if name.strip()]
    if len(names) < 2:
        raise DataError('--labels needs two classes or more, with commas between: --labels "tumour,normal"')
    return names


def _by_labels(encoder: Encoder, names: list[str], templates: list[str] | None) -> Question:
    """Labels that are the classes of a calibrated task are asked for as they were there."""
    from pathclip.runtime.calibration import of_classes
    from pathclip.runtime.classify import label_wordings, own_templates

    wordings = label_wordings(names)
    found = of_classes(encoder.folder, wordings, encoder.precision)
    if found and not templates:
        return Question(found.classes, found.templates, found)
    if found:
        _not_calibrated(found)
    return Question(wordings, tuple(templates or own_templates(encoder)))


def _by_task(encoder: Encoder, task: str, templates: list[str] | None) -> Question:
    from pathclip.runtime.calibration import of_task

    found = of_task(encoder.folder, task, encoder.precision)
    if not templates:
        return Question(found.classes, found.templates, found)
    _not_calibrated(found)
    return Question(found.classes, tuple(templates))


def _not_calibrated(found: Calibrated) -> None:
    flags.complain(
        f"pathclip classify: the calibration of task '{found.task}' holds for its own templates; with "
        "--templates the probabilities are not calibrated"
    )


def _answers(
    encoder: Encoder, source: Source, question: Question, batch_size: int, threads: int | None
) -> Iterator[Answered]:
    """Answers in the order of the pictures, a batch in memory and another one ahead."""
    from pathclip.progress import track
    from pathclip.runtime.calibration import Answer
    from pathclip.runtime.classify import class_embeddings, rank_labels
    from pathclip.runtime.cores import available_cores
    from pathclip.runtime.images import printable, read_batches
    from pathclip.runtime.prompt_cache import PromptCache

    names = list(question.classes)
    classes = class_embeddings(encoder, question.classes, question.templates, PromptCache.of_user())

    def answer(similarities: NDArray[np.float32]) -> Answer:
        if question.calibrated:
            return question.calibrated.answer(similarities)
        return Answer(tuple(rank_labels(names, similarities, encoder.logit_scale)), (), False)

    # Going through a large folder twice takes a while: only for somebody who sees the time left.
    total = source.count() if flags.is_watched() else None
    rows = source.rows() if source.typed else track(source.rows(), "classifying", total)
    workers = threads or available_cores()
    if source.typed:  # nothing is read ahead, or the answer would wait for further names
        batch_size = workers = 1
    for batch in read_batches(rows, encoder.preprocess, batch_size, workers, Row.file):
        similarities = iter(encoder.encode_images(batch.pixels, batch_size) @ classes.T)
        for row, error in batch.outcomes:
            if error is None:
                yield Answered(row, answer(next(similarities)))
            else:
                flags.complain(f"pathclip classify: {error}")
                yield Answered(row, None, printable(str(error)))


def _write(
    out: Path, answered: Iterator[Answered], source: Source, question: Question, top: int | None
) -> int:
    from pathclip.commands.answers_out import Columns, writing
    from pathclip.runtime.images import printable

    columns = Columns(source.column, source.columns, tuple(question.classes), question.calibrated is not None)
    count, failed = 0, 0
    with writing(out, columns) as write:
        for one in answered:
            write(entry_of(one, source, question, top))
            count += 1
            failed += one.answer is None
    unread = f"; {failed} could not be read" if failed else ""
    print(f"{printable(out)}: {count} picture{'s' if count != 1 else ''}{unread}")
    return int(failed > 0)
