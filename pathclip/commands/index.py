"""`pathclip index`: a folder of pictures, to be searched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pathclip.commands import flags
from pathclip.errors import DataError

EXAMPLES = """
pathclip index model-int8 images/ --out images.index
pathclip search images.index "keratin pearls" -k 5
"""


def main(verb: str, arguments: Sequence[str]) -> int:
    """Runs the verb; returns the exit status."""
    return flags.run(verb, arguments, command, EXAMPLES)


def command(
    folder: Annotated[Path, typer.Argument(help="Model folder.", show_default=False)],
    images: Annotated[Path, typer.Argument(help="Folder of pictures, searched through.", show_default=False)],
    out: Annotated[
        Path, typer.Option(help="Folder of the index; an earlier index there is replaced.")
    ] = Path("images.index"),
    precision: flags.Precision = "auto",
    runtime: flags.Runtime = "auto",
    threads: flags.Threads = None,
) -> int:
    """Embeds every picture below a folder and writes an index for `pathclip search`.

    Files that cannot be read are named and counted; the others are indexed. The index names the runtime
    that made it, and is searched with the same.
    """
    from pathclip.index.build import build_index
    from pathclip.runtime.images import printable

    bad = 0

    def on_error(path: Path, error: DataError) -> None:
        nonlocal bad
        bad += 1
        flags.complain(f"pathclip index: {error}")

    encoder = flags.open_model(folder, precision, threads, runtime)
    index = build_index(encoder, images, out, on_error)
    skipped = f"; {bad} could not be read" if bad else ""
    made_by = f"by {encoder.runtime} {encoder.precision}"
    print(f"{printable(out)}: {len(index)} pictures {made_by}{skipped}")
    return 0
