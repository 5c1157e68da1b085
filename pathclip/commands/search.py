"""`pathclip search`: an index by a text or a picture."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pathclip.commands import flags
from pathclip.errors import DataError, ModelFolderError

if TYPE_CHECKING:
    from pathclip.index.exact import ExactIndex

EXAMPLES = """
pathclip search images.index "signet ring cells in a gastric biopsy" -k 10
pathclip search images.index --image tile.jpg --json
"""


def main(verb: str, arguments: Sequence[str]) -> int:
    """Runs the verb; returns the exit status."""
    return flags.run(verb, arguments, command, EXAMPLES)


def command(
    index: Annotated[Path, typer.Argument(help="Folder of the index.", show_default=False)],
    text: Annotated[str | None, typer.Argument(help="What to look for.", show_default=False)] = None,
    image: Annotated[
        Path | None,
        typer.Option(help="A picture to find similar ones of, instead of a text.", show_default=False),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--top", help="Number of hits.")] = 10,
    model: Annotated[
        Path | None,
        typer.Option(help="Model folder. Default: the one that made the index.", show_default=False),
    ] = None,
    as_json: flags.Json = False,
    threads: flags.Threads = None,
) -> int:
    """Finds the pictures of an index that are most similar to a text or to another picture."""
    if k < 1:
        raise DataError(f"-k must be at least 1, not {k}")
    if (text is None) == (image is None):
        raise DataError("give either a text or --image FILE")
    if text is not None and not text.strip():
        raise DataError("the text is empty")
    if text is not None and os.path.isfile(text):  # noqa: PTH113  # which asks about any text without raising
        raise DataError(f"{text} is a file: search by it with --image {text}")
    from pathclip.index.exact import open_index

    opened = open_index(index)
    folder = model or _recorded_model(index, opened)
    precision, runtime = opened.model.get("precision", "auto"), _runtime(index, opened)
    encoder = flags.open_model(folder, precision, threads, runtime, pictures=1)
    opened.require_model(encoder.folder.hash)
    if image is not None:
        from pathclip.runtime.images import require_utf8_name

        require_utf8_name(image)
        preprocess = encoder.preprocess
        query = encoder.encode_images(preprocess.pixels(preprocess.open(image), str(image))[None])
    else:
        query = encoder.encode_texts([str(text)])
    hits = opened.search(query, k)
    if as_json:
        asked = {"image": str(image)} if image is not None else {"text": text}
        print(
            json.dumps({"query": asked, "hits": [asdict(hit) for hit in hits]}, ensure_ascii=False, indent=2)
        )
    else:
        width = len(str(len(hits)))
        for hit in hits:
            print(f"{hit.rank:>{width}}  {hit.score:+.3f}  {hit.path or hit.id}")
    return 0


def _recorded_model(path: Path, index: ExactIndex) -> Path:
    recorded = index.model.get("path")
    if not recorded or not Path(recorded).is_dir():
        raise ModelFolderError(
            f"{path}: the model that made it ({recorded or 'not recorded'}) is not there; "
            "name it: --model FOLDER"
        )
    return Path(recorded)


def _runtime(path: Path, index: ExactIndex) -> str:
    """The runtime that made the index: numbers of another are not quite the same.

    Older indexes name none: for so few pictures 'auto' is onnxruntime, or torch where there is no ONNX.
    """
    from pathclip.runtime import openvino_encoder

    recorded = str(index.model.get("runtime", "auto"))
    if recorded == "openvino" and not openvino_encoder.works():
        raise ModelFolderError(
            f"{path}: it was made by OpenVINO, which does not work here: "
            "pip install 'pathclip[openvino]', or index the pictures again"
        )
    return recorded
