"""Second moments of the inputs of a tower's layers: what a change of weights costs is read off them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pathclip.export.graphs.padding import word_places, words_alone
from pathclip.export.quantiser.prepare import attribute, constants

ROWS_PER_BATCH = 512
MOST_BYTES = 256 << 20  # of moments held at a time; a large tower takes several passes
Feeds = Callable[[], Iterable[Mapping[str, np.ndarray]]]


def second_moments(
    graph: Path, model: Any, nodes: Sequence[Any], feeds: Feeds, centred: Collection[str]
) -> Iterator[tuple[Any, np.ndarray]]:
    """The layers one by one, each with the mean of x xᵀ over rows x of its input.

    Args:
        graph: fp32 ONNX file.
        model: the same, loaded.
        nodes: Conv, MatMul and Gemm of it, with constant weights.
        feeds: gives the calibration batches, anew at each call.
        centred: names of nodes of whose x the mean is taken away first: of a layer whose bias is corrected
            afterwards the error's mean does not matter.

    Yields:
        (node, float32 [groups, k, k]), k being the weights of one output channel.
    """
    known = constants(model)
    for part in _parts(nodes, known):
        sums: dict[str, list[Any]] = {node.name: [0, 0.0, 0.0] for node in part}
        rng = np.random.default_rng(0)
        for values in _run(graph, model, sorted({node.input[0] for node in part}), feeds):
            for node in part:
                rows = input_rows(node, values[node.input[0]], tuple(known[node.input[1]].dims), rng)
                found = sums[node.name]
                by_group = rows.transpose(1, 2, 0)
                found[0] += len(rows)
                found[1] = found[1] + rows.sum(axis=0, dtype=np.float64)
                found[2] = found[2] + by_group @ by_group.transpose(0, 2, 1)
        for node in part:
            count, total, products = sums.pop(node.name)
            mean = total / count
            moments = products / count
            if node.name in centred:
                moments = moments - mean[:, :, None] * mean[:, None, :]
            yield node, moments.astype(np.float32)


def input_rows(node: Any, value: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A random part of the vectors that the weights of one output channel are multiplied with.

    Args:
        node: Conv, MatMul or Gemm.
        value: its input for one batch.
        shape: of its weight.
        rng: decides which rows.

    Returns:
        float32 [rows, groups, k].
    """
    if node.op_type != "Conv":
        flat = value.reshape(-1, value.shape[-1])
        return np.asarray(flat[rng.integers(len(flat), size=min(len(flat), ROWS_PER_BATCH))][:, None, :])
    given = {entry.name: list(entry.ints) for entry in node.attribute if entry.ints}
    rank = len(shape) - 2
    pads, strides = given.get("pads", [0] * 2 * rank), given.get("strides", [1] * rank)
    dilations = given.get("dilations", [1] * rank)
    sizes = value.shape[2:]
    picture = rng.integers(len(value), size=ROWS_PER_BATCH)
    starts = []
    for axis in range(rank):
        reach = dilations[axis] * (shape[2 + axis] - 1) + 1
        places = (sizes[axis] + pads[axis] + pads[axis + rank] - reach) // strides[axis] + 1
        starts.append(rng.integers(places, size=ROWS_PER_BATCH) * strides[axis] - pads[axis])
    taps = []
    for tap in np.ndindex(*shape[2:]):
        at = [starts[axis] + tap[axis] * dilations[axis] for axis in range(rank)]
        inside = np.all([(at[axis] >= 0) & (at[axis] < sizes[axis]) for axis in range(rank)], axis=0)
        seen = value[(picture, slice(None), *(np.clip(at[i], 0, sizes[i] - 1) for i in range(rank)))]
        taps.append(seen * inside[:, None])
    # [rows, channels, taps]: the order in which a filter's weights lie.
    return np.stack(taps, axis=2).reshape(ROWS_PER_BATCH, attribute(node, "group", 1), -1)


def _parts(nodes: Sequence[Any], known: Mapping[str, Any]) -> Iterator[list[Any]]:
    part: list[Any] = []
    held = 0
    for node in nodes:
        dims, groups = list(known[node.input[1]].dims), attribute(node, "group", 1)
        if node.op_type == "Conv":
            size = int(np.prod(dims[1:]))
        else:
            size = dims[1] if attribute(node, "transB", 0) else dims[0]
        needed = 4 * groups * size * size
        if part and held + needed > MOST_BYTES:
            yield part
            part, held = [], 0
        part.append(node)
        held += needed
    if part:
        yield part


def _run(graph: Path, model: Any, names: list[str], feeds: Feeds) -> Iterator[dict[str, np.ndarray]]:
    """Values of inner tensors, batch by batch."""
    import onnx
    import onnxruntime as ort

    inputs = {info.name for info in model.graph.input}
    present = {info.name for info in model.graph.output}
    inner = [name for name in names if name not in inputs]
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in inner
        if name not in present
    )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for feed in feeds():
        values = dict(zip(inner, session.run(inner, dict(feed)), strict=True)) if inner else {}
        places = word_places(model, feed)
        values = {name: words_alone(value, places) for name, value in values.items()}
        yield values | {name: feed[name] for name in names if name in inputs}
