"""Finds dump files and reads them line by line, with bounded lines; gzip where the name says so."""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from pathclip.errors import DataError

# A page of 500 tweets with all expansions is about 4 MB.
MAX_LINE_BYTES = 64 * 1024 * 1024
# What is wrong with a line that `read_lines` yields as `b""`.
BROKEN_LINE = f"broken gzip stream, or a line longer than {MAX_LINE_BYTES >> 20} MiB"


def find_dumps(path: Path, suffixes: Iterable[str]) -> list[Path]:
    """The dump files at a path, in the order of their names.

    Args:
        path: a file of any name, or a folder that is searched with its sub-folders.
        suffixes: of the files in a folder that count, such as '.jsonl'; each may be followed by '.gz'.

    Raises:
        DataError: no such file, or a folder without any dump.
    """
    suffixes = tuple(suffixes)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder")
    endings = (*suffixes, *(f"{suffix}.gz" for suffix in suffixes))
    files = sorted(file for file in path.rglob("*") if file.name.lower().endswith(endings) and file.is_file())
    if not files:
        raise DataError(f"{path}: no dump in this folder; looked for {', '.join(endings)}")
    return files


def read_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yields (line number from 1, line) for each line that is not blank.

    Over-long lines come out as `b""`, and so does what follows the point where a gzip file breaks off:
    the caller counts them as malformed.

    Raises:
        DataError: the file cannot be read at all.
    """
    number = 0
    try:
        with _open(file) as stream:
            while line := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    while line and not line.endswith(b"\n"):
                        line = stream.readline(MAX_LINE_BYTES)
                    yield number, b""
                elif line.strip():
                    yield number, line.rstrip(b"\r\n")
    except (EOFError, zlib.error, gzip.BadGzipFile):
        yield number + 1, b""
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error


def parse_json(line: bytes) -> Any:
    """Parses one line of JSON.

    Raises:
        ValueError: with a short reason, whatever is wrong with the line.
    """
    if not line:
        raise ValueError(BROKEN_LINE)
    try:
        return json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:  # an integer of thousands of digits
        raise ValueError(f"not JSON: {error}") from None


def well_formed(text: str) -> str:
    """The text with lone surrogates, which no file can hold, replaced by U+FFFD."""
    with contextlib.suppress(UnicodeEncodeError):
        text.encode()
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _open(file: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(file, "rb")) if file.name.lower().endswith(".gz") else file.open("rb")
