"""Finds dump files and reads them: lines of JSON or one JSON document, plain, gzip or Zstandard.

Whatever a file holds, memory stays bounded, and each thing in it that cannot be read comes out with the
reason: a reader makes it a `Malformed`.
"""

from __future__ import annotations

import codecs
import fnmatch
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pathclip.errors import DataError
from pathclip.sources.compressed import BROKEN, COMPRESSED, open_dump_file, plain_name
from pathclip.types import Malformed, Notice, Post

# A page of 500 tweets with all expansions is about 4 MB.
MAX_LINE_BYTES = 64 * 1024 * 1024
# Of a JSON object that is spread over lines, or of an element of such an array: an array may be longer.
MAX_DOCUMENT_CHARACTERS = 256 * 1024 * 1024
# What is wrong with a line that `read_lines` yields as `b""`.
BROKEN_LINE = f"broken compressed stream, or a line longer than {MAX_LINE_BYTES >> 20} MiB"
JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
_CHUNK = 1 << 20
Item = Post | Malformed | Notice
_ASSIGNMENT = re.compile(r"\s*[\w.\[\]\"'$]{1,200}\s*=\s*")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in a dump: file name and 1-based number of the line, row or record."""

    file: str
    line: int

    def malformed(self, reason: str) -> Malformed:
        """What stands here is nothing known."""
        return Malformed(self.file, self.line, reason)

    def no_object(self, value: Any) -> Malformed:
        """What stands here is no JSON object."""
        return self.malformed(f"expected an object, found {type(value).__name__}")

    def notice(self, kind: str, deleted: tuple[str, ...] = ()) -> Notice:
        """What stands here is sound, and no post."""
        return Notice(self.file, self.line, kind, deleted)


def find_dumps(path: Path, suffixes: Iterable[str]) -> list[Path]:
    """The dump files at a path, in the order of their names.

    Args:
        path: a file of any name, or a folder that is searched with its sub-folders.
        suffixes: of the files in a folder that count, such as '.jsonl', or patterns of whole names, such as
            'tweets*.js'; each may be followed by '.gz' or '.zst'.

    Raises:
        DataError: no such file, or a folder without any dump.
    """
    suffixes = tuple(suffixes)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder")
    patterns = [f"*{suffix}" if suffix.startswith(".") else suffix for suffix in suffixes]
    files = sorted(
        file
        for file in path.rglob("*")
        if any(fnmatch.fnmatchcase(plain_name(file), pattern) for pattern in patterns) and file.is_file()
    )
    if not files:
        looked_for = f"{', '.join(suffixes)}, also with {' or '.join(COMPRESSED)}"
        raise DataError(f"{path}: no dump in this folder; looked for {looked_for}")
    return files


def relative_folder(file: Path, root: Path | None) -> Path:
    """The folder of a file, relative to the folder that the paths of pictures are relative to."""
    if root is None:
        return Path()
    try:
        return file.parent.relative_to(root)
    except ValueError:
        return Path()


def read_bytes(file: Path, limit: int) -> bytes:
    """The whole content of a file that is read at once.

    Raises:
        ValueError: it holds more than `limit` bytes, or its compression is broken; says which.
        DataError: the file cannot be read at all.
    """
    try:
        with open_dump_file(file) as stream:
            content = stream.read(limit + 1)
    except BROKEN:
        raise ValueError("broken compressed stream") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error
    if len(content) > limit:
        raise ValueError(f"larger than {limit >> 20} MiB")
    return content


def read_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yields (line number from 1, line) for each line that is not blank.

    Over-long lines come out as `b""`, and so does what follows the point where a compressed file breaks off:
    the caller counts them as malformed.

    Raises:
        DataError: the file cannot be read at all.
    """
    number = 0
    try:
        with open_dump_file(file) as stream:
            while line := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    while line and not line.endswith(b"\n"):
                        line = stream.readline(MAX_LINE_BYTES)
                    yield number, b""
                elif line.strip():
                    yield number, line.rstrip(b"\r\n")
    except BROKEN:
        yield number + 1, b""
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error


def read_json(file: Path) -> Iterator[tuple[int, Any, str]]:
    """Yields (line, value, what was wrong) for each line of JSON, or for each value of a JSON document.

    A file named `.json` or `.js` may hold one document spread over lines: of an array each element comes out
    by itself, so that its length is unbounded. What a script assigns (`window.YTD.tweets.part0 = [`) counts
    as a document. Where a document is malformed, what follows in it is not read.

    Raises:
        DataError: the file cannot be read at all.
    """
    if plain_name(file).endswith((".json", ".js")) and _is_document(file):
        yield from _read_document(file)
        return
    for number, line in read_lines(file):
        try:
            value = parse_json(line)
        except ValueError as error:
            yield number, None, str(error)
        else:
            yield number, value, ""


