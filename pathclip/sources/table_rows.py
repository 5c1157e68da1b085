"""Reads the rows of a table: CSV, TSV, lines of JSON, Parquet."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from pathclip.errors import DataError
from pathclip.sources.compressed import plain_name
from pathclip.sources.dumps import BROKEN_LINE, read_json, read_lines

# A quoted cell may hold line breaks; one that runs on for longer is a quote that nobody closed.
MAX_RECORD_LINES = 100
PARQUET_BATCH = 1000  # rows in memory at once
Row = tuple[int, Mapping[str, Any], str]


def rows(file: Path, delimiter: str | None, wanted: Collection[str]) -> Iterator[Row]:
    """Yields (line or row from 1, row, what was wrong).

    Args:
        file: what it is shows in its name; anything else is a CSV.
        delimiter: of a CSV; guessed from the header by default.
        wanted: columns that are needed; a Parquet file is read in these alone.

    Raises:
        DataError: the file cannot be read, or is a CSV without header.
    """
    name = plain_name(file)
    if name.endswith((".jsonl", ".ndjson", ".json")):
        return _json_rows(file)
    if name.endswith((".parquet", ".pq")):
        return _parquet_rows(file, wanted)
    return _csv_rows(file, delimiter or ("\t" if name.endswith(".tsv") else None))


def _json_rows(file: Path) -> Iterator[Row]:
    for number, row, wrong in read_json(file):
        if not wrong and not isinstance(row, dict):
            wrong = f"expected an object, found {type(row).__name__}"
        yield number, {} if wrong else row, wrong


def _parquet_rows(file: Path, wanted: Collection[str]) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file, pre_buffer=False) as table:
            names = table.schema_arrow.names
            # With a column missing all are read, so that the message can name the nearest.
            columns = [name for name in names if name in wanted] if {*wanted} <= {*names} else None
            for batch in table.iter_batches(PARQUET_BATCH, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row, ""
    except FileNotFoundError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error
    except (pa.ArrowException, ValueError, OverflowError, OSError) as error:
        reason = " ".join(str(error).split())
        yield number + 1, {}, f"no Parquet from here on: {reason:.200}"


def _csv_rows(file: Path, delimiter: str | None) -> Iterator[Row]:
    lines = _text_lines(file)
    first = next(lines, (0, ""))
    if not first[1].strip():
        raise DataError(f"{file}: empty; a table needs a header line")
    records = _records(chain([first], lines), delimiter or max(",;\t|", key=first[1].count))
    _, header, wrong = next(records)
    if wrong:
        raise DataError(f"{file}, line {first[0]}: no header, {wrong}; correct that line")
    for number, cells, wrong in records:
        yield number, {} if wrong else dict(zip(header, cells, strict=True)), wrong


def _text_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yields (number, line with its end); blank lines are lost, and unreadable ones come out as ''."""
    for number, line in read_lines(file):
        text = line.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").replace("\0", "")
        yield number, f"{text}\n" if line else ""


def _records(lines: Iterator[tuple[int, str]], delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    """Yields (number of the first line, cells, what was wrong) for each record; the first gives their width.

    After a malformed record reading goes on with the line after its first one, so that an unclosed quote
    costs one row and not all that follow.
    """
    ahead: deque[tuple[int, str]] = deque()  # lines that were read as part of a malformed record

    def record_lines(record: list[tuple[int, str]]) -> Iterator[str]:
        while len(record) < MAX_RECORD_LINES and (line := ahead.popleft() if ahead else next(lines, None)):
            record.append(line)
            yield line[1]

    width = 0
    while True:
        record: list[tuple[int, str]] = []
        cells: list[str] = []
        wrong = ""
        try:
            cells = next(csv.reader(record_lines(record), delimiter=delimiter, strict=True))
        except StopIteration:
            return
        except csv.Error as error:
            wrong = f"not a row: {error}"
        width = width or len(cells)
        if not all(text for _, text in record):
            wrong = BROKEN_LINE
        elif not wrong and len(cells) != width:
            wrong = f"{len(cells)} cells where the header has {width}"
        if wrong:
            ahead.extendleft(reversed(record[1:]))
        yield record[0][0], cells, wrong
