"""Tiny fp32 graphs for tests of the quantiser, and a way to run them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from pathclip.export.quantiser import ranges
from pathclip.export.quantiser.prepare import prepare
from pathclip.export.quantiser.quantize import Quantised, quantize_tower
from pathclip.export.quantiser.recipe import OPERATORS, Recipe

RNG = np.random.default_rng(0)
DATA = (RNG.gamma(2.0, 1.0, (64, 6, 8, 8))).astype(np.float32)


def write(path, nodes, given, initializers, out_shape) -> Path:
    """An ONNX file with one output, `embedding`, and inferred shapes."""
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, out_shape)
    constants = [
        numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in initializers.items()
    ]
    graph = helper.make_graph(nodes, "tower", [given], [output], initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def convolution(folder: Path, activation: str = "Relu") -> Path:
    """Stem, depthwise, pointwise; each pointwise filter has one large value, so the rest round badly.

    `activation` is 'Relu', or 'Clip' for one with a cap, as in ReLU6.
    """
    rng = np.random.default_rng(0)
    point = rng.normal(0, 0.02, (16, 12, 1, 1))
    point[:, 0] = 3.0
    ends = ["zero", "cap"] if activation == "Clip" else []
    nodes = [
        helper.make_node("Conv", ["pixels", "w0"], ["a"], "stem", pads=[1, 1, 1, 1]),
        helper.make_node(activation, ["a", *ends], ["b"], "relu"),
        helper.make_node("Conv", ["b", "w1"], ["c"], "deep", group=12),
        helper.make_node(activation, ["c", *ends], ["d"], "relu2"),
        helper.make_node("Conv", ["d", "w2"], ["e"], "point"),
        helper.make_node("GlobalAveragePool", ["e"], ["f"], "pool"),
        helper.make_node("Flatten", ["f"], ["embedding"], "flat"),
    ]
    weights = {"w0": rng.normal(0, 0.3, (12, 6, 3, 3)), "w1": rng.normal(0, 0.5, (12, 1, 3, 3)), "w2": point}
    # Channels of very different ranges, as folding batch normalisation leaves them.
    weights["w0"] *= np.exp2(rng.integers(-4, 4, 12))[:, None, None, None]
    if ends:
        weights |= {"zero": np.float32(0), "cap": np.float32(6)}
    given = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 6, 8, 8])
    write(folder / "fp32.onnx", nodes, given, weights, ["n", 16])
    prepare(folder / "fp32.onnx", folder / "prepared.onnx")
    return folder / "prepared.onnx"


def product(folder: Path, loudest: float = 60.0) -> Path:
    """A layer norm with two loud channels before a matrix product, as transformers have; prepared."""
    rng = np.random.default_rng(1)
    gain = np.ones(16)
    gain[[3, 9]] = loudest
    nodes = [
        helper.make_node("LayerNormalization", ["pixels", "g", "b"], ["x"], "norm"),
        helper.make_node("MatMul", ["x", "w"], ["y"], "product"),
        helper.make_node("Add", ["y", "bias"], ["embedding"], "add"),
    ]
    weights = {"g": gain, "b": np.zeros(16), "w": rng.normal(0, 1, (16, 24)), "bias": rng.normal(0, 1, 24)}
    weights["w"][[3, 9]] *= 0.05
    given = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 5, 16])
    write(folder / "fp32.onnx", nodes, given, weights, ["n", 5, 24])
    prepare(folder / "fp32.onnx", folder / "prepared.onnx")
    return folder / "prepared.onnx"


def run(graph: Path, data: np.ndarray) -> np.ndarray:
    """What onnxruntime computes."""
    session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    return session.run(None, {"pixels": data})[0]


def measured(graph: Path, data: np.ndarray) -> ranges.Statistics:
    return ranges.measure(graph, [{"pixels": data[:32]}, {"pixels": data[32:]}], OPERATORS)


def quantised(graph: Path, data: np.ndarray, recipe: Recipe, **more) -> Quantised:
    """The graph in int8, calibrated on `data`."""
    return quantize_tower(graph, graph.parent / "int8.onnx", measured(graph, data), recipe, **more)


def integer_weights(file: Path) -> dict[str, np.ndarray]:
    """Name → values of every constant int8 tensor that is dequantised."""
    model = onnx.load(file)
    known = {tensor.name: tensor for tensor in model.graph.initializer}
    names = [n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in known]
    values = {name: numpy_helper.to_array(known[name]) for name in names}
    return {name: array for name, array in values.items() if array.dtype == np.int8}


def in_fp32(file: Path, scratch: Path) -> int:
    """Number of convolutions that onnxruntime runs in fp32 after rewriting the graph."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(scratch / "optimised.onnx")
    ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(scratch / "optimised.onnx").graph.node]
    return sum("Conv" in kind and not kind.startswith("Q") for kind in kinds)
