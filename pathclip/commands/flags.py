"""What the tool verbs share: how their flags are read, and how files and models are named."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from pathclip.errors import DataError

if TYPE_CHECKING:
    from pathclip.runtime.encoder import Encoder

INTERRUPTED = 130
Precision = Annotated[str, typer.Option(help="auto, int8 or fp32; auto takes int8 where the folder has it.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads; by default the physical cores.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout instead of a table.")]


def run(verb: str, arguments: Sequence[str], command: Callable[..., int], examples: str) -> int:
    """Reads the arguments by the signature of `command`, runs it and returns its exit status.

    Args:
        verb: name of the verb.
        arguments: what follows it on the command line.
        command: a function with typer's annotations; its docstring is the help.
        examples: lines that `--help` ends with.
    """
    # Without markup typer does not import rich, and help is the same in a pipe and on a terminal.
    app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
    epilog = "\b\nFor example:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines())
    settings = {"help_option_names": ["-h", "--help"]}
    app.command(epilog=epilog, context_settings=settings)(_exits_with_its_result(command))
    # Broken pictures get a line of ours; Pillow's warnings about the same file would only double it.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        status = app(args=list(arguments), prog_name=f"pathclip {verb}", standalone_mode=True)
    except SystemExit as exit_:  # typer's way to return a status
        status = exit_.code
    if status == INTERRUPTED:  # typer has caught the interrupt, without a word
        complain(f"pathclip {verb}: stopped")
    return int(status or 0)


def _exits_with_its_result(command: Callable[..., int]) -> Callable[..., None]:
    """Typer drops what a command returns; only an `Exit` sets the status."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        raise typer.Exit(command(*args, **kwargs))

    return wrapped


def open_model(folder: Path, precision: str, threads: int | None) -> Encoder:
    """Opens a model folder as an encoder."""
    import pathclip

    return pathclip.load(folder, precision=cast(Any, precision), threads=threads)


def picture_files(given: Sequence[str]) -> list[Path]:
    """Files, folders (searched through) and patterns to a list of files, each once, in the order given.

    Raises:
        DataError: a folder has no pictures, or a pattern matches nothing. A missing file is left in:
            it gets its own line when it is opened.
    """
    from pathclip.runtime.images import find_images

    found: dict[Path, None] = {}
    for name in given:
        path = Path(name)
        if path.is_dir():
            inside = find_images(path)
            if not inside:
                raise DataError(f"{path}: no pictures in it")
            found.update(dict.fromkeys(inside))
        elif not path.exists() and any(mark in name for mark in "*?["):
            import glob

            matches = sorted(map(Path, glob.glob(name, recursive=True)))  # noqa: PTH207 — absolute patterns too
            files = [match for match in matches if match.is_file()]
            if not files:
                raise DataError(f"{name}: matches no file")
            found.update(dict.fromkeys(files))
        else:
            found[path] = None
    return list(found)


def complain(message: object) -> None:
    """One line on stderr."""
    print(message, file=sys.stderr)
