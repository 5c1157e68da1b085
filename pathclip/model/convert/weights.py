"""Reads tensors by name from files of weights, whatever wrote them; nothing in a file is run."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pathclip.errors import ModelFolderError
from pathclip.model.convert.openai import NUMBERS
from pathclip.model.convert.torchscript import is_torchscript, opened_archive, read_torchscript
from pathclip.model.foreign_checks import MAX_WEIGHTS, brief

_BEGINNINGS = (b"PK\x03\x04", b"\x80")  # of archives and of bare pickles, as torch writes them
_SHARED = 2  # tensors of so many times a file's size, as some may share their numbers
# Torch's words for what it would have to run.
_MORE_THAN_WEIGHTS = re.compile(r"Unsupported (global|class)|weights_only=True|Trying to ")


def read_weights(files: Sequence[Path]) -> dict[str, Tensor]:
    """The tensors of a model, which may lie in several files.

    Safetensors, files of `torch.save` as far as `weights_only` reads them, and OpenAI's TorchScript archives.
    What a training wraps around the tensors ('state_dict', names that begin with 'module.') is taken off.

    Raises:
        ModelFolderError: a file that cannot be read so, or holds more than tensors; names it.
    """
    found: dict[str, Tensor] = {}
    for file in files:
        found |= _read(file)
    return found


def load_into_open_clip(model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Loads tensors into a module of open_clip, also under names of its earlier versions.

    Position embeddings of another size are refused, which open_clip would interpolate: with them a model
    answers otherwise than the one that was saved.

    Raises:
        RuntimeError: tensors that are missing, unknown or of another shape.
    """
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    state = convert_state_dict(model, {k: v for k, v in tensors.items() if k not in NUMBERS})
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):
        own = getattr(model, name, None)
        if name in state and own is not None:
            state[name] = state[name].reshape(own.shape)
    if getattr(model, "logit_bias", None) is not None and "logit_bias" not in state:
        state["logit_bias"] = torch.zeros_like(model.logit_bias)
    # Transformers kept these numbers in the weights until 4.31.
    state.pop("text.transformer.embeddings.position_ids", None)
    for name, own in model.state_dict().items():
        if name in state and state[name].shape != own.shape:
            shapes = f"{list(state[name].shape)} in the weights, but {list(own.shape)} in the architecture"
            raise RuntimeError(f"{name} is {shapes}")
    model.load_state_dict(state, strict=True)


def _read(file: Path) -> dict[str, Tensor]:
    if file.stat().st_size > MAX_WEIGHTS:
        raise ModelFolderError(f"{file}: larger than {MAX_WEIGHTS >> 30} GiB, refused")
    if file.suffix == ".safetensors":
        return _safetensors(file)
    found = read_torchscript(file) if is_torchscript(file) else _pickled_tensors(file)
    _refuse_more_than_the_file(found, file)
    return found


def _refuse_more_than_the_file(tensors: Mapping[str, Tensor], file: Path) -> None:
    """A few bytes can describe a tensor that would fill all memory: one number that stands for many."""
    total = 0
    for name, value in tensors.items():
        plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
        size = value.numel() * value.element_size()
        if not plain or size > value.untyped_storage().nbytes():
            raise ModelFolderError(f"{file}: {name!r} is no plain tensor with all its numbers in the file")
        total += size
    if total > _SHARED * file.stat().st_size:
        raise ModelFolderError(f"{file}: its tensors are larger than the file, refused")


def _pickled_tensors(file: Path) -> dict[str, Tensor]:
    held = _unpickled(file)
    inner = held.get("state_dict", held)
    if not isinstance(inner, Mapping) or not inner:
        raise ModelFolderError(f"{file}: no weights in it")
    names = [str(name) for name in inner]
    prefix = "module." if all(name.startswith("module.") for name in names) else ""
    for name, value in inner.items():
        if not isinstance(value, Tensor):
            raise ModelFolderError(f"{file}: {name!r} is a {type(value).__name__} and no tensor")
    return {str(name).removeprefix(prefix): value for name, value in inner.items()}


def _refuse_compressed(file: Path) -> None:
    """Torch stores as it is; what is compressed can become a thousand times as much."""
    if zipfile.is_zipfile(file):
        with opened_archive(file) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > file.stat().st_size:
                raise ModelFolderError(f"{file}: its entries are larger than the file, refused")


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFolderError(
            f"{file}: no safetensors, or cut off ({brief(error, 150)}); fetch it again"
        ) from error


def _unpickled(file: Path) -> Mapping[str, Any]:
    with file.open("rb") as opened:
        if not opened.read(4).startswith(_BEGINNINGS):
            raise ModelFolderError(f"{file}: no weights: neither safetensors nor saved by torch")
    _refuse_compressed(file)
    try:
        held = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        if _MORE_THAN_WEIGHTS.search(" ".join(str(error).split()).rpartition("WeightsUnpickler error")[2]):
            raise ModelFolderError(
                f"{file}: holds more than weights, and what it names besides could run a program; refused. "
                "Take the same weights as safetensors"
            ) from error
        reason = str(error).rpartition("WeightsUnpickler error:")[2].split("\n")[0]
        said = brief(ValueError(reason), 150) if reason.strip() else type(error).__name__
        raise ModelFolderError(
            f"{file}: no weights of torch, damaged or cut off ({said}); fetch it again"
        ) from error
    if not isinstance(held, Mapping):
        raise ModelFolderError(f"{file}: holds a {type(held).__name__} and no weights by name")
    return held
