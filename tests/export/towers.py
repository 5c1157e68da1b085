"""Two linear towers in ONNX that agree perfectly, a real int8 form of them, and ways to break it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pathclip.export.calibration.samples import Samples
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
    matrix, *_ = np.linalg.lstsq(rows, words[samples.tokens[:, 0]], rcond=None)
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


CHANNELS = 8


def write_network(file: Path, seed: int = 0) -> Path:
    """An fp32 image tower with every form of layer: strided, padded, depthwise, dilated, grouped, dense."""
    rng = np.random.default_rng(seed)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)

    wide = 2 * CHANNELS
    constants = [
        *(weight("stem.w", CHANNELS, 3, 3, 3), weight("stem.b", CHANNELS)),
        *(weight("depthwise.w", CHANNELS, 1, 3, 3), weight("depthwise.b", CHANNELS)),
        *(weight("grouped.w", wide, CHANNELS // 2, 3, 3), weight("grouped.b", wide)),
        *(weight("pointwise.w", wide, wide, 1, 1), weight("pointwise.b", wide)),
        weight("product.w", wide, DIM),
        *(weight("head.w", DIM, DIM), weight("head.b", DIM)),
        numpy_helper.from_array(np.float32(0), "zero"),
        numpy_helper.from_array(np.float32(6), "six"),
    ]

    def convolution(name: str, source: str, **attributes: object) -> onnx.NodeProto:
        inputs = [source, f"{name}.w", f"{name}.b"]
        return helper.make_node("Conv", inputs, [f"{name}.y"], name, **attributes)

    nodes = [
        convolution("stem", "pixels", strides=[2, 2], pads=[0, 1, 1, 1]),
        helper.make_node("Relu", ["stem.y"], ["stem.a"], "relu"),
        convolution("depthwise", "stem.a", group=CHANNELS, pads=[2, 2, 2, 2], dilations=[2, 2]),
        helper.make_node("Clip", ["depthwise.y", "zero", "six"], ["depthwise.a"], "clip"),
        convolution("grouped", "depthwise.a", group=2, pads=[1, 1, 1, 1]),
        convolution("pointwise", "grouped.y"),
        helper.make_node("GlobalAveragePool", ["pointwise.y"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("MatMul", ["flat", "product.w"], ["product.y"], "product"),
        helper.make_node("Gelu", ["product.y"], ["product.a"], "gelu"),
        helper.make_node("Gemm", ["product.a", "head.w", "head.b"], ["embedding"], "head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "image",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", DIM])],
        initializer=constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(onnx.shape_inference.infer_shapes(model), file)
    return file


def quantise_network(fp32: Path, file: Path, bits: int = 7, keep_fp32: tuple[str, ...] = ()) -> Path:
    """onnxruntime's own static quantisation of `write_network`."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = make_samples(32).feeds("image")

        def get_next(self) -> dict | None:
            return next(self.feeds, None)

    quantize_static(
        str(fp32),
        str(file),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=bits == 7,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=list(keep_fp32),
        op_types_to_quantize=["Conv", "MatMul", "Gemm", "Clip", "Relu"],
        extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
    )
    return file


def write_folder(folder: Path, fp32: Path) -> Path:
    """A model folder of the int8 network beside its fp32 form, without a text tower."""
    from pathclip.model_folder import write_model_folder

    card = {
        "name": "network",
        "embed_dim": DIM,
        "context_length": 1,
        "logit_scale": 1.0,
        "pad_id": 0,
        "preprocess": {"size": [8, 8], "mean": [0.5] * 3, "std": [0.5] * 3},
    }
    with write_model_folder(folder, card) as staging:
        (staging / "onnx").mkdir()
        (staging / "onnx" / "image_fp32.onnx").write_bytes(fp32.read_bytes())
        quantise_network(fp32, staging / "onnx" / "image_int8.onnx")
    return folder
