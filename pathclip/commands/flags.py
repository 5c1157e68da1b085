"""What the tool verbs share: how their flags are read, and how files and models are named."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from pathclip.errors import escaped

if TYPE_CHECKING:
    from pathclip.runtime.encoder import Encoder

INTERRUPTED = 130
Precision = Annotated[str, typer.Option(help="auto, int8 or fp32; auto takes int8 where the folder has it.")]
Runtime = Annotated[
    str,
    typer.Option(help="auto, onnx, openvino or torch; auto takes onnx, or openvino where measured faster."),
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads; by default the physical cores.", show_default=False)
]
BatchSize = Annotated[int, typer.Option(min=1, max=4096, help="Pictures in one run of the model.")]
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


def open_model(
    folder: Path, precision: str, threads: int | None, runtime: str = "auto", pictures: int | None = None
) -> Encoder:
    """Opens a model folder as an encoder, for about so many pictures if that is known."""
    import pathclip

    return pathclip.load(folder, cast(Any, runtime), cast(Any, precision), threads, pictures)


def is_watched() -> bool:
    """Whether somebody sees stderr, and so a progress bar."""
    return sys.stderr.isatty()


def complain(message: object) -> None:
    """One line on stderr."""
    print(escaped(message), file=sys.stderr)
