"""Opens dump files, decompressed where their names say so: gzip and Zstandard, in bounded memory."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

from pathclip.errors import ConfigError

COMPRESSED = (".gz", ".zst")
# What `zstd` itself allows by default; the window lies in memory.
MAX_WINDOW_BYTES = 128 * 1024 * 1024
_BUFFER = 1 << 20
# A block of 4 bytes may hold 128 KiB: so little is taken from a compressed file at once that even then
# 32 MiB come out.
_ZSTD_CHUNK = 1 << 10


class BrokenStream(Exception):
    """A compressed file breaks off or is damaged."""


# What reading from `open_dump_file` may raise where a compressed file breaks off.
BROKEN = (BrokenStream, EOFError, zlib.error, gzip.BadGzipFile)


def plain_name(file: Path) -> str:
    """The file's name in lower case, without the suffix of its compression."""
    name = file.name.lower()
    return name.removesuffix(next((suffix for suffix in COMPRESSED if name.endswith(suffix)), ""))


class _ZstdStream(io.RawIOBase):
    """Reads Zstandard, frame after frame; unlike the library's own reader it tells where one breaks off."""

    def __init__(self, file: Path):
        import zstandard

        self._file = file.open("rb")
        self._error = zstandard.ZstdError
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        self._frame: Any = None
        self._found = memoryview(b"")

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        while not self._found and self._feed():
            pass
        count = min(len(buffer), len(self._found))
        buffer[:count] = self._found[:count]
        self._found = self._found[count:]
        return count

    def _feed(self) -> bool:
        rest = self._frame.unused_data if self._frame is not None and self._frame.eof else b""
        content = rest or self._file.read(_ZSTD_CHUNK)
        if not content:
            if self._frame is not None and not self._frame.eof:
                raise BrokenStream
            return False
        if self._frame is None or self._frame.eof:
            self._frame = self._decompressor.decompressobj()
        try:
            self._found = memoryview(self._frame.decompress(content))
        except self._error as error:
            raise BrokenStream from error
        return True


def open_dump_file(file: Path) -> BinaryIO:
    """Opens a file to be read, decompressed where its name says that it is compressed.

    Raises:
        ConfigError: `.zst` without the package that reads it.
    """
    name = file.name.lower()
    if name.endswith(".gz"):
        return cast(BinaryIO, gzip.open(file, "rb"))
    if name.endswith(".zst"):
        try:
            return cast(BinaryIO, io.BufferedReader(_ZstdStream(file), _BUFFER))
        except ModuleNotFoundError:
            raise ConfigError(f"{file} needs the package 'zstandard': pip install zstandard") from None
    return file.open("rb")
