"""Graph changes that leave what a tower computes as it is, and make it quantise better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pathclip.export.quantiser.ranges import Statistics

# How many times smaller than the loudest channel another one is taken to be, at most.
QUIETEST = 16.0


def prepare(graph: Path, prepared: Path) -> None:
    """Folds constants, infers shapes, and gives every weighted node a bias to correct later.

    Args:
        graph: fp32 ONNX file.
        prepared: where the result goes.
    """
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # Symbolic shape inference is for graphs without shapes; torch's exporter writes them.
    quant_pre_process(str(graph), str(prepared), skip_symbolic_shape=True)
    model = onnx.load(prepared)
    _add_zero_biases(model)
    onnx.save(model, prepared)


def constants(model: Any) -> dict[str, Any]:
    """Initializer by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def attribute(node: Any, name: str, default: int) -> int:
    """An integer attribute of a node."""
    return next((int(entry.i) for entry in node.attribute if entry.name == name), default)


def weighted(model: Any) -> list[Any]:
    """The Conv, MatMul and Gemm nodes with constant weights, in the graph's order."""
    known = constants(model)
    kinds = ("Conv", "MatMul", "Gemm")
    return [node for node in model.graph.node if node.op_type in kinds and node.input[1] in known]


def _add_zero_biases(model: Any) -> None:
    """Conv and Gemm get a zero bias; a product of two matrices with a constant one becomes a Gemm."""
    from onnx import numpy_helper

    known = constants(model)
    ranks = {
        info.name: len(info.type.tensor_type.shape.dim)
        for info in (*model.graph.value_info, *model.graph.input, *model.graph.output)
    }
    for node in model.graph.node:
        if len(node.input) < 2 or node.input[1] not in known:
            continue
        shape = list(known[node.input[1]].dims)
        if node.op_type == "MatMul" and ranks.get(node.input[0]) == 2 and len(shape) == 2:
            node.op_type = "Gemm"
        if node.op_type not in ("Conv", "Gemm") or (len(node.input) == 3 and node.input[2]):
            continue
        width = shape[0] if node.op_type == "Conv" or attribute(node, "transB", 0) else shape[1]
        name = f"{node.name}_zero_bias"
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(width, np.float32), name))
        node.input[:] = [*node.input[:2], name]


def smooth(prepared: Path, smoothed: Path, statistics: Statistics, strength: float) -> int:
    """Divides outlier channels of activations by a factor and multiplies the weights' rows by it.

    The factor of channel j is max|x_j|^a / max|W_j|^(1-a) (SmoothQuant, arXiv:2211.10438). Where a layer
    norm alone feeds the products it takes the division in; elsewhere one multiplication is added.

    Args:
        prepared: fp32 ONNX file.
        smoothed: where the result goes.
        statistics: peaks per channel, from `measure`.
        strength: the exponent a in (0, 1).

    Returns:
        Number of activations that were smoothed.
    """
    import onnx

    model = onnx.load(prepared)
    known = constants(model)
    consumers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    uses: dict[str, int] = {name: len(nodes) for name, nodes in consumers.items()}
    changed = 0
    for name, nodes in consumers.items():
        products = [n for n in nodes if n.op_type in ("MatMul", "Gemm") and _scalable(n, name, known, uses)]
        if not products or name not in statistics.channels:
            continue
        factors = _factors(products, known, statistics.channels[name].peak, strength)
        for node in products:
            _scale_rows(known[node.input[1]], factors, attribute(node, "transB", 0))
        _divide(model, name, products, nodes, factors, known, uses)
        changed += 1
    onnx.save(model, smoothed)
    return changed


def _scalable(node: Any, name: str, known: dict[str, Any], uses: dict[str, int]) -> bool:
    """The weight is a constant matrix of this node alone, and the tensor its plain left operand."""
    weight = known.get(node.input[1])
    plain = node.input[0] == name and not attribute(node, "transA", 0)
    return weight is not None and plain and len(weight.dims) == 2 and uses[node.input[1]] == 1


def _factors(products: list[Any], known: dict[str, Any], peak: np.ndarray, strength: float) -> np.ndarray:
    from onnx import numpy_helper

    rows = np.zeros_like(peak)
    for node in products:
        weight = np.abs(numpy_helper.to_array(known[node.input[1]]))
        rows = np.maximum(rows, weight.max(axis=0 if attribute(node, "transB", 0) else 1))
    # A channel that the calibration samples leave quiet may wake up on others; magnified without bound
    # it would then burst the range of all.
    peak = np.maximum(peak, max(float(peak.max()) / QUIETEST, 1e-5))
    rows = np.maximum(rows, max(float(rows.max()) / QUIETEST, 1e-5))
    factors = peak**strength / rows ** (1 - strength)
    # A power of two changes no bit of a mantissa, so the fp32 graph stays what it was.
    return np.exp2(np.round(np.log2(np.clip(factors, 2.0**-8, 2.0**8)))).astype(np.float32)


def _scale_rows(weight: Any, factors: np.ndarray, transposed: int) -> None:
    from onnx import numpy_helper

    values = numpy_helper.to_array(weight)
    scaled = values * (factors[None, :] if transposed else factors[:, None])
    weight.CopyFrom(numpy_helper.from_array(scaled.astype(np.float32), weight.name))


def _divide(
    model: Any,
    name: str,
    products: list[Any],
    nodes: list[Any],
    factors: np.ndarray,
    known: dict[str, Any],
    uses: dict[str, int],
) -> None:
    """Puts the division into the layer norm that writes `name`, or adds a multiplication after it."""
    import onnx
    from onnx import numpy_helper

    graph = model.graph
    place, writer = next(((i, n) for i, n in enumerate(graph.node) if name in n.output), (-1, None))
    public = {value.name for value in graph.output}
    parameters = list(writer.input[1:]) if writer is not None else []
    norm = writer is not None and writer.op_type == "LayerNormalization" and name not in public
    if norm and len(products) == len(nodes) and all(uses.get(p) == 1 for p in parameters):
        for parameter in parameters:
            tensor = known[parameter]
            values = numpy_helper.to_array(tensor) / factors
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), parameter))
        return
    scale = numpy_helper.from_array((1.0 / factors).astype(np.float32), f"{name}_smoothing")
    graph.initializer.append(scale)
    node = onnx.helper.make_node("Mul", [name, scale.name], [f"{name}_smoothed"], f"{name}_smoothing_node")
    graph.node.insert(place + 1, node)
    for product in products:
        product.input[0] = f"{name}_smoothed"
    info = next((v for v in (*graph.value_info, *graph.input) if v.name == name), None)
    if info is not None:
        copy = onnx.ValueInfoProto()
        copy.CopyFrom(info)
        copy.name = f"{name}_smoothed"
        graph.value_info.append(copy)
