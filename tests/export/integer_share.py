"""Share of a tower's multiplications with weights that onnxruntime's kernels do in integers."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from pathclip.export.quantiser.prepare import constants, weighted

_FLOAT_KERNELS = {"Conv", "FusedConv", "MatMul", "FusedMatMul", "Gemm", "FusedGemm"}


def integer_share(prepared: Path, int8: Path) -> tuple[float, list[str]]:
    """The share in 0–1, and the names of the layers whose kernel is a float one.

    Args:
        prepared: the fp32 graph that was quantised; says how much each layer multiplies.
        int8: the graph that is run.
    """
    exact = onnx.load(prepared)
    work, names = multiplications(exact), _names(exact)
    inner = optimised(int8)
    known = constants(inner)
    writers = {name: node.op_type for node in inner.graph.node for name in node.output}
    floats = [
        names[node.name.removesuffix("_nchwc")]
        for node in inner.graph.node
        if node.op_type in _FLOAT_KERNELS
        and (node.input[1] in known or writers.get(node.input[1]) == "DequantizeLinear")
    ]
    return 1 - sum(work[name] for name in floats) / sum(work.values()), floats


def multiplications(model: Any) -> dict[str, int]:
    """Name of a layer with constant weights → its products for one sample."""
    known = constants(model)
    shapes = {
        info.name: [max(int(dim.dim_value), 1) for dim in info.type.tensor_type.shape.dim]
        for info in (*model.graph.value_info, *model.graph.output)
    }
    found = {}
    for node in weighted(model):
        out = shapes[node.output[0]]
        places = out[2:] if node.op_type == "Conv" else out[1:-1]
        found[node.name] = prod(known[node.input[1]].dims) * prod(places)
    return found


def _names(model: Any) -> dict[str, str]:
    """What onnxruntime may call a layer → its name: its own layout is named after the (activated) output."""
    names = {}
    for node in weighted(model):
        names[node.name] = names[node.output[0]] = node.name
        for reader in model.graph.node:
            if node.output[0] in reader.input and reader.op_type in ("Clip", "Relu"):
                names[reader.output[0]] = node.name
    return names


def optimised(file: Path) -> Any:
    """The graph as onnxruntime runs it on this machine."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(file.with_suffix(".optimised.onnx"))
    ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return onnx.load(options.optimized_model_filepath)
