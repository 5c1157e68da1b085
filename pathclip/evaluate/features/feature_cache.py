"""Features of pictures from earlier runs, found by what made them and by the bytes they were made of.

A folder of shelves, one for each key (model, precision, preprocess, colours …), each holding packs (see
`feature_pack`). A pack is written once, under a random name, by a rename; so any number of processes may read
and write at once, on any file system, without locks. What two of them wrote twice is found once, and falls
together when packs are merged: a merged pack is in place and read back before those it is made of go.

Nothing here can fail a run: a damaged pack is passed over, and where the folder cannot be written to, the run
goes on and keeps nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import ConfigError
from pathclip.evaluate.features.feature_pack import (
    DIGEST,
    DTYPES,
    SUFFIX,
    Pack,
    PackError,
    open_pack,
    write_pack,
)

LIMIT = 20.0  # GiB
SMALL = 32 << 20  # bytes below which packs are merged …
MANY = 16  # … where there are more than this …
MERGED = 256 << 20  # … into packs of at most about this size
TRIES = 8  # of looking again where other processes merge meanwhile
ABANDONED = 24 * 3600  # seconds after which the half-written file of a killed process is deleted


class FeatureCache:
    """A folder of features.

    Args:
        folder: made if it is not there.
        limit: GiB that all packs together may take; the oldest go first.

    Raises:
        ConfigError: a limit that is not above 0.
    """

    def __init__(self, folder: str | Path, limit: float = LIMIT) -> None:
        if not limit > 0:
            raise ConfigError(f"cache_limit: {limit} GiB holds nothing; cache=null turns the cache off")
        self.folder = Path(folder).expanduser()
        self.limit = int(limit * (1 << 30))
        self.writes = True
        self._said: set[str] = set()
        with self.writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()

    def shelf(self, key: Mapping[str, Any], width: int, dtype: str = "<f4") -> Shelf:
        """The rows of one kind.

        Args:
            key: everything the rows depend on beside the pictures' bytes; plain JSON.
            width: values per row.
            dtype: '<f4', '<f8' or '<u8'.
        """
        return Shelf(self, json.dumps(key, sort_keys=True, ensure_ascii=True), width, dtype)

    def trim(self) -> None:
        """Deletes the oldest packs until all together keep to the limit."""
        packs = []
        for path in self.folder.glob(f"*/*{SUFFIX}"):
            with suppress(FileNotFoundError):  # another process was faster
                status = path.stat()
                packs.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in packs)
        for _, size, path in sorted(packs, key=lambda pack: pack[0]):
            if total <= self.limit:
                return
            path.unlink(missing_ok=True)
            total -= size

    def say(self, line: str) -> None:
        """One line on stderr, once."""
        if line not in self._said:
            self._said.add(line)
            print(line, file=sys.stderr, flush=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The block may fail to write: that turns writing off, with one line."""
        try:
            yield
        except OSError as error:
            if self.writes:
                self.say(f"cache {self.folder}: {error.strerror or error}; this run keeps no features in it")
            self.writes = False

    def _sweep(self) -> None:
        for path in self.folder.glob("*/.*.tmp"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()


class Shelf:
    """Rows of one key by the SHA-256 of the pictures' bytes; made by `FeatureCache.shelf`.

    Several threads may use one.

    Attributes:
        witness: digest and row [1, width] that every pack written from now on holds too, so that what is left
            of a trimmed shelf still tells what it was filled by.
    """

    def __init__(self, cache: FeatureCache, key: str, width: int, dtype: str) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype!r} is none of {DTYPES}")
        self._cache, self._key, self._width, self._dtype = cache, key, width, dtype
        self._folder = cache.folder / hashlib.sha256(key.encode()).hexdigest()[:32]
        self.witness: tuple[str, NDArray[Any]] | None = None
        self._packs: dict[str, Pack] = {}
        self._passed_over: set[str] = set()
        self._lock = threading.Lock()
        with self._lock:
            self._refresh()
            if cache.writes:
                self._merge()

    @property
    def empty(self) -> bool:
        """Whether it holds no row."""
        return not self._packs

    def get(self, digests: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        """Looks pictures up.

        Args:
            digests: SHA-256 of their bytes, in hex.

        Returns:
            Which are there, bool [n], and their rows [n, width]; the row of one that is not is zero.
        """
        wanted = _binary(digests)
        found = np.zeros(len(wanted), bool)
        rows = np.zeros((len(wanted), self._width), self._dtype)
        with self._lock:
            for attempt in range(TRIES):
                gone = False
                for name, pack in list(self._packs.items()):
                    open_ones = np.flatnonzero(~found)
                    has, numbers = pack.find(wanted[open_ones])
                    if not has.any():
                        continue
                    try:
                        rows[open_ones[has]] = pack.read(numbers[has])
                        found[open_ones[has]] = True
                    except OSError:  # merged or thrown out by another process meanwhile
                        del self._packs[name]
                        gone = True
                    except PackError as error:
                        self._pass_over(pack.path, error)
                if not gone or attempt == TRIES - 1:
                    break
                self._refresh()
        return found, rows

    def add(self, digests: Sequence[str], rows: NDArray[Any]) -> None:
        """Keeps rows for later runs, as one pack.

        Args:
            digests: SHA-256 of the pictures' bytes, in hex; what is there already is not written again.
            rows: [n, width].

        Raises:
            ValueError: rows of another form, or with NaN.
        """
        if rows.shape != (len(digests), self._width) or rows.dtype != np.dtype(self._dtype):
            raise ValueError(f"expected {self._dtype} [{len(digests)}, {self._width}]")
        if rows.dtype.kind == "f" and not np.isfinite(rows).all():
            raise ValueError("what is not a number is not kept")
        if not self._cache.writes:
            return
        names, first = np.unique(_binary(digests), return_index=True)
        with self._lock, self._cache.writing():
            there = np.zeros(len(names), bool)
            for pack in self._packs.values():
                there |= pack.find(names)[0]
            first = np.sort(first[~there])  # in the order they will be asked for
            if len(first):
                kept, values = self._with_witness(_binary(digests)[first], rows[first])
                self._open(write_pack(self._folder, self._key, kept, values))
                self._cache.trim()

    def _with_witness(
        self, digests: NDArray[np.bytes_], rows: NDArray[Any]
    ) -> tuple[NDArray[np.bytes_], NDArray[Any]]:
        if self.witness is None:
            return digests, rows
        own, row = _binary([self.witness[0]]), self.witness[1]
        if (digests == own).any():
            return digests, rows
        return np.concatenate([own, digests]), np.concatenate([row, rows])

    def _refresh(self) -> None:
        """Opens packs that are new and forgets those that are gone."""
        for _ in range(TRIES):
            names = self._listed()
            for name in [*self._packs]:
                if name not in names:
                    del self._packs[name]
            new = sorted(names - {*self._packs} - self._passed_over)
            opened = [self._open(self._folder / name) for name in new]
            # One that went between listing and opening was merged into one that the listing lacks.
            if all(pack or name in self._passed_over for name, pack in zip(new, opened, strict=True)):
                return

    def _listed(self) -> set[str]:
        """Names of the packs. A listing may miss a merged pack that came while it ran: two must agree."""
        before: set[str] | None = None
        for _ in range(5):
            try:
                names = {path.name for path in self._folder.iterdir() if path.suffix == SUFFIX}
            except OSError:  # not there yet, or not readable: nothing is known
                return set()
            if names == before:
                break
            before = names
        return names

    def _open(self, path: Path) -> Pack | None:
        try:
            self._packs[path.name] = open_pack(path, self._key, self._dtype, self._width)
        except FileNotFoundError:
            return None
        except (PackError, OSError) as error:
            self._pass_over(path, error)
            return None
        return self._packs[path.name]

    def _pass_over(self, path: Path, error: Exception) -> None:
        self._packs.pop(path.name, None)
        self._passed_over.add(path.name)
        reason = error.strerror if isinstance(error, OSError) else error
        self._cache.say(f"warning: {path}: damaged ({reason}), passed over; it may be deleted")

    def _merge(self) -> None:
        """Makes one pack of many small ones, each row once."""
        small = sorted((p for p in self._packs.values() if p.size < SMALL), key=lambda p: p.written)
        if len(small) <= MANY:
            return
        taken, total = [], 0
        for pack in small:
            if total + pack.size > MERGED:
                break
            taken.append(pack)
            total += pack.size
        with self._cache.writing():
            try:
                names = np.concatenate([pack.digests[np.argsort(pack.order)] for pack in taken])
                rows = np.concatenate([pack.read(np.arange(len(pack.order))) for pack in taken])
            except (FileNotFoundError, PackError):  # another process merges them: it may have them
                self._refresh()
                return
            first = np.sort(np.unique(names, return_index=True)[1])
            merged = write_pack(self._folder, self._key, names[first], rows[first])
            os.utime(merged, ns=(taken[-1].written, taken[-1].written))  # no younger than what is in it
            if self._open(merged) is None:
                return
            for pack in taken:
                pack.path.unlink(missing_ok=True)
                self._packs.pop(pack.path.name, None)


def open_cache(folder: str | Path | None, limit: float = LIMIT) -> FeatureCache | None:
    """The cache of a run's settings: None where they name no folder."""
    return FeatureCache(folder, limit) if folder else None


def _binary(digests: Sequence[str]) -> NDArray[np.bytes_]:
    return np.frombuffer(bytes.fromhex("".join(digests)), DIGEST)
