"""How much a tower multiplies, and how much of the processor's peak that is."""

from __future__ import annotations

import math
from typing import Any

from pathclip.model_folder import ModelFolder
from pathclip.runtime.cpu import Cpu
from pathclip.runtime.tower import brief, read_tower

# int8 operations per fp32 operation that the same units can start: see `pathclip.runtime.cpu`.
_INT8_PER_FP32 = (("amx_int8", 32), ("vnni", 4), ("i8mm", 8), ("dotprod", 4), ("avx2", 2))


def count_macs(folder: ModelFolder, tower: str) -> tuple[int | None, str]:
    """Products that are summed, for one picture or text: of Conv, Gemm and MatMul, attention's included.

    Args:
        folder: an open model folder; of its ONNX, fp32 or QDQ, the smaller is read, compared with the card.
        tower: 'image' or 'text'.

    Returns:
        The number and '', or None and why it is not known: speed can be told without it.
    """
    files = [name for name in (f"onnx/{tower}_int8.onnx", f"onnx/{tower}_fp32.onnx") if folder.has(name)]
    if not files:
        return None, f"the folder has no ONNX of the {tower} tower"
    try:
        import onnx
    except ImportError:
        return None, "the package onnx is not installed"
    try:
        return _count(onnx, read_tower(folder, files[0])), ""
    except (KeyError, IndexError):
        return None, f"{files[0]}: a shape cannot be inferred"
    except Exception as error:  # protobuf's and onnx's exceptions share no base class but this
        return None, brief(error)


def _count(onnx: Any, content: bytes) -> int:
    model = onnx.load_model_from_string(content)
    for dim in model.graph.input[0].type.tensor_type.shape.dim[:1]:
        dim.dim_value = 1
    # The shapes in the file have the batch in them, and in a quantised one names for what was not followed.
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = [dim.dim_value for dim in dims]
    return sum(_macs(node, shapes) for node in graph.node)


def float_peak(machine: Cpu) -> float:
    """Estimated fp32 operations per second, a product and a sum counting as two; 0 where unknown."""
    for feature, factor in _INT8_PER_FP32:
        if getattr(machine, feature):
            return machine.int8_peak / factor
    return 0.0


def _macs(node: Any, shapes: dict[str, list[int]]) -> int:
    if node.op_type not in ("Conv", "Gemm", "MatMul"):
        return 0
    first, second = shapes[node.input[0]], shapes[node.input[1]]
    if node.op_type == "Conv":
        return math.prod(shapes[node.output[0]]) * math.prod(second[1:])
    transposed = any(entry.name == "transA" and entry.i for entry in node.attribute)
    return math.prod(shapes[node.output[0]]) * first[0 if transposed else -1]
