"""The quantised layers of a QDQ graph: what stands around each product of an activation and a weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PRODUCTS = ("Conv", "MatMul", "Gemm")
# What a quantiser may leave between a layer and the quantisation of its output.
ACTIVATIONS = ("Clip", "Relu")


@dataclass(frozen=True, slots=True)
class QuantisedLayer:
    """A product of a uint8 activation and a quantised constant weight.

    Attributes:
        node: Conv, MatMul or Gemm.
        around: its DequantizeLinear nodes and, where there is one, the QuantizeLinear after it.
        x: name of the quantised activation.
        x_scale: one step of it.
        x_zero: its zero point.
        w: the weight's integers, of the weight's shape.
        w_scale: one step of it, per output channel or of shape [1]; float64.
        w_zero: its zero point, shaped as the scale.
        bias: float64 per output channel; zeros where there is none.
        y: step and zero point of the quantised output; None where the output stays float.
        output: name of the tensor that comes out: quantised if `y` is given, else float.
    """

    node: Any
    around: tuple[Any, ...]
    x: str
    x_scale: float
    x_zero: int
    w: NDArray[Any]
    w_scale: NDArray[np.float64]
    w_zero: NDArray[np.float64]
    bias: NDArray[np.float64]
    y: tuple[float, int] | None
    output: str

    @property
    def out_axis(self) -> int:
        """Axis of the weight that counts output channels."""
        return output_axis(self.node, self.w.ndim)


class Graph:
    """Look-ups in an ONNX graph: constants, writers and readers by tensor name."""

    def __init__(self, source: Path | Any) -> None:
        """Reads a file, or takes a model in memory."""
        import onnx

        self.model = onnx.load(source) if isinstance(source, Path) else source
        graph = self.model.graph
        self.constants: dict[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
        self.writers: dict[str, Any] = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in graph.output}

    def array(self, name: str) -> NDArray[Any]:
        """Values of a constant."""
        from onnx import numpy_helper

        return np.asarray(numpy_helper.to_array(self.constants[name]))

    def only_reader(self, name: str, *op_types: str) -> Any:
        """The one node that reads the tensor if it is of these types, else None."""
        nodes = self.readers.get(name, [])
        alone = len(nodes) == 1 and name not in self.outputs
        return nodes[0] if alone and nodes[0].op_type in op_types else None

    def dequantiser(self, name: str) -> Any:
        """The DequantizeLinear that writes a tensor, else None."""
        node = self.writers.get(name)
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def zero_type(self, node: Any) -> Any:
        """Integer type of a QuantizeLinear or DequantizeLinear with a zero point; uint8 without."""
        given = len(node.input) > 2 and node.input[2]
        return self.array(node.input[2]).dtype if given else np.dtype(np.uint8)

    def step(self, node: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scale and zero point of a QuantizeLinear or DequantizeLinear, each at least of shape [1]."""
        scale = np.atleast_1d(self.array(node.input[1])).astype(np.float64)
        given = len(node.input) > 2 and node.input[2]
        zero = np.atleast_1d(self.array(node.input[2])).astype(np.float64) if given else np.zeros_like(scale)
        return scale, zero


def quantised_layers(graph: Graph) -> Iterator[QuantisedLayer]:
    """The layers that run in integers, in graph order."""
    for node in graph.model.graph.node:
        if node.op_type not in PRODUCTS:
            continue
        x, w = (graph.dequantiser(name) for name in node.input[:2])
        if x is None or w is None or x.input[0] in graph.constants or w.input[0] not in graph.constants:
            continue
        if graph.zero_type(x) == np.uint8:
            yield _layer(graph, node, x, w)


def output_axis(node: Any, rank: int) -> int:
    """Axis of a weight of this rank that counts output channels."""
    if node.op_type == "Conv" or attributes(node).get("transB", 0):
        return 0
    return rank - 1


def attributes(node: Any) -> Mapping[str, Any]:
    """Attributes of a node as Python values."""
    from onnx import helper

    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def _layer(graph: Graph, node: Any, x: Any, w: Any) -> QuantisedLayer:
    x_scale, x_zero = graph.step(x)
    w_scale, w_zero = graph.step(w)
    weight = graph.array(w.input[0])
    around = [x, w]
    bias = np.zeros(weight.shape[output_axis(node, weight.ndim)])
    if len(node.input) > 2 and node.input[2]:
        source = graph.dequantiser(node.input[2])
        if source is None:
            bias = graph.array(node.input[2]).astype(np.float64)
        else:
            scale, zero = graph.step(source)
            bias = (graph.array(source.input[0]).astype(np.float64) - zero) * scale
            around.append(source)
    after = graph.only_reader(node.output[0], "QuantizeLinear")
    y, output = None, node.output[0]
    if after is not None:
        y_scale, y_zero = graph.step(after)
        y, output = (float(y_scale[0]), int(y_zero[0])), after.output[0]
        around.append(after)
    return QuantisedLayer(
        node,
        tuple(around),
        x.input[0],
        float(x_scale[0]),
        int(x_zero[0]),
        weight,
        w_scale,
        w_zero,
        bias,
        y,
        output,
    )
