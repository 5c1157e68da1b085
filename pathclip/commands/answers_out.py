"""Answers of `pathclip classify` in a file: CSV, JSON Lines or Parquet, row by row, whole or not at all.

Cells are data: what a table or a file's name says is written as it is, quoted where CSV needs it. Nothing is
put before a cell that a spreadsheet would take for a formula.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pathclip import atomic
from pathclip.errors import DataError

SUFFIXES = (".csv", ".jsonl", ".parquet")
ANSWER, PROBABILITY, SIMILARITY, SET, NONE, ERROR = (
    *("answer", "probability", "similarity"),
    *("set", "none_of_these", "error"),
)
_PARQUET_ROWS = 8192  # held before they are written


@dataclass(frozen=True, slots=True)
class Columns:
    """Headings of a file of answers, in this order; JSON Lines have the keys of `--json` instead.

    Attributes:
        path: the picture.
        given: the other columns of the table that was asked.
        classes: one column each, 'p(class)', with its probability; empty for classes that are not shown.
        calibrated: whether there are columns for the conformal set and for 'none of these'.
    """

    path: str
    given: tuple[str, ...]
    classes: tuple[str, ...]
    calibrated: bool

    def own(self) -> list[str]:
        """The headings that the answers add."""
        calibrated = [SET, NONE] if self.calibrated else []
        return [ANSWER, PROBABILITY, SIMILARITY, *calibrated, *map(_heading, self.classes), ERROR]

    def names(self) -> list[str]:
        """All headings."""
        return [self.path, *self.given, *self.own()]

    def cells(self, entry: dict[str, Any]) -> list[Any]:
        """A row; `entry` is as `pathclip.commands.classify` makes it. None is an empty cell."""
        labels = entry.get("labels") or []
        best = labels[0] if labels else {}
        shown = {label["name"]: label["probability"] for label in labels}
        calibrated: list[Any] = []
        if self.calibrated:
            members = entry.get("set")
            calibrated = [None if members is None else ", ".join(members), entry.get("none_of_these")]
        return [
            entry["path"],
            *(entry.get("row") or {}).values(),
            *(best.get(key) for key in ("name", "probability", "similarity")),
            *calibrated,
            *map(shown.get, self.classes),
            entry.get("error"),
        ]


def check_out(out: Path, table: Path | None) -> None:
    """Refuses what could not be written, before any work is done.

    Args:
        out: the file.
        table: that is asked; it is not to be replaced by its answers.

    Raises:
        DataError: another kind of file, a folder, the table itself, or Parquet without pyarrow.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise DataError(f"--out {out}: must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    try:
        if out.is_dir():
            raise DataError(f"--out {out}: a folder")
        if table is not None and out.exists() and out.samefile(table):
            raise DataError(f"--out {out}: the answers would replace the table; give another name")
    except OSError as error:  # such as a name that is too long
        raise DataError(f"--out {out}: cannot be written ({error.strerror})") from error
    if out.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise DataError(f"--out {out}: Parquet needs pyarrow: pip install 'pathclip[parquet]'")


@contextlib.contextmanager
def writing(out: Path, columns: Columns) -> Iterator[Callable[[dict[str, Any]], object]]:
    """Yields what writes an entry; the file stands under its name when the block has ended well.

    Raises:
        DataError: a column of the table is called as one of the answers, or the file cannot be written.
    """
    own = columns.own()
    clash = [name for name in (columns.path, *columns.given) if name in own]
    if clash and out.suffix.lower() != ".jsonl":
        raise DataError(f"--out {out}: '{clash[0]}' is a column of the answers; rename the table's own")
    write = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[out.suffix.lower()]
    try:
        with atomic.staged_file(out) as staging, write(staging, columns) as row:
            yield row
    except OSError as error:
        raise DataError(f"--out {out}: cannot be written ({error.strerror or error})") from error


@contextlib.contextmanager
def _csv(file: Path, columns: Columns) -> Iterator[Callable[[dict[str, Any]], object]]:
    with file.open("w", encoding="utf-8", newline="") as opened:
        opened.write(_csv_line(columns.names()))
        yield lambda entry: opened.write(_csv_line([_text(cell) for cell in columns.cells(entry)]))


def _csv_line(cells: list[str]) -> str:
    # Not by the csv module: before Python 3.13 it leaves a carriage return unquoted, which ends the row.
    return ",".join(map(_quoted, cells)) + "\n"


def _quoted(cell: str) -> str:
    needed = any(mark in cell for mark in ',"\r\n')
    return '"' + cell.replace('"', '""') + '"' if needed else cell


@contextlib.contextmanager
def _jsonl(file: Path, columns: Columns) -> Iterator[Callable[[dict[str, Any]], object]]:
    with file.open("w", encoding="utf-8") as opened:
        # Line breaks of other alphabets stay escaped: not every reader of lines takes them for letters.
        yield lambda entry: print(json.dumps(entry), file=opened)


@contextlib.contextmanager
def _parquet(file: Path, columns: Columns) -> Iterator[Callable[[dict[str, Any]], object]]:
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([(name, _kind(name, columns, pa)) for name in columns.names()])
    waiting: list[list[Any]] = []
    with parquet.ParquetWriter(file, schema) as writer:

        def flush() -> None:
            arrays = [
                pa.array(cells, kind)
                for cells, kind in zip(zip(*waiting, strict=True), schema.types, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            waiting.clear()

        def write(entry: dict[str, Any]) -> None:
            waiting.append(columns.cells(entry))
            if len(waiting) == _PARQUET_ROWS:
                flush()

        yield write
        if waiting:
            flush()


def _kind(name: str, columns: Columns, pa: Any) -> Any:
    if name in (PROBABILITY, SIMILARITY) or name in map(_heading, columns.classes):
        return pa.float64()
    return pa.bool_() if name == NONE and columns.calibrated else pa.string()


def _heading(label: str) -> str:
    return f"p({label})"


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(cell).lower()
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)
