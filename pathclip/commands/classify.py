"""`pathclip classify`: pictures by descriptions of the classes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pathclip.commands import flags
from pathclip.errors import DataError

if TYPE_CHECKING:
    from pathclip.runtime.encoder import Encoder
    from pathclip.types import Label

EXAMPLES = """
pathclip classify model-int8 tile.jpg --labels "colon adenocarcinoma,benign colon tissue"
pathclip classify model-int8 tiles/ --labels "tumour,stroma,adipose" --top 1 --json
pathclip classify model-int8 'tiles/*.png' --labels "tumour,normal" --templates "an H&E image of {}"
"""
BATCH = 16


def main(verb: str, arguments: Sequence[str]) -> int:
    """Runs the verb; returns the exit status."""
    return flags.run(verb, arguments, command, EXAMPLES)


def command(
    folder: Annotated[Path, typer.Argument(help="Model folder.", show_default=False)],
    images: Annotated[list[str], typer.Argument(help="Files, folders or patterns.", show_default=False)],
    labels: Annotated[
        str, typer.Option(help="Two classes or more, with commas between.", show_default=False)
    ],
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
    fits. Research software, not for diagnosis.
    """
    names = [name.strip() for name in labels.split(",") if name.strip()]
    if len(names) < 2:
        raise DataError('--labels needs two classes or more, with commas between: --labels "tumour,normal"')
    paths = flags.picture_files(images)
    encoder = flags.open_model(folder, precision, threads)
    from pathclip.runtime.classify import TEMPLATES

    chosen = tuple(templates or (encoder.folder.card.get("prompts") or {}).get("templates") or TEMPLATES)
    failed: list[dict[str, str]] = []
    document = []
    for path, ranked in _classified(encoder, paths, names, chosen, failed):
        document.append({"path": str(path), "labels": [asdict(label) for label in ranked[:top]]})
        if not as_json:
            print(_table(path, ranked[:top]), flush=True)
    if as_json:
        described = {
            "model": {"name": encoder.name, "hash": encoder.folder.hash, "precision": encoder.precision},
            "templates": list(chosen),
            "images": document,
            "failed": failed,
        }
        print(json.dumps(described, ensure_ascii=False, indent=2))
    return 1 if failed else 0


def _classified(
    encoder: Encoder,
    paths: Sequence[Path],
    names: list[str],
    templates: tuple[str, ...],
    failed: list[dict[str, str]],
) -> Iterator[tuple[Path, list[Label]]]:
    from pathclip.runtime.classify import class_embeddings, classify
    from pathclip.runtime.cores import available_cores
    from pathclip.runtime.images import printable, read_batches

    def on_error(path: Path, error: DataError) -> None:
        failed.append({"path": printable(path), "error": str(error)})
        flags.complain(f"pathclip classify: {error}")

    classes = class_embeddings(encoder, names, templates)
    workers = min(available_cores(), len(paths))
    for batch in read_batches(paths, encoder.preprocess, on_error, BATCH, workers):
        yield from zip(batch.paths, classify(encoder, batch.pixels, names, embeddings=classes), strict=True)


def _table(path: Path, ranked: Sequence[Label]) -> str:
    lines = [f"{label.probability:7.3f}  {label.name}" for label in ranked]
    return "\n".join([str(path), *lines])
