"""Where `pathclip classify` finds its pictures: files, folders, patterns, a table, or names on stdin.

Nothing is collected that need not be: of a folder the names of one level at a time are held, of a table and
of stdin one row.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pathclip.errors import DataError

STDIN = "-"
_TABLES = {".csv": ",", ".tsv": "\t"}
_COLUMN = "path"
_CHUNK = 64 * 1024
_MOST_COLUMNS = 10_000
_LONGEST_NAME = 64 * 1024  # of a path on stdin, in bytes; no system takes as long a one


@dataclass(frozen=True, slots=True)
class Row:
    """One picture that is asked for.

    Attributes:
        given: its path as it was written.
        path: where it lies.
        columns: what else a table says of it.
        fault: what is wrong with its line of the table, or None.
    """

    given: str
    path: Path
    columns: tuple[str, ...] = ()
    fault: str | None = None

    def file(self) -> Path:
        """Its path; raises DataError where the table's line is wrong."""
        if self.fault is not None:
            raise DataError(self.fault)
        return self.path


@dataclass(frozen=True, slots=True)
class Source:
    """Pictures that are asked for.

    Attributes:
        rows: them, in order; may be gone through as often as it is called, except where they come by stdin.
        column: heading of the column of paths.
        columns: headings of the other columns of the table.
        table: the table, or None.
        countable: whether going through them twice is possible.
        typed: whether somebody types them, who waits for the answer to each.
    """

    rows: Callable[[], Iterator[Row]]
    column: str = _COLUMN
    columns: tuple[str, ...] = ()
    table: Path | None = None
    countable: bool = True
    typed: bool = False

    def count(self) -> int | None:
        """How many there are, or None where only going through them tells and can be done but once."""
        return sum(1 for _ in self.rows()) if self.countable else None


def open_source(given: Sequence[str], column: str | None = None, stdin: BinaryIO | None = None) -> Source:
    """What the command line names.

    Args:
        given: files, folders (searched through) and patterns, each picture once, in the order given; or
            a table (.csv, .tsv) alone; or '-' alone, for names on stdin with a line break or a NUL byte
            after each.
        column: of the table that has the paths, relative to the table's folder; by default 'path'.
        stdin: another stream than the process's own.

    Raises:
        DataError: a folder has no pictures, a pattern matches nothing, or a table without that column. A
            missing file is left in: it gets its own line when it is opened.
    """
    tables = [name for name in given if Path(name).suffix.lower() in _TABLES and not _is_dir(name)]
    alone = tables + [name for name in given if name == STDIN]
    if alone and len(given) > 1:
        raise DataError(f"{alone[0]}: a table or '-' is given alone, without other files or folders")
    if tables:
        return _table(Path(tables[0]), column or _COLUMN)
    if column is not None:
        raise DataError("--column is for a table: pathclip classify MODEL table.csv --column NAME")
    if alone:
        stream = sys.stdin.buffer if stdin is None else stdin
        typed = _is_typed(stream)
        return Source(lambda: map(_row, _one_at_least(stream)), countable=False, typed=typed)
    for name in given:
        _check(name)
    return Source(lambda: map(_row, _each_once([_paths(name) for name in given])))


def _one_at_least(stream: BinaryIO) -> Iterator[str]:
    """The names; none at all is a fault, as of a search for files that found nothing or failed."""
    name = None
    for name in names_of_stream(stream):
        yield name
    if name is None:
        raise DataError("stdin: no names of pictures came")


def names_of_stream(stream: BinaryIO) -> Iterator[str]:
    """Names of files, each as soon as it has come; empty ones are left out.

    After each stands a NUL byte, if the first piece that comes has one, or else a line break.

    Raises:
        DataError: what comes can be no name, being too long.
    """
    mark = b""
    rest = b""
    while piece := _piece(stream):
        rest += piece
        if not mark and (b"\0" in rest or b"\n" in rest):
            mark = b"\0" if b"\0" in rest else b"\n"
        if mark:
            *names, rest = rest.split(mark)
            yield from filter(None, (_name(name, mark) for name in names))
        if len(rest) > _LONGEST_NAME:
            raise DataError(f"stdin: a line of more than {_LONGEST_NAME >> 10} KiB; it takes one path a line")
    if name := _name(rest, mark):
        yield name


