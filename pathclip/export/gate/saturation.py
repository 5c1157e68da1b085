"""Can the 16-bit sums of a CPU without VNNI overflow on these weights? Told from the graph alone.

Such a CPU (AVX2, AVX-512 without VNNI) multiplies uint8 activations with int8 weights by `vpmaddubsw`: two
neighbouring products are added in 16 bits, and what does not fit is cut to 32,767 or -32,768, silently.
An activation is at most 255. So an output channel is safe if its two largest weights of one sign satisfy
255 · (|w1| + |w2|) <= 32,767, whichever two the kernel lays side by side.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.export.graphs.qdq import Graph, attributes, quantised_layers

LARGEST_ACTIVATION = 255
LARGEST_SUM = 32767
# Operators of onnxruntime that multiply in integers → place of the weight among their inputs.
INTEGER_PRODUCTS = {
    "QLinearConv": 3,
    "ConvInteger": 1,
    "QLinearMatMul": 3,
    "MatMulInteger": 1,
    "MatMulIntegerToFloat": 1,
    "DynamicQuantizeMatMul": 1,
    "QGemm": 3,
}


@dataclass(frozen=True, slots=True)
class Saturation:
    """A layer's worst pair of neighbouring products.

    Attributes:
        name: of the node.
        worst: the largest sum of two neighbouring products that its weights allow.
        rewritten: the layer is float in the file, and onnxruntime quantises it when it loads the file.
    """

    name: str
    worst: int
    rewritten: bool = False

    @property
    def safe(self) -> bool:
        """Whether the sum fits 16 bits."""
        return self.worst <= LARGEST_SUM


def saturation(int8: Path) -> tuple[Saturation, ...]:
    """Every layer that runs in integers: those of the file, then those that onnxruntime makes of float ones.

    Args:
        int8: a QDQ graph.
    """
    graph = Graph(int8)
    written = {
        layer.node.name: Saturation(layer.node.name, worst_pair(layer.w, layer.out_axis))
        for layer in quantised_layers(graph)
        if layer.w.dtype == np.int8
    }
    added = {name: worst for name, worst in _of_runtime(int8) if name not in written}
    return (*written.values(), *(Saturation(name, worst, True) for name, worst in added.items()))


def worst_pair(weight: NDArray[Any], out_axis: int) -> int:
    """The largest sum of two products of uint8 activations with weights of one output channel.

    Args:
        weight: int8 of any shape.
        out_axis: axis that counts output channels.

    >>> worst_pair(np.array([[64, -64, 64], [1, 2, 3]], np.int8), 0)
    32640
    >>> worst_pair(np.array([[127, -127]], np.int8), 0)
    32385
    """
    rows = np.moveaxis(weight, out_axis, 0).reshape(weight.shape[out_axis], -1).astype(np.int64)
    if rows.shape[1] == 1:
        return int(np.abs(rows).max(initial=0)) * LARGEST_ACTIVATION
    signs = (np.maximum(rows, 0), np.maximum(-rows, 0))
    pairs = (int(np.partition(side, -2, axis=1)[:, -2:].sum(axis=1).max(initial=0)) for side in signs)
    return max(pairs) * LARGEST_ACTIVATION


def in_eight_bits(int8: Path, file: Path) -> Path:
    """Writes the same graph with weights twice as large and steps half as large: 8 bits instead of 7.

    It says the same (but for a weight of 64, which becomes 127), so wherever it gives other answers, the
    runtime's arithmetic did that: what saturation does, seen alone.

    Args:
        int8: a QDQ graph with weights of 7 bits.
        file: where the result goes.
    """
    import onnx

    graph = Graph(int8)
    done: set[str] = set()
    for layer in quantised_layers(graph):
        integers, step = layer.around[1].input[:2]
        if integers in done:
            continue
        done.add(integers)
        shape = [1] * layer.w.ndim
        shape[layer.out_axis] = -1
        # A channel whose bias has no room for twice the number stays as it is.
        room = np.abs(layer.bias / (layer.w_scale * layer.x_scale)) < 2**30
        times = np.where(room if layer.w_scale.size > 1 else room.all(), 2, 1)
        _put(graph, integers, np.clip(layer.w * times.reshape(shape).astype(np.int64), -128, 127))
        _put(graph, step, graph.array(step) / times.reshape(graph.array(step).shape))
        for source in layer.around[2:]:
            if source.op_type == "DequantizeLinear":
                bias, its_step = source.input[:2]
                _put(graph, bias, graph.array(bias) * times)
                _put(graph, its_step, graph.array(its_step) / times.reshape(graph.array(its_step).shape))
    onnx.save(graph.model, file)
    return file


def _put(graph: Graph, name: str, values: NDArray[Any]) -> None:
    """Replaces a constant, of the type it has."""
    from onnx import numpy_helper

    changed = np.asarray(values, graph.array(name).dtype)
    graph.constants[name].CopyFrom(numpy_helper.from_array(changed, name))


def _of_runtime(int8: Path) -> Iterator[tuple[str, int]]:
    """Node name and worst pair of every integer product of the graph as onnxruntime rewrites it."""
    with tempfile.TemporaryDirectory(prefix="pathclip-rewritten-") as folder:
        graph = Graph(rewritten(int8, Path(folder) / "rewritten.onnx"))
        for node in graph.model.graph.node:
            place = INTEGER_PRODUCTS.get(node.op_type)
            name = node.input[place] if place is not None and len(node.input) > place else ""
            if name in graph.constants and (weight := graph.array(name)).dtype == np.int8:
                yield node.name, worst_pair(weight, _axis(node, weight.ndim))


def rewritten(graph: Path, file: Path) -> Path:
    """Writes the graph as onnxruntime runs it, without what only this machine's memory layout asks for."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(file)
    ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    return file


def _axis(node: Any, rank: int) -> int:
    convolution = node.op_type in ("QLinearConv", "ConvInteger")
    return 0 if convolution or attributes(node).get("transB", 0) else rank - 1
