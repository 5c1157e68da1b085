"""CLIP-style encoders for pathology images.

>>> import pathclip
>>> model = pathclip.load("model-int8")                                       # doctest: +SKIP
>>> answers = pathclip.classify(model, ["tile.jpg"], ["tumour", "normal"])    # doctest: +SKIP
>>> answers[0][0].name                                                        # doctest: +SKIP
'tumour'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from pathclip.runtime.encoder import Encoder
    from pathclip.types import Label

__version__ = "0.1.0"
__all__ = ["__version__", "classify", "load"]


def load(
    folder: str | Path,
    runtime: Literal["auto", "onnx", "openvino", "torch"] = "auto",
    precision: Literal["auto", "int8", "fp32"] = "auto",
    threads: int | None = None,
    pictures: int | None = None,
) -> Encoder:
    """Opens a model folder as an encoder. Files are checked against their SHA-256 when they are loaded.

    Args:
        folder: a model folder that `pathclip train` or `pathclip export` wrote.
        runtime: 'onnx' (onnxruntime) and 'openvino' need no torch; 'torch' reads the safetensors. 'auto'
            takes ONNX where the folder has it in the precision asked for, and torch otherwise. ONNX runs in
            onnxruntime, unless OpenVINO is installed and was measured to be faster here, by
            `pathclip bench` or as `pictures` says. An encoder keeps its runtime and tells it (`runtime`).
            Name one where numbers must be the same everywhere: on one folder embeddings of the two had a
            cosine of 0.9966 and more, and probabilities differed by up to 0.02.
        precision: 'auto' takes int8 where the folder has it. torch has fp32 only.
        threads: of one matrix product; by default the physical cores that the process may use, or with
            torch its own choice.
        pictures: how many are to be embedded, where that is known. With 'auto', up to 64 run in onnxruntime,
            which starts sooner, and 1,000 or more are reason to measure both runtimes where that was not
            done before: about three seconds, once for a folder and a machine.

    Raises:
        ModelFolderError: no model folder, a changed file, or it lacks the precision or runtime; the runtime
            is not installed.
        ConfigError: an unknown runtime or precision.
    """
    from pathclip.errors import ConfigError, ModelFolderError
    from pathclip.model_folder import TRAINING_PICTURES, WEIGHTS, open_model_folder
    from pathclip.runtime.encoder import OnnxEncoder, available_precisions

    if runtime not in ("auto", "onnx", "openvino", "torch"):
        raise ConfigError(f"runtime: '{runtime}' is none of auto, onnx, openvino, torch")
    if precision not in ("auto", "int8", "fp32"):
        raise ConfigError(f"precision: '{precision}' is none of auto, int8, fp32")
    opened = open_model_folder(folder, verify=False)
    found = available_precisions(opened)
    torch_fills_in = precision == "fp32" and precision not in found and opened.has(WEIGHTS)
    if runtime != "torch" and not (runtime == "auto" and (not found or torch_fills_in)):
        if precision == "auto":
            precision = "int8" if "int8" in found or not found else "fp32"
        if runtime == "openvino":
            from pathclip.runtime.openvino_encoder import OpenVinoEncoder

            return OpenVinoEncoder(opened, precision, threads)
        if runtime == "auto" and precision in found:
            from pathclip.runtime.choice import open_by_choice

            return open_by_choice(opened, precision, threads, pictures)
        return OnnxEncoder(opened, precision, threads)

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


def classify(
    model: Encoder,
    images: Sequence[str] | Sequence[Path] | Sequence[Image.Image] | NDArray[np.uint8],
    labels: Sequence[str] | Mapping[str, Sequence[str]],
    templates: Sequence[str] | None = None,
) -> list[list[Label]]:
    """Classifies pictures by the similarity to descriptions of the classes.

    Args:
        model: from `load`.
        images: files, opened pictures, or uint8 [n, h, w, 3].
        labels: class names, or class name → wordings of it.
        templates: sentences with `{}` where the class goes; None takes the model's own.

    Returns:
        Per picture all classes, the most probable first: `name`, `probability`, `similarity`.
        Probabilities compare the given classes with each other; they do not say that any of them fits.

    Raises:
        DataError: no or equal classes, a template without `{}`, or a file that cannot be read.
    """
    from pathclip.runtime.classify import classify as classify_pictures

    return classify_pictures(model, images, labels, templates)