def _piece(stream: BinaryIO) -> bytes:
    # What is there, without waiting for more.
    return stream.read1(_CHUNK) if hasattr(stream, "read1") else stream.read(_CHUNK)


def _name(name: bytes, mark: bytes) -> str:
    return os.fsdecode(name if mark == b"\0" else name.removesuffix(b"\r"))


def _row(name: str | Path) -> Row:
    return Row(str(name), Path(name))


def _is_typed(stream: BinaryIO) -> bool:
    return hasattr(stream, "isatty") and stream.isatty()


def _is_dir(name: str | Path) -> bool:
    # `Path.is_dir` raises where a name is too long, and where a folder above may not be entered.
    return os.path.isdir(name)  # noqa: PTH112


def _is_pattern(name: str) -> bool:
    return any(mark in name for mark in "*?[") and not os.path.exists(name)  # noqa: PTH110 — as `_is_dir`


def _check(name: str) -> None:
    path = Path(name)
    if _is_dir(path) and next(_paths(name), None) is None:
        raise DataError(f"{path}: no pictures in it")
    if _is_pattern(name) and next(_paths(name), None) is None:
        raise DataError(f"{name}: matches no file")


def _paths(name: str) -> Iterator[Path]:
    from pathclip.runtime.images import walk_images

    path = Path(name)
    if _is_dir(path):
        yield from walk_images(path)
    elif _is_pattern(name):
        import glob

        # A set, for '**' twice finds a file by several ways; not `Path.glob`, for absolute patterns.
        matches = sorted(set(glob.iglob(name, recursive=True)))  # noqa: PTH207
        yield from (Path(match) for match in matches if os.path.isfile(match))  # noqa: PTH113 — as `_is_dir`
    else:
        yield path


def _each_once(parts: Sequence[Iterable[Path]]) -> Iterator[Path]:
    if len(parts) == 1:  # which has none twice, so that none need be remembered
        yield from parts[0]
        return
    seen: set[str] = set()
    for part in parts:
        for path in part:
            if (name := str(path)) not in seen:
                seen.add(name)
                yield path


def _table(path: Path, column: str) -> Source:
    header = next((cells for _, cells in _lines(path)), None)
    if header is None:
        raise DataError(f"{path}: empty; its first line names the columns, one of them '{column}'")
    if len(header) > _MOST_COLUMNS:
        raise DataError(f"{path}: {len(header)} columns, more than the {_MOST_COLUMNS} allowed")
    twice = [name for name in dict.fromkeys(header) if header.count(name) > 1]
    if twice:
        raise DataError(f"{path}: two columns are called '{twice[0]}'; rename one")
    if column not in header:
        raise DataError(f"{path}: no column '{column}'; name one by --column: {', '.join(header)}")
    at = header.index(column)
    others = tuple(name for name in header if name != column)
    return Source(lambda: _table_rows(path, at, len(header)), column, others, path)


def _table_rows(path: Path, at: int, width: int) -> Iterator[Row]:
    lines = _lines(path)
    next(lines, None)
    for number, cells in lines:
        where = f"{path}, line {number}"
        fault = None
        if len(cells) != width:
            fault = f"{where}: {len(cells)} cells, but the first line has {width}"
            cells = (cells + [""] * width)[:width]
        given = cells[at]
        if not fault and not given.strip():
            fault = f"{where}: no path"
        yield Row(given, path.parent / given, tuple(cells[:at] + cells[at + 1 :]), fault)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines of a table that are not empty, each with its number."""
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: a device or a pipe; a table is read twice, so it has to be a file")
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=_TABLES[path.suffix.lower()], strict=True)
            yield from ((reader.line_num, cells) for cells in reader if cells)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; save it as such") from None
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not a table ({error})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # a NUL byte in the name
        raise DataError(f"{path}: cannot be read ({error})") from error
