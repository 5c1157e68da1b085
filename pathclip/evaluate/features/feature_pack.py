"""One file of cached features: written once under a random name, never changed, believed only if whole.

    magic line · SHA-256 of all that follows · length of the header · header (JSON) · digests · rows

Plain numbers of a stated type, so that reading one runs no code. The header repeats the key, so that a file
which somebody moves to another folder is not taken for what it is not.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathclip import atomic

MAGIC = b"pathclip features 1\n"
SUFFIX = ".pack"
DIGEST = np.dtype("S32")  # compared as bytes of one length, so that a zero at the end changes nothing
DTYPES = ("<f4", "<f8", "<u8")
MAX_HEADER = 1 << 20
_LENGTH = struct.Struct("<I")
_START = len(MAGIC) + hashlib.sha256().digest_size


class PackError(Exception):
    """The file is no whole pack of this key; says why."""


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack whose content was compared with its checksum.

    Attributes:
        path: the file.
        digests: SHA-256 of the pictures' bytes, ascending, `DIGEST` [n].
        order: row in the file of each, int64 [n].
        dtype: of the rows, one of `DTYPES`.
        width: values per row.
        offset: of the first row in the file, in bytes.
        size: of the file, in bytes.
        written: when, in nanoseconds.
    """

    path: Path
    digests: NDArray[np.bytes_]
    order: NDArray[np.int64]
    dtype: str
    width: int
    offset: int
    size: int
    written: int

    def find(self, digests: NDArray[np.bytes_]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Which digests it has, and at which row of the file; the row of one that it lacks means nothing."""
        place = np.minimum(np.searchsorted(self.digests, digests), len(self.digests) - 1)
        return self.digests[place] == digests, self.order[place]

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.generic]:
        """The rows with these numbers, [n, width].

        Raises:
            OSError: the file is gone or cannot be read.
            PackError: it has not the size any more that it was checked with.
        """
        step = self.width * np.dtype(self.dtype).itemsize
        found = np.empty((len(rows), self.width), self.dtype)
        with self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != self.size:
                raise PackError("its size has changed")
            order = np.argsort(rows, kind="stable")
            # Pictures come back in the order they were kept in, so most reads are of many rows.
            for run in np.split(order, np.flatnonzero(np.diff(rows[order]) != 1) + 1):
                if not len(run):
                    continue
                file.seek(self.offset + int(rows[run[0]]) * step)
                content = file.read(len(run) * step)
                if len(content) != len(run) * step:
                    raise PackError("it ends too early")
                found[run] = np.frombuffer(content, self.dtype).reshape(len(run), self.width)
        return found


def write_pack(folder: Path, key: str, digests: NDArray[np.bytes_], rows: NDArray[np.generic]) -> Path:
    """Writes a pack under a new random name, whole or not at all.

    Args:
        folder: where to.
        key: of the shelf, canonical JSON.
        digests: `DIGEST` [n], none twice.
        rows: [n, width].

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    path = folder / f"{secrets.token_hex(16)}{SUFFIX}"
    header = {"key": key, "dtype": rows.dtype.str, "width": rows.shape[1], "rows": len(rows)}
    text = json.dumps(header, sort_keys=True).encode()
    parts = [_LENGTH.pack(len(text)), text, digests.tobytes(), np.ascontiguousarray(rows).tobytes()]
    checksum = hashlib.sha256()
    for part in parts:
        checksum.update(part)
    atomic.write_bytes(path, b"".join([MAGIC, checksum.digest(), *parts]))
    return path


def open_pack(path: Path, key: str, dtype: str, width: int) -> Pack:
    """Reads a file once from end to end, and believes it if its checksum, key, type and length are right.

    Raises:
        FileNotFoundError: it is gone: merged into another, or thrown out.
        OSError: it cannot be read.
        PackError: truncated, altered, or of something else.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        start = file.read(_START)
        if len(start) < _START or not start.startswith(MAGIC):
            raise PackError("it does not begin like one")
        checksum = hashlib.sha256()

        def read(count: int) -> bytes:
            content = file.read(count)
            if len(content) != count:
                raise PackError("it ends too early")
            checksum.update(content)
            return content

        length = _LENGTH.unpack(read(_LENGTH.size))[0]
        if length > MAX_HEADER:
            raise PackError("its header is too long")
        text = read(length)
        # Nothing of the header is believed before the sum is right, but its own sizes decide what to read.
        count = _rows(text, key, dtype, width)
        offset = _START + _LENGTH.size + length + count * DIGEST.itemsize
        if status.st_size != offset + count * width * np.dtype(dtype).itemsize:
            raise PackError("it has not the length that it states")
        digests = np.frombuffer(read(count * DIGEST.itemsize), DIGEST)
        while piece := file.read(1 << 20):
            checksum.update(piece)
        if checksum.digest() != start[len(MAGIC) :]:
            raise PackError("its checksum is wrong")
    order = np.argsort(digests, kind="stable")
    return Pack(path, digests[order], order, dtype, width, offset, status.st_size, status.st_mtime_ns)


def _rows(text: bytes, key: str, dtype: str, width: int) -> int:
    """How many rows the header states, if it is one of this key and form."""
    try:
        header = json.loads(text)
    except ValueError:
        raise PackError("its header is not readable") from None
    if not isinstance(header, dict) or header.get("key") != key:
        raise PackError("it belongs to another key")
    if header.get("dtype") != dtype or header.get("width") != width:
        raise PackError("its rows have another form")
    count = header.get("rows")
    if not isinstance(count, int) or isinstance(count, bool) or not 0 < count < 1 << 32:
        raise PackError("its number of rows is impossible")
    return count
