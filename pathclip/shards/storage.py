"""Bytes of shards, from local files or from an object store by an fsspec address such as `s3://bucket/train`.

Credentials and endpoints come from where each store's own package looks for them: `AWS_ENDPOINT_URL` and
`~/.aws` for s3, say. A dropped connection is tried again; what no second try would mend is one line.
A file system is asked for at each use and never kept: a worker process that is forked must open its own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from pathclip.errors import DataError

WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before each further try
SCAN_BYTES = 4 * 1024 * 1024  # held of a remote shard while it is looked through
MAX_JSON_BYTES = 256 * 1024 * 1024

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
_MENDS_NOTHING = (FileNotFoundError, PermissionError, ImportError, ValueError, TypeError)
_Result = TypeVar("_Result")


def is_address(folder: str | Path) -> bool:
    """Whether a folder or file lies in an object store."""
    return _ADDRESS.match(str(folder)) is not None


def folder_name(folder: str | Path) -> str:
    """One spelling for a folder, whether it was given with or without a slash at the end."""
    return str(folder).rstrip("/") if is_address(folder) else str(Path(folder))


def join(folder: str | Path, name: str) -> str:
    """Path or address of a file in a folder."""
    return f"{folder_name(folder)}/{name}" if is_address(folder) else str(Path(folder) / name)


def read_json_bytes(file: str) -> bytes | None:
    """A small file as a whole; None if there is none.

    Raises:
        DataError: the store cannot be reached or refuses, or the file has more than 256 MiB.
    """
    if not is_address(file):
        return Path(file).read_bytes() if Path(file).is_file() else None
    try:
        size = file_size(file)
    except _Missing:
        return None
    if size > MAX_JSON_BYTES:
        raise DataError(f"{file}: has {size} bytes, more than 256 MiB; this is no {Path(file).name}")
    return read_ranges([(file, 0, size)])[0] if size else b""


def list_names(folder: str) -> set[str]:
    """Names of the files of a folder at an address.

    Raises:
        DataError: the store cannot be reached or refuses.
    """
    files = _tried(folder, lambda system, path: system.ls(path, detail=False, refresh=True))
    return {str(file).rpartition("/")[2] for file in files}


def file_size(file: str) -> int:
    """Bytes of a file at an address.

    Raises:
        DataError: there is none, or the store cannot be reached or refuses.
    """
    return int(_tried(file, lambda system, path: system.info(path, refresh=True)["size"]))


def read_ranges(ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
    """Bytes [start, end) of each (file, start, end); those of an object store at the same time.

    Raises:
        DataError: a file is gone, shorter than that, or its store cannot be reached.
    """
    results: list[bytes] = [b""] * len(ranges)
    remote: dict[str, list[int]] = {}
    for place, (file, start, end) in enumerate(ranges):
        if is_address(file):
            # By store: the same protocol may lead to several hosts.
            remote.setdefault("/".join(file.split("/", 3)[:3]), []).append(place)
        else:
            results[place] = _read_local(file, start, end)
    for places in remote.values():
        _read_remote(ranges, places, results)
    return results


@contextlib.contextmanager
def open_for_scan(file: str) -> Iterator[tuple[IO[bytes], int]]:
    """A file to read from front to back with steps over what is not wanted, and its length in bytes.

    Of a file in an object store, a bounded part is held.

    Raises:
        DataError: there is none; while reading, the store cannot be reached.
    """
    if is_address(file):
        size = file_size(file)
        yield io.BufferedReader(_Ranges(file, size), SCAN_BYTES), size
        return
    try:
        # What is stepped over is most of it: a buffer would read that too.
        with Path(file).open("rb", buffering=0) as stream:
            yield stream, os.fstat(stream.fileno()).st_size
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None


class _Missing(DataError):
    """No such file, or no such bucket."""


class _Ranges(io.RawIOBase):
    """A file in an object store, read range by range: there is no connection that could break in between."""

    def __init__(self, file: str, size: int):
        super().__init__()
        self._file, self._size, self._place = file, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        end = min(self._place + len(buffer), self._size)
        if end <= self._place:
            return 0
        (content,) = read_ranges([(self._file, self._place, end)])
        buffer[: len(content)] = content
        self._place = end
        return len(content)


def _read_local(file: str, start: int, end: int) -> bytes:
    try:
        with Path(file).open("rb", buffering=0) as stream:
            stream.seek(start)
            content = stream.read(end - start)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    if len(content) != end - start:
        raise DataError(f"{file}: became shorter while it was read; write the shards again")
    return content


def _read_remote(ranges: Sequence[tuple[str, int, int]], places: list[int], results: list[bytes]) -> None:
    """Fills in results; a further try asks only for what the ones before did not bring."""
    left = list(places)

    def fetch(system: Any, _: str) -> None:
        files = [system._strip_protocol(ranges[place][0]) for place in left]
        starts, ends = [ranges[place][1] for place in left], [ranges[place][2] for place in left]
        fault: BaseException | None = None
        missing = []
        for place, content in zip(
            left, system.cat_ranges(files, starts, ends, on_error="return"), strict=True
        ):
            file, start, end = ranges[place]
            if isinstance(content, bytes) and len(content) == end - start:
                results[place] = content
                continue
            missing.append(place)
            if isinstance(content, BaseException):
                fault = content if fault is None or isinstance(content, _MENDS_NOTHING) else fault
            else:
                fault = fault or ConnectionError(f"{len(content)} of {end - start} bytes of {file}")
        left[:] = missing
        if fault is not None:
            raise fault

    _tried(ranges[places[0]][0], fetch)


def _tried(address: str, action: Callable[[Any, str], _Result]) -> _Result:
    """Does something with the file system of an address, again if the connection drops.

    Raises:
        DataError: no package for it, no such file, no access, or no connection after the last try.
    """
    for wait in (*WAITS, None):
        system, path = open_store(address)
        try:
            return action(system, path)
        # Every store's package has exceptions of its own for a connection that dropped.
        except Exception as error:
            if isinstance(error, FileNotFoundError):
                raise _Missing(f"{address}: not there ({_reason(error)})") from None
            if isinstance(error, PermissionError) or "credentials" in type(error).__name__.lower():
                raise DataError(
                    f"{address}: no access ({_reason(error)}); check the name of the bucket and the "
                    f"credentials{_where_credentials_lie(address)}"
                ) from None
            if isinstance(error, _MENDS_NOTHING):
                raise DataError(f"{address}: cannot be read ({_reason(error)})") from None
            if wait is None:
                raise DataError(
                    f"{address}: no connection after {len(WAITS) + 1} tries ({_reason(error)}); check the "
                    "network and the address of the store, then go on with ckpt=last"
                ) from None
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def open_store(address: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the path in it.

    Raises:
        DataError: no object store, a package is missing, or the store cannot be opened.
    """
    found = _ADDRESS.match(address)
    protocol = found[1] if found else ""
    try:
        from fsspec.core import url_to_fs
        from fsspec.registry import known_implementations, registry
    except ModuleNotFoundError:
        raise DataError(f"{address}: object stores need a package: pip install fsspec") from None
    known = known_implementations.get(protocol)
    if "::" in address or (known is None and protocol not in registry):
        raise DataError(
            f"{address}: '{protocol}' is no object store; use a folder, or s3://, gs:// or another"
        )
    if known is not None and protocol not in registry:
        package = str(known["class"]).split(".")[0]
        if importlib.util.find_spec(package) is None:
            raise DataError(f"{address}: {protocol}:// needs a package: pip install {package}")
    try:
        system, path = url_to_fs(address)
    except ImportError as error:
        raise DataError(f"{address}: {protocol}:// needs a package: {_reason(error)}") from None
    except Exception as error:  # what a store's package makes of settings that are wrong
        raise DataError(f"{address}: the store cannot be opened ({_reason(error)})") from None
    return system, str(path)


def _where_credentials_lie(address: str) -> str:
    if address.startswith(("s3://", "s3a://")):
        return " (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws)"
    if address.startswith(("gs://", "gcs://")):
        return " (GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`)"
    return ""


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
