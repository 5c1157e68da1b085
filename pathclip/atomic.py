"""Writes that a kill cannot leave half done: under a temporary name first, which is then renamed.

A file takes one rename, so its readers see the old one or the new one. A folder that replaces another takes
two, so a kill may leave neither under its name; see `staged_folder`.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to `path` so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files for the owner alone; a data set is for the group too.
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes JSON with sorted keys, so that equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Yields a new file's path beside `path` that takes its place when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    staging = Path(name)
    try:
        yield staging
        with staging.open("rb") as file:
            os.fsync(file.fileno())
        staging.chmod(0o644)
        staging.replace(path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yields a new folder beside `target` that takes its place when the block ends well.

    An earlier `target` is replaced whole; if the block or the replacing raises, it stays as it was.

    A kill leaves a hidden `.<name>.*.tmp`, which may be deleted. A kill between the two renames that replace
    an earlier folder leaves none under the name of `target`; the earlier one then lies in
    `.<name>.*.old/<name>`, and the next call for the same `target` puts it back first.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _restore(target)
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
    staging.chmod(0o755)
    try:
        yield staging
        if target.exists():
            _exchange(staging, target)
        else:
            staging.replace(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _exchange(staging: Path, target: Path) -> None:
    """Puts `staging` in the place of `target` and deletes the latter, or leaves it where it was."""
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".old"))
    earlier = aside / target.name
    try:
        target.replace(earlier)
        staging.replace(target)
    except BaseException:
        if not target.exists():
            earlier.replace(target)
        raise
    finally:
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)


def _restore(target: Path) -> None:
    """Puts back what a kill between two renames left aside; of several none, as none is surely the last."""
    name = glob.escape(target.name)
    left = [] if target.exists() else list(target.parent.glob(f".{name}.*.old/{name}"))
    if len(left) == 1:
        left[0].replace(target)
        left[0].parent.rmdir()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes in hex, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
