"""Reads any table of image path and text: CSV, TSV, lines of JSON or Parquet."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pathclip.config import check_values, nearest
from pathclip.errors import ConfigError
from pathclip.sources.dumps import Place
from pathclip.sources.fields import parse_time, pseudonym, well_formed
from pathclip.sources.table_rows import Row, rows
from pathclip.types import Malformed, Media, Post

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
REPEATS = True  # several rows may describe one picture
COLUMNS = ("image", "text", "id", "label", "group", "split", "created_at", "licence", "author")
_OPTIONS = {
    "columns": Mapping,
    "name": str,
    "delimiter": str | None,
    "captions": Sequence[str] | None,
    "where": Mapping[str, Any] | None,
}
_SLOT = re.compile(r"\{(\w+)\}")


def read(
    file: Path,
    columns: Mapping[str, str | None],
    name: str = "table",
    delimiter: str | None = None,
    captions: Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> Iterator[Post | Malformed]:
    """Reads one post per row: one image, one text.

    Args:
        file: `.csv`, `.tsv` or `.jsonl`, compressed or not, or `.parquet`.
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
        ConfigError: an unknown role, or a column that the table lacks; both when this is called.
        DataError: a CSV without header; when this is called.
    """
    options = {"columns": columns, "name": name, "delimiter": delimiter, "captions": captions, "where": where}
    check_values({"source": options}, {f"source.{option}": hint for option, hint in _OPTIONS.items()})
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ConfigError(f"source.delimiter: expected one sign, as in delimiter=';', got {delimiter!r}")
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
    table = _Table(name, roles, tuple(captions or ()), choose)
    found = rows(file, delimiter, table.columns)
    first = next(found, None)
    if first is not None and not first[2]:
        table.check(file, first[1])
    return table.posts(file, found if first is None else chain([first], found))


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    roles: Mapping[str, str]
    captions: tuple[str, ...]
    where: Mapping[str, set[str]]

    @property
    def columns(self) -> frozenset[str]:
        """Every column that the config names."""
        return frozenset([*self.roles.values(), *self.where, *self._slots])

    @property
    def _slots(self) -> set[str]:
        return {slot for template in self.captions for slot in _SLOT.findall(template)} - {"text"}

    def posts(self, file: Path, found: Iterable[Row]) -> Iterator[Post | Malformed]:
        checked = False
        for number, row, reason in found:
            place = Place(file.name, number)
            if reason:
                yield place.malformed(reason)
                continue
            if not checked:
                self.check(file, row)
                checked = True
            if all(_text(row.get(column)) in wanted for column, wanted in self.where.items()):
                yield self._post(place, row)

    def check(self, file: Path, row: Mapping[str, Any]) -> None:
        """Every column named in the config must be in the first row, or a typo would select nothing."""
        named = {f"source.columns.{role}": column for role, column in self.roles.items()}
        named |= {f"source.where.{column}": column for column in self.where}
        named |= {f"source.captions: {{{slot}}}": slot for slot in self._slots}
        for key, column in named.items():
            if column not in row:
                hint = nearest(column, map(str, row))
                raise ConfigError(f"{file}: there is no column '{column}' ({key}).{hint}")

    def _post(self, place: Place, row: Mapping[str, Any]) -> Post | Malformed:
        cell = {role: _text(row.get(column)) for role, column in self.roles.items()}
        if not cell["image"]:
            return place.malformed(f"no image path in column '{self.roles['image']}'")
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


def _text(value: Any) -> str:
    """A cell; '' for what is no single value. NULs go: no file name can hold them."""
    if value is None or isinstance(value, dict | list | bytes):
        return ""
    return well_formed(str(value)).replace("\0", "").strip()


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
