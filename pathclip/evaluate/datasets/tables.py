"""Reads a table row by row, so that a mistake in it can be named by its line."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pathclip.errors import DataError

_MOST_NAMED = 20


def lines(file: Path, key: str = "") -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows of a CSV or JSONL file with their line numbers; see `cell` for what is in them.

    A CSV is read strictly: an unclosed quote would swallow the rows after it, and a figure would be
    measured on fewer pictures without a word.

    Args:
        file: `.jsonl` or `.ndjson` has one JSON object per line, anything else is CSV with a header.
        key: of the config, that names the file; for messages.

    Raises:
        DataError: no such file, or malformed, or a column that stands twice in the header, or a row with more
            or fewer cells than that; names file and line.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            if _is_json(file):
                for line, text in enumerate(stream, 1):
                    if text.strip():
                        yield line, _json_object(file, line, text)
                return
            reader = csv.DictReader(stream, strict=True)
            header = reader.fieldnames or []  # which reads it
            _check_header(file, reader.line_num, header)
            for values in reader:
                _check_cells(file, reader.line_num, values, header)
                yield reader.line_num, values
    except FileNotFoundError:
        raise DataError(f"{file}: no such table{_where_tables_lie(file, key)}") from None
    except IsADirectoryError:
        raise DataError(f"{file}: a folder, not a table") from None
    except UnicodeDecodeError:
        raise DataError(f"{file}: not UTF-8 text") from None
    except csv.Error as error:
        # The reader stands at the last good row; a quote that is never closed ends far below its line.
        raise DataError(f"{file}, line {reader.line_num + 1}: not valid CSV ({error})") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None


def cell(value: Any) -> str:
    """A value of a row, or of a sample's JSON, as text: '' only where there is none.

    The number 0 and false are values like any other: a class, a slide.

    >>> cell(0), cell("g1"), cell(None)
    ('0', 'g1', '')
    """
    return "" if value is None else str(value)


def _check_header(file: Path, line: int, header: Sequence[str]) -> None:
    seen = set()
    for name in filter(None, header):
        if name in seen:
            raise DataError(f"{file}, line {line}: the column '{name}' stands twice; name each once")
        seen.add(name)


def _check_cells(file: Path, line: int, values: Mapping[Any, Any], header: Sequence[str]) -> None:
    missing = sum(value is None for value in values.values())
    found = len(header) + len(values.get(None, ())) - missing
    if found != len(header):
        raise DataError(f"{file}, line {line}: {found} cells, but the header has {len(header)}")


def _json_object(file: Path, line: int, text: str) -> Mapping[str, Any]:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise DataError(f"{file}, line {line}: not valid JSON ({error})") from None
    except RecursionError:
        raise DataError(f"{file}, line {line}: nested too deeply, refused") from None
    if not isinstance(values, dict):
        raise DataError(f"{file}, line {line}: not a JSON object")
    return values


def need_columns(
    file: Path,
    line: int,
    values: Mapping[str, Any],
    columns: Sequence[str],
    keys: Mapping[str, str] | None = None,
) -> None:
    """Refuses a row that lacks a column.

    Args:
        file: the table.
        line: of the row.
        values: of the row, by column.
        columns: that it needs.
        keys: column → key of the config that names it.

    Raises:
        DataError: a column is not there; says which are, and the key.
    """
    for column in columns:
        if column not in values:
            known = [str(name) for name in values if name]
            there = ", ".join(known[:_MOST_NAMED]) + (", …" if len(known) > _MOST_NAMED else "")
            where = f"line {line}" if _is_json(file) else "line 1 (the header)"
            key = (keys or {}).get(column)
            other = f". Name the one that is meant by {key}=…" if key else ""
            raise DataError(f"{file}, {where}: there is no column '{column}', only {there}{other}")


def _is_json(file: Path) -> bool:
    return file.suffix.lower() in (".jsonl", ".ndjson")


def _where_tables_lie(file: Path, key: str) -> str:
    # The default is that of conf/paths/default.yaml.
    if file.is_relative_to(os.environ.get("PATHCLIP_SHARED_DATA") or "../shared/data"):
        return (
            ". The data of a task do not come with pathclip: name their folder by PATHCLIP_SHARED_DATA, or "
            "the table itself in the config"
        )
    return f"; name it by {key}=…" if key else ""
