"""Reads any table of image path and text: CSV, TSV or lines of JSON."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pathclip.config import nearest
from pathclip.errors import ConfigError, DataError
from pathclip.sources.dumps import BROKEN_LINE, find_dumps, parse_json, read_lines, well_formed
from pathclip.sources.twitter import parse_time, pseudonym
from pathclip.types import Malformed, Media, Post

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
# A quoted cell may hold line breaks; one that runs on for longer is a quote that nobody closed.
MAX_RECORD_LINES = 100
COLUMNS = ("image", "text", "id", "label", "group", "split", "created_at", "licence", "author")
_SLOT = re.compile(r"\{(\w+)\}")


def read(
    path: Path,
    columns: Mapping[str, str | None],
    name: str = "table",
    delimiter: str | None = None,
    captions: Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> Iterator[Post | Malformed]:
    """Reads one post per row: one image, one text.

    Args:
        path: a `.csv`, `.tsv` or `.jsonl` file, gzipped or not, or a folder of them.
        columns: which column holds what. Needed: 'image' (path below the folder of images) and
            'text'. Optional: 'id' (else the image path), 'label', 'group' (patient or case: never
            split), 'split' (train, val, test, as the source prescribes), 'created_at', 'licence', 'author'.
        name: of the data set; becomes `Pair.source`.
        delimiter: of a CSV; guessed from the header by default.
        captions: templates that make a caption, such as 'H&E of {text}'; any column may stand in
            braces, and `{text}` is the text column. Each row takes one, chosen by its id, so that the
            same table gives the same captions.
        where: column → value or list of values: only rows that match are read.

    Raises:
        ConfigError: an unknown role, or a column that the table lacks.
        DataError: no such file.
    """
    for role in columns:
        if role not in COLUMNS:
            raise ConfigError(f"source.columns.{role}: unknown key.{nearest(role, COLUMNS)}")
    for role in ("image", "text"):
        if not columns.get(role):
            raise ConfigError(f"source.columns.{role}: name the column that holds it")
    roles = {role: column for role, column in columns.items() if column}
    choose = {
        column: {str(value) for value in (wanted if _is_list(wanted) else [wanted])}
        for column, wanted in (where or {}).items()
    }
    table = _Table(name, roles, tuple(captions or ()), choose, delimiter)
    return table.posts(find_dumps(path, SUFFIXES))


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    roles: Mapping[str, str]
    captions: tuple[str, ...]
    where: Mapping[str, set[str]]
    delimiter: str | None

    def posts(self, files: Iterable[Path]) -> Iterator[Post | Malformed]:
        for file in files:
            checked = False
            for number, row, reason in _rows(file, self.delimiter):
                if reason:
                    yield Malformed(file.name, number, reason)
                    continue
                if not checked:
                    self._check(file, row)
                    checked = True
                if all(_text(row.get(column)) in wanted for column, wanted in self.where.items()):
                    yield self._post(file, number, row)

    def _check(self, file: Path, row: Mapping[str, Any]) -> None:
        """Every column named in the config must be in the first row, or a typo would select nothing."""
        slots = {slot for template in self.captions for slot in _SLOT.findall(template)} - {"text"}
        named = {f"source.columns.{role}": column for role, column in self.roles.items()}
        named |= {f"source.where.{column}": column for column in self.where}
        named |= {f"source.captions: {{{slot}}}": slot for slot in slots}
        for key, column in named.items():
            if column not in row:
                hint = nearest(column, map(str, row))
                raise ConfigError(f"{file}: there is no column '{column}' ({key}).{hint}")

    def _post(self, file: Path, number: int, row: Mapping[str, Any]) -> Post | Malformed:
        cell = {role: _text(row.get(column)) for role, column in self.roles.items()}
        if not cell["image"]:
            return Malformed(file.name, number, f"no image path in column '{self.roles['image']}'")
        identity = cell.get("id") or cell["image"]
        return Post(
            id=identity,
            platform=self.name,
            text=self._caption(identity, cell["text"], row),
            author=pseudonym(self.name, cell["author"]) if cell.get("author") else "",
            created_at=parse_time(cell.get("created_at")),
            media=(Media(key=identity, path=cell["image"]),),
            licence=cell.get("licence") or None,
            case=cell.get("group") or None,
            label=cell.get("label") or None,
            split=cell.get("split") or None,
        )

    def _caption(self, identity: str, text: str, row: Mapping[str, Any]) -> str:
        if not self.captions or not text:
            return text
        number = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big")
        template = self.captions[number % len(self.captions)]
        # Not str.format: a template can then name nothing but columns.
        return _SLOT.sub(
            lambda slot: text if slot.group(1) == "text" else _text(row.get(slot.group(1))), template
        )


def _rows(file: Path, delimiter: str | None) -> Iterator[tuple[int, Mapping[str, Any], str]]:
    """Yields (line, row, what was wrong)."""
    name = file.name.lower().removesuffix(".gz")
    if name.endswith((".jsonl", ".ndjson", ".json")):
        for number, line in read_lines(file):
            try:
                row = parse_json(line)
            except ValueError as error:
                yield number, {}, str(error)
                continue
            wrong = "" if isinstance(row, dict) else f"expected an object, found {type(row).__name__}"
            yield number, row if not wrong else {}, wrong
        return
    yield from _csv_rows(file, delimiter or ("\t" if name.endswith(".tsv") else None))


def _csv_rows(file: Path, delimiter: str | None) -> Iterator[tuple[int, Mapping[str, Any], str]]:
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


def _text(value: Any) -> str:
    return "" if value is None or isinstance(value, dict | list) else well_formed(str(value)).strip()


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
