"""Reads tensors by name from files of weights, whatever wrote them; nothing in a file is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pathclip.errors import ModelFolderError
from pathclip.model.convert.torchscript import is_torchscript, read_torchscript
from pathclip.model.foreign_checks import MAX_WEIGHTS

_BEGINNINGS = (b"PK\x03\x04", b"\x80")  # of archives and of bare pickles, as torch writes them
# Not parameters, but OpenAI's archives keep them among them.
_NUMBERS = ("input_resolution", "context_length", "vocab_size")


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


def is_checkpoint_of_training(file: Path) -> bool:
    """Whether a file was saved by open_clip's training: it then has an epoch beside its weights."""
    return not is_torchscript(file) and file.suffix != ".safetensors" and "epoch" in _unpickled(file)


def load_into_open_clip(model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Loads tensors into a module of open_clip, also under names and shapes of its earlier versions.

    Raises:
        RuntimeError: tensors that are missing, unknown or of another shape.
    """
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

    state = convert_state_dict(model, {k: v for k, v in tensors.items() if k not in _NUMBERS})
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
    resize_pos_embed(state, model)
    resize_text_pos_embed(state, model)
    model.load_state_dict(state, strict=True)


def _read(file: Path) -> dict[str, Tensor]:
    if file.stat().st_size > MAX_WEIGHTS:
        raise ModelFolderError(f"{file}: larger than {MAX_WEIGHTS >> 30} GiB, refused")
    if file.suffix == ".safetensors":
        return _safetensors(file)
    if is_torchscript(file):
        return read_torchscript(file)
    held = _unpickled(file)
    inner = held.get("state_dict", held)
    if not isinstance(inner, Mapping) or not inner:
        raise ModelFolderError(f"{file}: no weights in it")
    names = [str(name) for name in inner]
    prefix = "module." if all(name.startswith("module.") for name in names) else ""
    for name, value in inner.items():
        if not isinstance(value, Tensor):
            raise ModelFolderError(f"{file}: '{name}' is a {type(value).__name__} and no tensor")
    return {str(name).removeprefix(prefix): value for name, value in inner.items()}


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFolderError(
            f"{file}: no safetensors, or cut off ({' '.join(str(error).split())[:150]}); fetch it again"
        ) from error


def _unpickled(file: Path) -> Mapping[str, Any]:
    with file.open("rb") as opened:
        if not opened.read(4).startswith(_BEGINNINGS):
            raise ModelFolderError(f"{file}: no weights: neither safetensors nor saved by torch")
    try:
        held = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        text = " ".join(str(error).split())
        if "Weights only load failed" in text or "weights_only" in text:
            raise ModelFolderError(
                f"{file}: holds more than weights, and what it names besides could run a program; refused. "
                "Take the same weights as safetensors"
            ) from error
        raise ModelFolderError(f"{file}: no weights of torch, or cut off ({text[:150]})") from error
    if not isinstance(held, Mapping):
        raise ModelFolderError(f"{file}: holds a {type(held).__name__} and no weights by name")
    return held
