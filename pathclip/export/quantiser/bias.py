"""Bias correction: rounding a layer's weights must not shift its mean output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pathclip.export.quantiser.prepare import attribute, constants, weighted
from pathclip.export.quantiser.ranges import Statistics


def correct_biases(model: Any, quantised: Any, statistics: Statistics) -> int:
    """Adds to every bias what rounding the weights takes from the layer's mean output.

    For a layer y = W x + b with rounded weights W', the mean output shifts by (W' - W) E[x]; E[x] per
    input channel is known from calibration (arXiv:1906.04721, section 4.2). Of a padded convolution a tap
    of the kernel counts as often as it lies inside the picture.

    Args:
        model: the fp32 graph.
        quantised: its QDQ graph, changed in place.
        statistics: of the fp32 graph.

    Returns:
        Number of corrected layers.
    """
    from onnx import numpy_helper

    floats, integers, sizes = constants(model), constants(quantised), picture_sizes(model)
    originals = {node.name: node for node in weighted(model)}
    writers = {name: node for node in quantised.graph.node for name in node.output}
    biases = Biases(quantised)
    corrected = 0
    for node in quantised.graph.node:
        original = originals.get(node.name)
        source = writers.get(node.input[1]) if original is not None else None
        if original is None or source is None or original.input[0] not in statistics.channels:
            continue
        exact = numpy_helper.to_array(floats[original.input[1]])
        lost = exact - dequantised(source, integers)
        shift = mean_shift(original, lost, statistics.channels[original.input[0]].mean, sizes)
        corrected += biases.add(node, shift)
    return corrected


def mean_shift(
    node: Any, lost: np.ndarray, mean: np.ndarray, sizes: Mapping[str, tuple[int, ...]]
) -> np.ndarray:
    """Mean of `lost` applied to the input, per output channel.

    Args:
        node: Conv, MatMul or Gemm of the fp32 graph.
        lost: the weight's rounding error, of the weight's shape.
        mean: of the input, float64 [channels in].
        sizes: tensor name → height and width, where they are fixed.

    Returns:
        float64 [channels out].
    """
    if node.op_type == "Conv":
        groups = attribute(node, "group", 1)
        taps = lost.astype(np.float64) * coverage(node, lost.shape[2:], sizes.get(node.input[0]))
        per_input = taps.sum(axis=tuple(range(2, lost.ndim)))
        means = mean.reshape(groups, -1).repeat(len(lost) // groups, axis=0)
        return (per_input * means).sum(axis=1)
    if node.op_type == "Gemm" and attribute(node, "transB", 0):
        return lost.astype(np.float64) @ mean
    return mean @ lost.astype(np.float64)


def coverage(node: Any, kernel: tuple[int, ...], size: tuple[int, ...] | None) -> np.ndarray:
    """Share of a convolution's output places at which each tap of the kernel lies inside the picture.

    Args:
        node: Conv.
        kernel: its spatial shape.
        size: spatial shape of its input; None counts every tap fully.

    Returns:
        float64 of shape `kernel`.
    """
    if size is None or len(size) != len(kernel):
        return np.ones(kernel)
    given = {entry.name: list(entry.ints) for entry in node.attribute if entry.ints}
    rank = len(kernel)
    pads, strides = given.get("pads", [0] * 2 * rank), given.get("strides", [1] * rank)
    dilations = given.get("dilations", [1] * rank)
    shares = np.ones(())
    for axis, (taps, length) in enumerate(zip(kernel, size, strict=True)):
        reach = dilations[axis] * (taps - 1) + 1
        places = (length + pads[axis] + pads[axis + rank] - reach) // strides[axis] + 1
        start = np.arange(places) * strides[axis] - pads[axis]
        at = start[:, None] + np.arange(taps) * dilations[axis]
        shares = np.multiply.outer(shares, ((at >= 0) & (at < length)).mean(axis=0))
    return shares


def picture_sizes(model: Any) -> dict[str, tuple[int, ...]]:
    """Name of a tensor with four axes → its fixed height and width."""
    sizes: dict[str, tuple[int, ...]] = {}
    for info in (*model.graph.value_info, *model.graph.input):
        shape = tuple(int(dim.dim_value) for dim in info.type.tensor_type.shape.dim)
        if len(shape) == 4 and min(shape[2:]) > 0:
            sizes[info.name] = shape[2:]
    return sizes


def dequantised(node: Any, known: Mapping[str, Any]) -> np.ndarray:
    """The float values that a DequantizeLinear of a constant gives."""
    from onnx import numpy_helper

    values = numpy_helper.to_array(known[node.input[0]]).astype(np.float32)
    scale = numpy_helper.to_array(known[node.input[1]])
    zero = numpy_helper.to_array(known[node.input[2]]).astype(np.float32) if len(node.input) > 2 else 0.0
    if scale.ndim == 1 and scale.size > 1:
        shape = [1] * values.ndim
        shape[attribute(node, "axis", 1)] = -1
        scale, zero = scale.reshape(shape), np.asarray(zero).reshape(shape)
    return (values - zero) * scale


class Biases:
    """The biases of a QDQ graph's layers, in whatever form they have.

    Args:
        quantised: QDQ graph; changed in place by `add`.
    """

    def __init__(self, quantised: Any) -> None:
        self._graph = quantised.graph
        self._known = constants(quantised)
        self._writers = {name: node for node in quantised.graph.node for name in node.output}
        self._readers: dict[str, list[Any]] = {}
        for node in quantised.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def has(self, node: Any) -> bool:
        """Whether `add` can change a bias of the layer; a product without a constant after it has none."""
        name = self._bias(node)[1]
        source = self._writers.get(name)
        return name in self._known or (source is not None and source.op_type == "DequantizeLinear")

    def add(self, node: Any, shift: np.ndarray) -> int:
        """Adds to the bias of a Conv or Gemm, or to the constant added after a MatMul; 1 if there is one."""
        from onnx import numpy_helper

        if not self.has(node):
            return 0
        known, (reader, name) = self._known, self._bias(node)
        if name in known:
            tensor = self._own(reader, name)
            values = (numpy_helper.to_array(tensor) + shift).astype(np.float32)
        else:
            source = self._writers[name]
            tensor = known[source.input[0]]
            scale = numpy_helper.to_array(known[source.input[1]]).astype(np.float64)
            moved = numpy_helper.to_array(tensor) + np.round(shift / scale)
            values = np.clip(moved, -(2.0**31), 2.0**31 - 1).astype(np.int32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return 1

    def _bias(self, node: Any) -> tuple[Any, str]:
        """The node that reads the bias, and the bias's name; '' if there is none."""
        if node.op_type != "MatMul":
            return node, str(node.input[2]) if len(node.input) > 2 else ""
        adders = [after for after in self._readers.get(node.output[0], ()) if after.op_type == "Add"]
        inputs = [(after, name) for after in adders for name in after.input if name in self._known]
        found = [(after, name) for after, name in inputs if len(self._known[name].dims) == 1]
        return found[0] if len(found) == 1 else (node, "")

    def _own(self, reader: Any, name: str) -> Any:
        """A constant that this node alone reads: exporters make one of equal ones, so it may need a copy."""
        if len(self._readers[name]) == 1:
            return self._known[name]
        copy = self._graph.initializer.add()
        copy.CopyFrom(self._known[name])
        copy.name = f"{name}_of_{reader.name or reader.output[0]}"
        reader.input[list(reader.input).index(name)] = copy.name
        self._readers[name].remove(reader)
        self._readers[copy.name] = [reader]
        self._known[copy.name] = copy
        return copy
