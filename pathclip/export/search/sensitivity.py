"""Which layers cost the embedding most when they alone are quantised. Measured, one layer after another."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.export.calibration.samples import Samples
from pathclip.export.graphs.qdq import Graph, QuantisedLayer, quantised_layers
from pathclip.export.graphs.session import session_of
from pathclip.progress import track
from pathclip.runtime.encoder import normalise


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What one layer costs.

    Attributes:
        name: of its node.
        op_type: Conv, MatMul or Gemm.
        cost: 1 - mean cosine similarity to fp32 with this layer quantised and all others in fp32.
    """

    name: str
    op_type: str
    cost: float


def sensitivities(
    fp32: Path, int8: Path, tower: str, samples: Samples, ends: float = math.inf
) -> tuple[tuple[Sensitivity, ...], int]:
    """Quantises every layer alone: its input in eight bits, its weight and bias as the int8 graph has them.

    Where time ends early, those measured are spread over the network.

    Args:
        fp32: the graph that was quantised, whose nodes have the names of the int8 graph's.
        int8: the QDQ graph made of it, whose ranges and weights are taken.
        tower: 'image' or 'text'.
        samples: what to embed; few are enough to rank by.
        ends: no layer begins when `time.monotonic()` is past this.

    Returns:
        The layers measured, the costliest first; and how many there are to measure.
    """
    graph = Graph(fp32)
    nodes = {node.name: node for node in graph.model.graph.node}
    exact = _embeddings(graph.model, tower, samples)
    found = []
    layers = [layer for layer in quantised_layers(Graph(int8)) if layer.node.name in nodes]
    for place in track(spread(len(layers)), f"Sensitivity of each layer, {tower} tower"):
        if time.monotonic() > ends:
            break
        layer = layers[place]
        with _quantised_alone(graph, nodes[layer.node.name], layer):
            rows = _embeddings(graph.model, tower, samples)
        cost = 1 - float((exact * rows).sum(axis=1).mean())
        found.append(Sensitivity(layer.node.name, layer.node.op_type, max(cost, 0.0)))
    return tuple(sorted(found, key=lambda one: -one.cost)), len(layers)


def spread(count: int) -> list[int]:
    """The numbers from 0 to before `count`, in an order of which every beginning lies all over them.

    >>> spread(8)
    [0, 4, 2, 6, 1, 5, 3, 7]
    """
    digits = max(count - 1, 0).bit_length()
    order = (int(f"{number:0{digits}b}"[::-1], 2) for number in range(1 << digits))
    return [number for number in order if number < count]


@contextmanager
def _quantised_alone(graph: Graph, node: Any, layer: QuantisedLayer) -> Iterator[None]:
    """The fp32 graph with one layer quantised; afterwards it is as it was."""
    from onnx import helper, numpy_helper

    proto = graph.model.graph
    inputs, nodes, constants = list(node.input), len(proto.node), len(proto.initializer)
    place = next(number for number, one in enumerate(proto.node) if one is node or one.name == node.name)

    def constant(name: str, values: NDArray[Any]) -> str:
        proto.initializer.append(numpy_helper.from_array(values, f"alone_{name}"))
        return f"alone_{name}"

    step = [
        constant("scale", np.array(layer.x_scale, np.float32)),
        constant("zero", np.array(layer.x_zero, np.uint8)),
    ]
    around = [
        helper.make_node("QuantizeLinear", [inputs[0], *step], ["alone_q"], "alone_quantise"),
        helper.make_node("DequantizeLinear", ["alone_q", *step], ["alone_x"], "alone_dequantise"),
    ]
    node.input[0] = "alone_x"
    node.input[1] = constant("w", _weight(layer))
    if len(inputs) > 2 and inputs[2]:
        node.input[2] = constant("b", layer.bias.astype(np.float32))
    for offset, one in enumerate(around):
        proto.node.insert(place + offset, one)
    try:
        yield
    finally:
        for _ in around:
            del proto.node[place]
        assert len(proto.node) == nodes
        del proto.initializer[constants:]
        restored = proto.node[place]
        del restored.input[:]
        restored.input.extend(inputs)


def _weight(layer: QuantisedLayer) -> NDArray[np.float32]:
    """The weight's integers as the floats that they stand for."""
    shape = [1] * layer.w.ndim
    shape[layer.out_axis] = -1
    scale, zero = layer.w_scale.reshape(shape), layer.w_zero.reshape(shape)
    return ((layer.w.astype(np.float64) - zero) * scale).astype(np.float32)


def _embeddings(model: Any, tower: str, samples: Samples) -> NDArray[np.float32]:
    session = session_of(model)
    return normalise(np.concatenate([session.run(None, feed)[0] for feed in samples.feeds(tower)]))
