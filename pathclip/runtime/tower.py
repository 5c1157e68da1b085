"""A tower's ONNX file: compared with the card, in one reading, before a runtime gets it."""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pathclip.errors import ModelFolderError
from pathclip.model_folder import ModelFolder

OUTPUT = "embedding"
# From the tower's input to its raw output [n, dim]; several threads may call it at once.
Tower = Callable[[NDArray[Any]], NDArray[Any]]
# Eight as a protobuf varint, which may be written with idle bytes.
_LENGTH_OF_LOCATION = re.compile(rb"(?:\x08|\x88\x80*\x00)\Z")


def verified_tower(folder: ModelFolder, name: str) -> Path:
    """An ONNX file of a model folder that may be loaded; none of it stays in memory.

    Args:
        folder: an open model folder.
        name: as 'onnx/image_int8.onnx'.

    Raises:
        ModelFolderError: the folder does not have it, it was changed, or it keeps weights in another file.
    """
    file = folder.file(name)
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _check(folder, name, content)
    except (OSError, ValueError):  # missing, or empty
        _check(folder, name, b"")
    return file


def read_tower(folder: ModelFolder, name: str) -> bytes:
    """Content of an ONNX file, for a runtime that would keep the file open; raises as `verified_tower`."""
    content = folder.file(name).read_bytes()
    _check(folder, name, content)
    return content


def _check(folder: ModelFolder, name: str, content: bytes | mmap.mmap) -> None:
    file = folder.file(name)
    if hashlib.sha256(content).hexdigest() != folder.card["files"][name]:
        folder.verified(name)  # which says in its own words what is wrong
        raise ModelFolderError(f"{file}: it changed while it was read; try again")
    if has_external_data(content):
        raise ModelFolderError(
            f"{file}: its weights lie in another file (ONNX external data), refused; save it as one file"
        )


def has_external_data(content: bytes | mmap.mmap) -> bool:
    """Whether a tensor of an ONNX file takes its values from another file, which no hash would cover.

    Such a tensor names the file under the key "location", and protobuf writes a string's length before
    it; so the bytes tell without a parser. A runtime would follow the name: from the folder of the model
    or, for a model handed over as bytes, from the working directory.
    """
    found = content.find(b"location")
    while found >= 0:
        if _LENGTH_OF_LOCATION.search(content, max(0, found - 10), found):
            return True
        found = content.find(b"location", found + 1)
    return False


def check_names(file: Path, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Refuses a tower that is not from `name` to 'embedding'."""
    if list(inputs) != [name] or OUTPUT not in outputs:
        raise ModelFolderError(
            f"{file}: expected '{name}' to '{OUTPUT}', found {list(inputs)} to {list(outputs)}"
        )


def brief(error: BaseException) -> str:
    """The first line of what a runtime says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
