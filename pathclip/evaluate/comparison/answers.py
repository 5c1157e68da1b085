"""`answers.parquet`: what each encoder said of each picture or query, so that two runs can be compared later.

One row per picture and encoder. What an encoder's rows have in common stands once, in the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathclip import atomic
from pathclip.errors import DataError
from pathclip.evaluate.reporting.report import without_nan
from pathclip.evaluate.task import Answers

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "answers.parquet"
SCHEMA_VERSION = 1
MOST_ROWS = 5_000_000
MOST_BYTES = 1 << 30  # of all columns, decompressed
_WORDS = ("item", "group", "truth", "answer")
_VERSION, _ABOUT = b"pathclip_answers_version", b"pathclip_answers_about"


def write_answers(path: str | Path, answers: Sequence[Answers]) -> Path:
    """Writes the answers of all tasks and encoders; equal answers give equal bytes.

    Columns: `set` (number of the encoder's entry in the metadata), `item`, `group`, `truth`, `answer`, `sure`
    and `rank`; see `Answers`.

    Returns:
        The path.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = [without_nan(dict(one.about)) for one in answers]
    metadata = {
        _VERSION: str(SCHEMA_VERSION).encode(),
        _ABOUT: json.dumps(about, sort_keys=True, ensure_ascii=False, default=str).encode(),
    }
    schema = _schema(pa).with_metadata(metadata)
    with (
        atomic.staged_file(Path(path)) as staging,
        pq.ParquetWriter(staging, schema, compression="zstd") as file,
    ):
        for number, one in enumerate(answers):
            n = len(one.items)
            columns = {
                "set": np.full(n, number, np.int32),
                "item": one.items,
                "group": one.groups,
                "truth": one.truth,
                "answer": one.answer,
                "sure": one.sure,
                "rank": one.rank,
            }
            arrays = [
                pa.nulls(n, field.type) if values is None else pa.array(values, field.type)
                for field, values in zip(schema, columns.values(), strict=True)
            ]
            if n:
                file.write_table(pa.Table.from_arrays(arrays, schema=schema))
    return Path(path)


def read_answers(path: str | Path) -> list[Answers]:
    """Reads what `write_answers` wrote.

    Raises:
        DataError: no such file, none of ours, another version, too many rows, or malformed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; run `pathclip evaluate` again to have it written")
    try:
        with pq.ParquetFile(path) as file:
            metadata = file.schema_arrow.metadata or {}
            version = metadata.get(_VERSION, b"").decode(errors="replace")
            if version != str(SCHEMA_VERSION):
                raise DataError(
                    f"{path}: version {version or 'none'} of the answers, but this pathclip reads "
                    f"{SCHEMA_VERSION}; run `pathclip evaluate` again"
                )
            if file.metadata.num_rows > MOST_ROWS:
                raise DataError(
                    f"{path}: {file.metadata.num_rows} rows, more than {MOST_ROWS}; refused. Measure fewer "
                    "tasks or encoders in one run"
                )
            if not file.schema_arrow.equals(_schema(pa)):
                raise DataError(f"{path}: its columns are not those of answers")
            groups = range(file.metadata.num_row_groups)
            size = sum(file.metadata.row_group(number).total_byte_size for number in groups)
            if size > MOST_BYTES:
                raise DataError(f"{path}: {size >> 20} MiB of answers, more than {MOST_BYTES >> 20}; refused")
            about = json.loads(metadata[_ABOUT])
            if not isinstance(about, list) or not all(isinstance(one, dict) for one in about):
                raise DataError(f"{path}: its metadata do not say whose answers these are")
        # A text that many rows share is held once: a small file may repeat a long one a million times.
        with pq.ParquetFile(path, read_dictionary=list(_WORDS)) as file:
            return _split(file.read(), about)
    except (
        *(pa.ArrowException, OSError, KeyError, IndexError, ValueError, TypeError),
        RecursionError,  # of JSON nested without end
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a file of answers, or damaged ({reason})") from None


def _schema(pa: Any) -> pa.Schema:
    return pa.schema(
        [
            pa.field("set", pa.int32(), nullable=False),
            pa.field("item", pa.string(), nullable=False),
            pa.field("group", pa.string(), nullable=False),
            pa.field("truth", pa.string()),
            pa.field("answer", pa.string()),
            pa.field("sure", pa.float64()),
            pa.field("rank", pa.int64()),
        ]
    )


def _split(table: pa.Table, about: list[dict[str, Any]]) -> list[Answers]:
    """The rows of each set; they lie together, in the order of the sets."""
    sets = table.column("set").to_numpy()
    if len(sets) and (sets.min() < 0 or sets.max() >= len(about) or (np.diff(sets) < 0).any()):
        raise ValueError("rows of sets that the metadata does not name")
    bounds = np.searchsorted(sets, np.arange(len(about) + 1))
    found = []
    for number, entry in enumerate(about):
        rows = table.slice(bounds[number], bounds[number + 1] - bounds[number])
        found.append(
            Answers(
                entry,
                _texts(rows.column("item")),
                _texts(rows.column("group")),
                _words(rows, "truth"),
                _words(rows, "answer"),
                _numbers(rows, "sure"),
                _numbers(rows, "rank"),
            )
        )
    return found


def _words(rows: pa.Table, name: str) -> tuple[str, ...] | None:
    column = rows.column(name)
    return None if column.null_count else _texts(column)


def _texts(column: Any) -> tuple[str, ...]:
    """The texts of a dictionary column without null, equal ones of a chunk as one object."""
    found: list[str] = []
    for chunk in column.chunks:
        words = chunk.dictionary.to_pylist()
        found += [words[number] for number in chunk.indices.to_pylist()]
    return tuple(found)


def _numbers(rows: pa.Table, name: str) -> Any:
    column = rows.column(name)
    return None if column.null_count else column.to_numpy()
