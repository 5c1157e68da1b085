"""Finds the pictures of posts: in a folder, or in a tar that nobody has to unpack."""

from __future__ import annotations

import json
import os
import sqlite3
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

from pathclip.errors import DataError
from pathclip.sources.fields import PICTURE_SUFFIXES
from pathclip.types import Media

# A whole path stands before a file's own name in some folder; else the first of two counts.
_NOTE = """
insert into member values (?, ?, ?, ?) on conflict (name) do update set
    offset = excluded.offset, size = excluded.size, whole = excluded.whole
where excluded.whole > member.whole
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of a picture lie: a whole file, or `size` bytes of a tar from `offset` on."""

    path: str
    offset: int = 0
    size: int | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return PurePosixPath(self.path).name

    def write(self) -> str:
        """The place as a line of text."""
        return json.dumps([self.path, self.offset, self.size], ensure_ascii=False)

    @classmethod
    def parse(cls, line: str) -> Place:
        """The place that `write` wrote."""
        return cls(*json.loads(line))

    def length(self) -> int:
        """Bytes of the picture.

        Raises:
            OSError: the file cannot be reached.
        """
        return Path(self.path).stat().st_size if self.size is None else self.size

    def read(self) -> bytes:
        """The bytes.

        Raises:
            OSError: the file cannot be read.
        """
        with Path(self.path).open("rb") as file:
            file.seek(self.offset)
            return file.read() if self.size is None else file.read(self.size)


class Changed(DataError):
    """A picture is no longer what it was when it was looked at: what was noted of it is worth nothing."""


@dataclass(frozen=True, slots=True)
class PictureFiles:
    """A folder of pictures, or a tar of them.

    Attributes:
        source: the folder, or the tar.
        index: of the tar, as `index_tar` writes it; None for a folder.
    """

    source: Path
    index: Path | None = None

    def find(self, media: Media) -> Place | None:
        """The place of a picture: its own path, `<key>.<suffix>`, or the file name of its URL.

        Nothing outside of the folder is ever found, whatever a dump says.
        """
        names = _names(media)
        if self.index is not None:
            return next(
                (place for name in names if (place := _find_member(self.source, self.index, name))), None
            )
        return next((place for name in names if (place := _find_file(self.source, name))), None)


def _names(media: Media) -> Iterator[str]:
    if media.path:
        yield media.path
        return
    yield from (media.key + suffix for suffix in PICTURE_SUFFIXES)
    if media.url:
        try:
            yield PurePosixPath(urlparse(media.url).path).name
        except ValueError:  # a dump may call anything a URL
            return


def _find_file(folder: Path, name: str) -> Place | None:
    if not name or "\0" in name or not _is_below(name, folder):
        return None
    path = os.path.join(folder, name)  # noqa: PTH118  asked for every suffix of every picture: pathlib is slow
    # Nor does it raise for a name that is too long for the file system, or that it cannot spell.
    return Place(path) if os.path.isfile(path) else None  # noqa: PTH113


def _is_below(name: str, folder: Path) -> bool:
    """Whether a name stays in the folder; an absolute one may, if it says so itself."""
    if not name.startswith("/"):
        return ".." not in name.split("/")
    path = PurePosixPath(name)
    return ".." not in path.parts and path.is_relative_to(folder.resolve())


def index_tar(tar: Path, index: Path) -> None:
    """Notes where each file of a tar lies, so that any of them can be read without unpacking.

    Args:
        tar: not compressed.
        index: an SQLite file, replaced.

    Raises:
        DataError: no readable tar, or a compressed one.
    """
    index.unlink(missing_ok=True)
    database = sqlite3.connect(index)
    database.execute(
        "create table member (name blob primary key, offset integer, size integer, whole integer)"
        " without rowid"
    )
    try:
        with tarfile.open(tar, mode="r:") as file:
            database.executemany(_NOTE, _members(file))
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"source.images={tar}: not a readable tar ({error}); a compressed one has to be unpacked, since "
            "its files cannot be reached one by one"
        ) from None
    finally:
        database.commit()
        database.close()


def _members(file: tarfile.TarFile) -> Iterator[tuple[bytes, int, int, bool]]:
    for member in file:
        if member.isreg() and not member.issparse():
            path = PurePosixPath(member.name)
            yield _spelled(path), member.offset_data, member.size, True
            # A dump knows the file's own name, wherever in the tar it lies.
            yield _spelled(PurePosixPath(path.name)), member.offset_data, member.size, False
        # tarfile keeps every member for later, which nobody asks for here.
        file.members = []  # type: ignore[attr-defined]


def _spelled(path: PurePosixPath) -> bytes:
    """A name as it is looked up; in a tar it may be in any encoding."""
    return str(path).encode("utf-8", "surrogatepass")


def _find_member(tar: Path, index: Path, name: str) -> Place | None:
    query = "select offset, size from member where name = ?"
    database = _open(index, index.stat().st_mtime_ns)
    row = database.execute(query, (_spelled(PurePosixPath(name)),)).fetchone()
    return Place(str(tar), *row) if row else None


@lru_cache(maxsize=4)
def _open(index: Path, changed: int) -> sqlite3.Connection:
    """An index; `changed` keeps one that was made anew apart from what it was."""
    return sqlite3.connect(
        f"{index.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
    )
