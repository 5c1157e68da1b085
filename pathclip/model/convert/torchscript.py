"""The tensors of a TorchScript archive, without running the program that it holds.

OpenAI publishes CLIP as such archives. `torch.jit.load` would compile their program, and `torch.load` refuses
them. Read here is `data.pkl` alone, which says how modules hold tensors, by a reader that knows a handful of
instructions and calls nothing: what names a class or a function stays a name.
"""

from __future__ import annotations

import contextlib
import math
import pickletools
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pathclip.errors import ModelFolderError
from pathclip.model.foreign_checks import brief

_DATA = "data.pkl"
_MOST_BYTES = 1 << 24  # of data.pkl; CLIP's has a few hundred kilobytes
_MOST_ATTRIBUTES = (
    1 << 18
)  # of all modules, those of a shared one counted wherever it stands; CLIP has 10,000
_MOST_NAME = 512
_DEPTH = 64
_STORAGES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# Modules, tensors, and lists of numbers: what archives of models are made of.
_PARTS = ("__torch__.", "torch._utils._rebuild_", "torch.jit._pickle.", "collections.OrderedDict")
_PUSHED = {
    *("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("NONE", "NEWTRUE", "NEWFALSE"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


@dataclass(slots=True)
class _Named:
    """What a class or function would have given: its name, what it was called with, its attributes."""

    name: str
    arguments: Any = ()
    attributes: dict[str, Any] = field(default_factory=dict)


_MARK = _Named("(")


def is_torchscript(file: Path) -> bool:
    """Whether a file is an archive with a program in it."""
    if not zipfile.is_zipfile(file):
        return False
    with opened_archive(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


@contextlib.contextmanager
def opened_archive(file: Path) -> Iterator[zipfile.ZipFile]:
    """Opens what ends as an archive does.

    Raises:
        ModelFolderError: its list of entries cannot be read; names the file.
    """
    try:
        archive = zipfile.ZipFile(file)
    except Exception as error:  # a damaged list raises as many kinds as it has fields
        raise ModelFolderError(f"{file}: a damaged archive ({brief(error, 150)}); fetch it again") from error
    with archive:
        yield archive


def read_torchscript(file: Path) -> dict[str, Tensor]:
    """The tensors of an archive by the path of their attributes, as `ScriptModule.state_dict` names them.

    Raises:
        ModelFolderError: an archive that is broken or holds more than modules with tensors; names the file.
    """
    try:
        with opened_archive(file) as archive:
            (name,) = (one for one in archive.namelist() if one.split("/", 1)[-1] == _DATA)
            if archive.getinfo(name).file_size > _MOST_BYTES:
                raise ValueError("its data.pkl is larger than any model's")
            top = _read(archive.read(name))
            storages = _Storages(archive, name.removesuffix(_DATA), file.stat().st_size)
            collected = _Collected(storages)
            collected.add(top, "", _DEPTH)
        if not collected.tensors:
            raise ValueError("it holds none")
        return collected.tensors
    except ModelFolderError:
        raise
    except Exception as error:  # damaged bytes raise as many kinds as there are steps
        raise ModelFolderError(
            f"{file}: a TorchScript archive whose tensors cannot be taken out ({brief(error, 200)}); take "
            "the same weights as safetensors, in the form of open_clip or of Hugging Face"
        ) from error


def _read(program: bytes) -> Any:
    """What a data.pkl describes, in dictionaries, lists, tuples and `_Named`; no name in it is looked up.

    Raises:
        ValueError: an instruction that no archive of a model has.
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for instruction, argument, _ in pickletools.genops(program):
        name = instruction.name
        if name == "STOP":
            return stack.pop()
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in _PUSHED:
            stack.append(_CONSTANTS.get(name, argument))
        elif name != "PROTO":
            _apply(name, argument, stack)
    raise ValueError("it has no end")


def _apply(name: str, argument: Any, stack: list[Any]) -> None:
    match name:
        case "GLOBAL":
            stack.append(_Named(argument.replace(" ", ".")))
        case "MARK":
            stack.append(_MARK)
        case "EMPTY_DICT":
            stack.append({})
        case "EMPTY_LIST":
            stack.append([])
        case "EMPTY_TUPLE":
            stack.append(())
        case "TUPLE":
            stack.append(tuple(_since_mark(stack)))
        case "TUPLE1" | "TUPLE2" | "TUPLE3":
            n = int(name[-1])
            stack[-n:] = [tuple(stack[-n:])]
        case "APPEND":
            one = stack.pop()
            _of(stack[-1], list).append(one)
        case "APPENDS":
            several = _since_mark(stack)
            _of(stack[-1], list).extend(several)
        case "SETITEM":
            value, key = stack.pop(), stack.pop()
            _of(stack[-1], dict)[_of(key, str)] = value
        case "SETITEMS":
            items = _since_mark(stack)
            into = _of(stack[-1], dict)
            into.update({_of(key, str): value for key, value in zip(items[::2], items[1::2], strict=True)})
        case "NEWOBJ" | "REDUCE":
            arguments, what = stack.pop(), _of(stack.pop(), _Named).name
            if not what.startswith(_PARTS):
                raise ValueError(f"it names {what}, which is no part of a model")
            stack.append(_Named(what, arguments))
        case "BINPERSID":
            stack.append(_Named("storage", stack.pop()))
        case "BUILD":
            attributes = stack.pop()
            _of(stack[-1], _Named).attributes = _of(attributes, dict)
        case _:
            raise ValueError(f"the instruction {name} is not known here")


def _since_mark(stack: list[Any]) -> list[Any]:
    for back in range(len(stack) - 1, -1, -1):
        if stack[back] is _MARK:
            found = stack[back + 1 :]
            del stack[back:]
            return found
    raise ValueError("a mark is missing")


def _of(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"a {type(value).__name__} where a {kind.__name__.lstrip('_').lower()} is due")
    return value


class _Storages:
    """The storages of an archive, each read once."""

    def __init__(self, archive: zipfile.ZipFile, folder: str, most: int):
        """Args: the archive, the folder in it, and the bytes of all storages together at most."""
        self._archive, self._folder, self._left = archive, folder, most
        self._read: dict[str, Tensor] = {}

    def tensor(self, described: _Named) -> Tensor:
        """A view of its storage."""
        storage, offset, shape, stride = described.arguments[:4]
        _, kind, key, _, count = _of(storage, _Named).arguments
        dtype = _STORAGES[_of(kind, _Named).name.rpartition(".")[2]]
        if math.prod(_of(one, int) for one in shape) > count:
            raise ValueError(f"storage {key} has {count} numbers, too few for {list(shape)}")
        content = self._content(str(key), count * dtype.itemsize)
        if not len(content):
            return torch.empty(tuple(shape), dtype=dtype)
        # torch itself refuses strides that would leave the storage.
        return content.view(dtype).as_strided(tuple(shape), tuple(stride), offset)

    def _content(self, key: str, size: int) -> Tensor:
        """uint8 [size]."""
        if key not in self._read:
            entry = self._archive.getinfo(f"{self._folder}data/{key}")
            self._left -= entry.file_size
            if entry.compress_type != zipfile.ZIP_STORED or self._left < 0:
                raise ValueError(f"storage {key} is compressed, or larger than the archive")
            content = bytearray(self._archive.read(entry))
            self._read[key] = torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0)
        found = self._read[key]
        if len(found) != size:
            raise ValueError(f"storage {key} has {len(found)} bytes, not {size}")
        return found


class _Collected:
    """Tensors by the path of their attributes."""

    def __init__(self, storages: _Storages):
        self.tensors: dict[str, Tensor] = {}
        self._storages = storages
        self._left = _MOST_ATTRIBUTES

    def add(self, node: Any, prefix: str, depth: int) -> None:
        """Adds the tensors among a module's attributes, and those of the modules in it."""
        attributes = _of(node, _Named).attributes
        # Modules may be shared, so that a few bytes can describe a tree without end.
        self._left -= len(attributes)
        if depth == 0 or self._left < 0:
            raise ValueError("more modules, or nested more deeply, than any model")
        for name, value in attributes.items():
            if not isinstance(value, _Named):
                continue
            if len(prefix) + len(name) > _MOST_NAME:
                raise ValueError("a name longer than any model's")
            if value.name.startswith("torch._utils._rebuild_tensor"):
                self.tensors[prefix + name] = self._storages.tensor(value)
            elif value.name.startswith("torch._utils._rebuild_parameter"):
                self.tensors[prefix + name] = self._storages.tensor(_of(value.arguments[0], _Named))
            elif value.attributes:
                self.add(value, f"{prefix}{name}.", depth - 1)
