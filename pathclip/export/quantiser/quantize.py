"""One tower from fp32 to int8: QDQ graph, ranges from calibration, corrected biases."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pathclip.errors import ConfigError
from pathclip.export.quantiser import ranges
from pathclip.export.quantiser.bias import correct_biases
from pathclip.export.quantiser.prepare import attribute, constants, weighted
from pathclip.export.quantiser.recipe import Recipe

# Outputs of these stay float: the operators after them (softmax, norms, GELU) run in float anyway.
FLOAT_OUTPUTS = ("MatMul", "Gemm", "Gather")
# Changes the integer weights of a QDQ graph in place: (fp32 graph, QDQ graph) → None.
Rounder = Callable[[Any, Any], None]


@dataclass(frozen=True, slots=True)
class Quantised:
    """What became of a tower.

    Attributes:
        file: the int8 ONNX file.
        layers: Conv, MatMul and Gemm nodes with constant weights.
        kept_fp32: names of those that stayed in fp32.
        reasons: name of such a node → why, as 'recipe: stem'.
    """

    file: Path
    layers: int
    kept_fp32: tuple[str, ...]
    reasons: Mapping[str, str] = field(default_factory=dict)


def quantize_tower(
    graph: Path,
    file: Path,
    statistics: ranges.Statistics,
    recipe: Recipe,
    keep: Mapping[str, str] | None = None,
    rounder: Rounder | None = None,
) -> Quantised:
    """Quantises a prepared fp32 graph with onnxruntime's quantiser.

    Args:
        graph: from `prepare`, `smooth` or `equalise`.
        file: where the int8 graph goes.
        statistics: from `measure` on the same graph.
        recipe: how.
        keep: further nodes that stay in fp32 → why.
        rounder: rounds the weights anew, where the recipe asks for more than the nearest value.

    Raises:
        ConfigError: `keep` names a node that the graph lacks.
    """
    import onnx

    model = onnx.load(graph)
    reasons = kept_nodes(model, recipe.keep_fp32, keep)
    _quantise_static(graph, file, statistics, recipe, [*reasons, *left_out(model, recipe)])
    quantised = onnx.load(file)
    hold_in_fp32(quantised, reasons)
    if rounder is not None:
        rounder(model, quantised)
    if recipe.bias_correction:
        correct_biases(model, quantised, statistics)
    onnx.save(quantised, file)
    return Quantised(file, len(weighted(model)), tuple(reasons), reasons)


def weighted_nodes(graph: Path) -> list[str]:
    """Names of the Conv, MatMul and Gemm nodes with constant weights, in the graph's order.

    Args:
        graph: a prepared fp32 graph; its int8 graph has the same nodes under the same names.
    """
    import onnx

    return [node.name for node in weighted(onnx.load(graph))]


def kept_nodes(model: Any, patterns: Sequence[str], keep: Mapping[str, str] | None = None) -> dict[str, str]:
    """The nodes that stay in fp32, each with the reason.

    Args:
        model: a prepared fp32 graph.
        patterns: as in `Recipe.keep_fp32`.
        keep: further nodes → why.

    Raises:
        ConfigError: `keep` names a node that the graph lacks.
    """
    convolutions = [node for node in weighted(model) if node.op_type == "Conv"]
    depthwise = [node.name for node in convolutions if attribute(node, "group", 1) > 1]
    chosen: dict[str, str] = {}
    for pattern in patterns:
        if pattern == "stem":
            names = _stem(model, convolutions, depthwise)
        elif pattern == "depthwise":
            names = depthwise
        else:
            names = [node.name for node in model.graph.node if node.name.startswith(pattern)]
        chosen = {name: f"recipe: {pattern}" for name in names} | chosen
    missing = set(keep or {}) - {node.name for node in model.graph.node}
    if missing:
        raise ConfigError(f"layers to keep in fp32: the graph has no {', '.join(sorted(missing))}")
    return dict(keep or {}) | chosen


def left_out(model: Any, recipe: Recipe) -> list[str]:
    """Names of the products of two activations that a recipe does not quantise; they are no layers.

    Where both come from convolutions, whose outputs are integers, onnxruntime runs them in integers anyway.

    Args:
        model: a prepared fp32 graph.
        recipe: how.
    """
    if recipe.attention:
        return []
    known = constants(model)
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "MatMul" and not any(name in known for name in node.input)
    ]


def hold_in_fp32(quantised: Any, kept: Mapping[str, str]) -> int:
    """Sees to it that onnxruntime runs the kept convolutions and Gemms between quantised tensors in fp32.

    Its optimiser (WeightBiasQuantization) gives a float layer between DequantizeLinear and QuantizeLinear
    8-bit weights, one scale for all channels, unless its bias is computed. So the bias becomes an int32
    constant behind a DequantizeLinear; 31 bits are more than float32 has.

    Args:
        quantised: QDQ graph, changed in place.
        kept: names of the nodes.

    Returns:
        Number of nodes changed.
    """
    import onnx
    from onnx import numpy_helper

    known = constants(quantised)
    writers = {name: node for node in quantised.graph.node for name in node.output}
    held = 0
    for node in [node for node in quantised.graph.node if node.name in kept]:
        source = writers.get(node.input[0])
        bias = known.get(node.input[2]) if len(node.input) > 2 else None
        if bias is None or source is None or source.op_type != "DequantizeLinear":
            continue
        values = numpy_helper.to_array(bias).astype(np.float64)
        scale = np.float32(max(float(np.abs(values).max()), 1e-30) / (2**31 - 128))
        integers = np.round(values / np.float64(scale)).astype(np.int32)
        names = [f"{node.name}_bias_held", f"{node.name}_bias_scale", f"{node.name}_bias_float"]
        quantised.graph.initializer.extend(
            [numpy_helper.from_array(integers, names[0]), numpy_helper.from_array(scale, names[1])]
        )
        place = list(quantised.graph.node).index(node)
        node.input[2] = names[2]
        quantised.graph.node.insert(
            place, onnx.helper.make_node("DequantizeLinear", names[:2], names[2:], f"{node.name}_bias_node")
        )
        held += 1
    return held


def _quantise_static(
    graph: Path, file: Path, statistics: ranges.Statistics, recipe: Recipe, kept: list[str]
) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

    limits = {
        name: tuple(
            np.array(np.float32(end))
            for end in ranges.value_range(values, recipe.calibration, recipe.percentile)
        )
        for name, values in statistics.histograms.items()
    }
    with tempfile.TemporaryDirectory(prefix="pathclip-ranges-") as folder, _quiet():
        # ORT takes given ranges from a file only. 'MinMax' means: use them as they are.
        cache = Path(folder) / "ranges.json"
        save_tensors_data(TensorsData(CalibrationMethod.MinMax, limits), cache)
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
            nodes_to_exclude=kept,
            calibration_cache_path=str(cache),
            extra_options={"OpTypesToExcludeOutputQuantization": list(FLOAT_OUTPUTS)},
        )


def _stem(model: Any, convolutions: Sequence[Any], depthwise: Sequence[str]) -> list[str]:
    inputs = {value.name for value in model.graph.input}
    names = [node.name for node in convolutions if node.input[0] in inputs]
    if not names or len(convolutions) == 1:  # one alone is a transformer's patch embedding
        return []
    return names + [node.name for node in convolutions[1:2] if node.name in depthwise]


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
