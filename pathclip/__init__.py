"""CLIP-style encoders for pathology images.

>>> import pathclip
>>> model = pathclip.load("model-int8")                                       # doctest: +SKIP
>>> model.encode_texts(["signet ring cells in a gastric biopsy"]).shape       # doctest: +SKIP
(1, 512)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from pathclip.runtime.encoder import Encoder

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(
    folder: str | Path,
    runtime: Literal["auto", "onnx", "torch"] = "auto",
    precision: Literal["auto", "int8", "fp32"] = "auto",
    threads: int | None = None,
) -> Encoder:
    """Opens a model folder as an encoder. Files are checked against their SHA-256 when they are loaded.

    Args:
        folder: a model folder that `pathclip train` or `pathclip export` wrote.
        runtime: 'onnx' needs no torch; 'torch' reads the safetensors; 'auto' takes ONNX where the
            folder has it in the precision asked for, and torch otherwise.
        precision: 'auto' takes int8 where the folder has it. torch has fp32 only.
        threads: of one matrix product; by default the physical cores that the process may use, or with
            torch its own choice.

    Raises:
        ModelFolderError: no model folder, a changed file, or it lacks the precision or runtime.
        ConfigError: an unknown runtime or precision.
    """
    from pathclip.errors import ConfigError, ModelFolderError
    from pathclip.model_folder import TRAINING_PICTURES, WEIGHTS, open_model_folder
    from pathclip.runtime.encoder import OnnxEncoder, available_precisions

    if runtime not in ("auto", "onnx", "torch"):
        raise ConfigError(f"runtime: '{runtime}' is none of auto, onnx, torch")
    if precision not in ("auto", "int8", "fp32"):
        raise ConfigError(f"precision: '{precision}' is none of auto, int8, fp32")
    opened = open_model_folder(folder, verify=False)
    found = available_precisions(opened)
    if runtime == "auto":
        torch_fills_in = precision == "fp32" and precision not in found and opened.has(WEIGHTS)
        runtime = "torch" if not found or torch_fills_in else "onnx"
    if runtime == "onnx":
        if precision != "auto":
            return OnnxEncoder(opened, precision, threads)
        return OnnxEncoder(opened, "int8" if "int8" in found or not found else "fp32", threads)

    from importlib.util import find_spec

    if precision == "int8":
        raise ModelFolderError(
            f"{folder}: no ONNX in int8, and torch runs fp32 only. "
            f"To make it: pathclip export model={folder} out={opened.path.name}-int8"
        )
    if find_spec("torch") is None:
        raise ModelFolderError(
            f"{folder}: without ONNX{' in fp32' if found else ''} this folder needs torch: "
            "pip install 'pathclip[train]', or export it where torch is: "
            f"pathclip export model={folder} out={opened.path.name}-int8{' keep_fp32=true' if found else ''}"
        )
    for name in opened.card["files"]:
        if not name.startswith("onnx/") and name != TRAINING_PICTURES:
            opened.verified(name)
    from pathclip.model.torch_encoder import TorchEncoder

    return TorchEncoder(opened, threads)