def read_objects(
    file: Path, items: Callable[[Mapping[str, Any], Place], Iterator[Item]], referenced: bool = True
) -> Iterator[Item]:
    """Yields what a platform makes of every JSON object of a file, alone or in an array; see `read_json`.

    Args:
        file: of the dump.
        items: from an object and its place to what it holds.
        referenced: also yield posts that others brought along.
    """
    for number, value, wrong in read_json(file):
        place = Place(file.name, number)
        if wrong:
            yield place.malformed(wrong)
        elif value == []:
            yield place.notice("empty")
        for entry in value if isinstance(value, list) else [] if wrong else [value]:
            found = items(entry, place) if isinstance(entry, dict) else [place.no_object(entry)]
            yield from found if referenced else collected(found)


def collected(items: Iterable[Item]) -> Iterator[Item]:
    """The items without the posts that others brought along."""
    return (item for item in items if not (isinstance(item, Post) and "referenced" in item.flags))


def parse_json(line: bytes) -> Any:
    """Parses one line of JSON.

    Raises:
        ValueError: with a short reason, whatever is wrong with the line.
    """
    if not line:
        raise ValueError(BROKEN_LINE)
    try:
        return json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        raise ValueError(_what_is_wrong(error)) from None


def _what_is_wrong(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    # Otherwise an integer of thousands of digits.
    return "nested too deeply" if isinstance(error, RecursionError) else f"not JSON: {error}"


def _is_document(file: Path) -> bool:
    """Whether the file opens an array or a script, or an object that its first two lines do not close."""
    for _, (_, line) in zip(range(2), read_lines(file), strict=False):
        line = line.removeprefix(b"\xef\xbb\xbf").lstrip()
        if line and not line.startswith(b"{"):
            return True
        try:
            return not isinstance(parse_json(line), dict)
        except ValueError:
            continue
    return True


def _read_document(file: Path) -> Iterator[tuple[int, Any, str]]:
    line = 1
    try:
        with open_dump_file(file) as stream:
            text = _JsonText(stream)
            text.skip_assignment()
            while sign := text.next_sign():
                in_array = sign == "["
                sign = text.after(sign) if in_array else sign
                while not (in_array and sign == "]"):
                    line = text.line
                    yield line, text.value(), ""
                    if not in_array:
                        break
                    sign = text.next_sign()
                    if sign == ",":
                        sign = text.after(sign)
                    elif sign != "]":
                        line = text.line
                        raise ValueError(
                            "not JSON: Expecting ',' delimiter" if sign else "the array breaks off"
                        )
                if in_array:
                    text.after("]")
                if text.next_sign() == ";":
                    text.after(";")
    except (ValueError, RecursionError) as error:
        yield line, None, f"{_what_is_wrong(error)}; the rest of the file is not read"
    except BROKEN:
        yield line, None, "broken compressed stream"
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error


class _JsonText:
    """Text of which a part is in memory: what is being parsed, and as much of what follows."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("surrogatepass").decode
        self._parse = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._ended = False
        self.line = 1

    def skip_assignment(self) -> None:
        self._fill()
        if match := _ASSIGNMENT.match(self._text):
            self._move(match.end())

    def next_sign(self) -> str:
        """The next sign that is no space; '' at the end of the file."""
        while True:
            end = self._at
            while end < len(self._text) and self._text[end] in " \t\r\n":
                end += 1
            self._move(end)
            if end < len(self._text):
                return self._text[end]
            if self._ended:
                return ""
            self._fill()

    def after(self, sign: str) -> str:
        """The sign that follows the given one."""
        self._move(self._at + len(sign))
        return self.next_sign()

    def value(self) -> Any:
        """Parses the value here and stands behind it."""
        while True:
            try:
                value, end = self._parse(self._text, self._at)
                # A number at the end of what is in memory may go on.
                if end < len(self._text) or self._ended:
                    self._move(end)
                    return value
            except ValueError:
                if self._ended:
                    raise
            if len(self._text) - self._at > MAX_DOCUMENT_CHARACTERS:
                raise ValueError(f"malformed, or longer than {MAX_DOCUMENT_CHARACTERS >> 20} M characters")
            self._fill()

    def _move(self, end: int) -> None:
        self.line += self._text.count("\n", self._at, end)
        self._at = end

    def _fill(self) -> None:
        self._text, self._at = self._text[self._at :], 0
        # As much again as there is: a long value is then parsed anew a few times only.
        chunk = self._stream.read(max(_CHUNK, len(self._text)))
        self._ended = not chunk
        self._text += self._decode(chunk, self._ended)
