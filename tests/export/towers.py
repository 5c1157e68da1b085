"""Two linear towers in ONNX that agree perfectly, a real int8 form of them, and ways to break it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pathclip.export.samples import Samples
from pathclip.runtime.preprocess import Preprocess

PREPROCESS = Preprocess(size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
DIM = 32
VOCABULARY = 4096


def make_samples(n: int = 64) -> Samples:
    """Pictures of noise, each with a caption of one word of its own: its number."""
    pixels = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), np.uint8)
    tokens = np.arange(n, dtype=np.int64)[:, None]
    return Samples(pixels, tokens, tuple(f"caption {i}" for i in range(n)), PREPROCESS)


def make_weights(samples: Samples) -> dict[str, NDArray[np.float32]]:
    """A vector per word, and the matrix that sends each picture to the vector of its word."""
    words = np.random.default_rng(1).normal(size=(VOCABULARY, DIM)).astype(np.float32)
    rows = PREPROCESS.normalise(samples.pixels).reshape(len(samples), -1)
    matrix, *_ = np.linalg.lstsq(rows, words[: len(samples)], rcond=None)
    return {"image": matrix.astype(np.float32), "text": words}


def write_fp32(folder: Path, weights: dict[str, NDArray[np.float32]]) -> dict[str, Path]:
    """Both towers with float weights; 'image' and 'text' → file."""
    return _write(folder, {tower: [numpy_helper.from_array(w, "w")] for tower, w in weights.items()}, [])


def write_int8(folder: Path, weights: dict[str, NDArray[np.float32]]) -> dict[str, Path]:
    """Both towers with int8 weights and one scale: a quarter of the bytes."""
    constants = {}
    for tower, values in weights.items():
        scale = np.float32(np.abs(values).max() / 127)
        constants[tower] = [
            numpy_helper.from_array(np.round(values / scale).astype(np.int8), "q"),
            numpy_helper.from_array(scale, "scale"),
        ]
    return _write(folder, constants, [helper.make_node("DequantizeLinear", ["q", "scale"], ["w"])])


def shuffled(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same numbers in another order, as a mixed-up layout leaves them."""
    return np.random.default_rng(2).permutation(weights.ravel()).reshape(weights.shape)


def _write(folder: Path, constants: dict[str, list[TensorProto]], first: list) -> dict[str, Path]:
    folder.mkdir()
    nodes = {
        "image": [
            helper.make_node("Flatten", ["pixels"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["embedding"]),
        ],
        "text": [
            helper.make_node("Gather", ["w", "tokens"], ["words"]),
            helper.make_node("ReduceMean", ["words", "axes"], ["embedding"], keepdims=0),
        ],
    }
    given = {
        "image": helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 8, 8]),
        "text": helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", 1]),
    }
    files = {}
    for tower in ("image", "text"):
        output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", DIM])
        axes = [numpy_helper.from_array(np.array([1], np.int64), "axes")] if tower == "text" else []
        graph = helper.make_graph(
            [*first, *nodes[tower]], tower, [given[tower]], [output], initializer=[*constants[tower], *axes]
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        files[tower] = folder / f"{tower}.onnx"
        onnx.save(model, files[tower])
    return files
