"""One tower from fp32 to int8: QDQ graph, ranges from calibration, corrected biases."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathclip.export import ranges
from pathclip.export.prepare import attribute, constants
from pathclip.export.recipe import Recipe

# Outputs of these stay float: the operators after them (softmax, norms, GELU) run in float anyway.
FLOAT_OUTPUTS = ("MatMul", "Gemm", "Gather")


@dataclass(frozen=True, slots=True)
class Quantised:
    """What became of a tower.

    Attributes:
        file: the int8 ONNX file.
        layers: Conv, MatMul and Gemm nodes with constant weights.
        kept_fp32: names of those that stayed in fp32.
    """

    file: Path
    layers: int
    kept_fp32: tuple[str, ...]


def quantize_tower(graph: Path, file: Path, statistics: ranges.Statistics, recipe: Recipe) -> Quantised:
    """Quantises a prepared fp32 graph.

    Args:
        graph: from `prepare` or `smooth`.
        file: where the int8 graph goes.
        statistics: from `measure` on the same graph.
        recipe: how.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

    model = onnx.load(graph)
    kept = kept_nodes(model, recipe.keep_fp32)
    limits = {
        name: tuple(
            np.float32(end) for end in ranges.value_range(values, recipe.calibration, recipe.percentile)
        )
        for name, values in statistics.histograms.items()
    }
    with tempfile.TemporaryDirectory(prefix="pathclip-ranges-") as folder, _quiet():
        # ORT takes given ranges from a file only. 'MinMax' means: use them as they are.
        cache = Path(folder) / "ranges.json"
        as_arrays = {name: (np.array(low), np.array(high)) for name, (low, high) in limits.items()}
        save_tensors_data(TensorsData(CalibrationMethod.MinMax, as_arrays), cache)
        quantize_static(
            str(graph),
            str(file),
            None,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(recipe.operators),
            per_channel=recipe.per_channel,
            reduce_range=recipe.weight_bits == 7,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(kept),
            calibration_cache_path=str(cache),
            extra_options={
                "MatMulConstBOnly": True,
                "OpTypesToExcludeOutputQuantization": list(FLOAT_OUTPUTS),
            },
        )
    if recipe.bias_correction:
        quantised = onnx.load(file)
        correct_biases(model, quantised, statistics)
        onnx.save(quantised, file)
    return Quantised(file, len(_weighted(model)), kept)


def kept_nodes(model: Any, patterns: Any) -> tuple[str, ...]:
    """Names of the nodes that the patterns of `Recipe.keep_fp32` mean."""
    weighted = _weighted(model)
    convolutions = [node for node in weighted if node.op_type == "Conv"]
    depthwise = [node.name for node in convolutions if attribute(node, "group", 1) > 1]
    chosen: list[str] = []
    for pattern in patterns:
        if pattern == "stem":
            first = [node.name for node in convolutions if node.input[0] in _inputs(model)]
            following = [node.name for node in convolutions[1:2] if node.name in depthwise]
            chosen += first + (following if first else [])
        elif pattern == "depthwise":
            chosen += depthwise
        else:
            chosen += [node.name for node in model.graph.node if node.name.startswith(pattern)]
    return tuple(dict.fromkeys(chosen))


def correct_biases(model: Any, quantised: Any, statistics: ranges.Statistics) -> int:
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

    floats, integers, sizes = constants(model), constants(quantised), _picture_sizes(model)
    originals = {node.name: node for node in _weighted(model)}
    writers = {name: node for node in quantised.graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in quantised.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    corrected = 0
    for node in quantised.graph.node:
        original = originals.get(node.name)
        source = writers.get(node.input[1]) if original is not None else None
        if original is None or source is None or original.input[0] not in statistics.channels:
            continue
        exact = numpy_helper.to_array(floats[original.input[1]])
        lost = exact - dequantised(source, integers)
        shift = mean_shift(original, lost, statistics.channels[original.input[0]].mean, sizes)
        corrected += _add_to_bias(node, shift, writers, readers, integers)
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


def _picture_sizes(model: Any) -> dict[str, tuple[int, ...]]:
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


def _add_to_bias(node: Any, shift: np.ndarray, writers: Any, readers: Any, known: Any) -> int:
    """Changes the bias of Conv and Gemm, or the constant that is added after a MatMul; 1 if there is one."""
    from onnx import numpy_helper

    if node.op_type == "MatMul":
        adders = [n for n in readers.get(node.output[0], ()) if n.op_type == "Add"]
        names = [name for n in adders for name in n.input if name in known and len(known[name].dims) == 1]
        name = names[0] if len(names) == 1 else ""
    else:
        name = node.input[2] if len(node.input) > 2 else ""
    if name in known:
        tensor = known[name]
        values = (numpy_helper.to_array(tensor) + shift).astype(np.float32)
    elif name in writers and writers[name].op_type == "DequantizeLinear":
        source = writers[name]
        tensor = known[source.input[0]]
        scale = numpy_helper.to_array(known[source.input[1]]).astype(np.float64)
        moved = numpy_helper.to_array(tensor) + np.round(shift / scale)
        values = np.clip(moved, -(2.0**31), 2.0**31 - 1).astype(np.int32)
    else:
        return 0
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return 1


def _weighted(model: Any) -> list[Any]:
    known = constants(model)
    kinds = ("Conv", "MatMul", "Gemm")
    return [node for node in model.graph.node if node.op_type in kinds and node.input[1] in known]


def _inputs(model: Any) -> set[str]:
    return {value.name for value in model.graph.input}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser of onnxruntime logs on the root logger and prints; a user can act on none of it."""
    root = logging.getLogger()
    level = root.level
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            root.setLevel(logging.ERROR)
            yield
        finally:
            root.setLevel(level)
