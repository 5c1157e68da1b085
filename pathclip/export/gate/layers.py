"""How far each weighted layer of an int8 tower is from fp32, as a signal-to-noise ratio."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.export.calibration.samples import Samples
from pathclip.export.graphs.qdq import ACTIVATIONS, PRODUCTS, Graph
from pathclip.export.graphs.session import session_of

# All layers' outputs are in memory at once, twice.
BATCH = 4
# What quantize_static puts behind a tensor's name for the tensor that has been through eight bits.
QUANTISED = "_DequantizeLinear_Output"


@dataclass(frozen=True, slots=True)
class LayerError:
    """One weighted layer of a tower.

    Attributes:
        name: of the node, the same in the prepared fp32 graph and in the int8 graph.
        op_type: Conv, MatMul, Gemm or Gather.
        snr_db: 10·log10(Σ fp32² / Σ(fp32 - int8)²) of the layer's output in the whole network, so with
            the error that came in from the layers before; infinite where both are equal.
        kept_fp32: whether the layer's weight stayed in fp32.
        reason: why, of those that stayed.
        alone_db: the same of the layer alone, fed with the exact input in eight bits; NaN of a layer that
            stayed in fp32 and of a table.
    """

    name: str
    op_type: str
    snr_db: float
    kept_fp32: bool
    reason: str = ""
    alone_db: float = math.nan


@dataclass(frozen=True, slots=True)
class _Pair:
    """A layer in both graphs: its node in int8, and the tensors to compare."""

    node: Any
    exact: str
    small: str
    kept_fp32: bool


def layer_errors(
    fp32: Path, int8: Path, tower: str, samples: Samples, reasons: Mapping[str, str]
) -> tuple[LayerError, ...]:
    """The error of every weighted layer, in graph order.

    Compared is what the next layer sees: the output with the activation function after it, and quantised
    where the graph quantises it. Both graphs run as they are written.

    Args:
        fp32: the prepared (or smoothed, or equalised) fp32 graph that was quantised; its nodes have the
            names of the int8 graph's. Layers that it does not have are left out.
        int8: the QDQ graph made of it.
        tower: 'image' or 'text'.
        samples: what is fed, four at a time; 16 of them settle a ratio to a tenth of a decibel.
        reasons: node name → why it stayed in fp32.
    """
    exact, small = Graph(fp32), Graph(int8)
    pairs = list(_pairs(exact, small))
    alone, fed = _alone(exact, small, pairs)
    measured = {output.name for output in alone.graph.output}
    sides = [
        _reading(exact, {*(pair.exact for pair in pairs), *fed.values()}),
        _reading(small, {pair.small for pair in pairs}),
        _reading(Graph(alone), set()) if fed else None,
    ]
    sums = np.zeros((len(pairs), 3))  # of fp32², of (fp32 - int8)², of (fp32 - the layer alone)²
    for start in range(0, len(samples), BATCH):
        feed = next(samples.part(start, start + BATCH).feeds(tower))
        before, after = _run(sides[0], feed), _run(sides[1], feed)
        single = _run(sides[2], {name: before.get(source, feed.get(source)) for name, source in fed.items()})
        for place, pair in enumerate(pairs):
            signal = before[pair.exact]
            sums[place, 0] += _energy(signal)
            sums[place, 1] += _energy(signal - after[pair.small])
            if (own := _own(pair, pair.small)) in single:
                sums[place, 2] += _energy(signal - single[own])
    return tuple(
        LayerError(
            pair.node.name,
            pair.node.op_type,
            decibels(signal, noise),
            pair.kept_fp32,
            reasons.get(pair.node.name, "") if pair.kept_fp32 else "",
            decibels(signal, own) if _own(pair, pair.small) in measured else math.nan,
        )
        for pair, (signal, noise, own) in zip(pairs, sums, strict=True)
    )


def decibels(signal: float, noise: float) -> float:
    """10·log10(signal / noise), both sums of squares; infinite without noise.

    >>> decibels(100.0, 1.0), decibels(1.0, 0.0)
    (20.0, inf)
    """
    if noise <= 0.0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0.0 else -math.inf


def _pairs(exact: Graph, small: Graph) -> Iterator[_Pair]:
    """Every weighted layer that both graphs have."""
    originals = {node.name: node for node in exact.model.graph.node}
    for node in small.model.graph.node:
        original = originals.get(node.name)
        weight = _weight(small, node)
        if original is None or weight is None:
            continue
        wanted = _with_activation(exact, original.output[0])
        # Where the quantiser left the activation function out, the quantised range does the clipping.
        got = _quantised(small, _with_activation(small, node.output[0]))
        yield _Pair(node, wanted, got, weight in node.input)


def _weight(graph: Graph, node: Any) -> str | None:
    """The constant that a node multiplies with or looks up in; float, or integers behind a dequantiser."""
    if node.op_type in PRODUCTS:
        name = node.input[1]
    elif node.op_type == "Gather":
        name = node.input[0]
    else:
        return None
    if name in graph.constants:
        constant = graph.constants[name]
        table = node.op_type != "Gather" or (len(constant.dims) == 2 and constant.data_type == 1)
        return name if table else None
    source = graph.dequantiser(name)
    return source.input[0] if source is not None and source.input[0] in graph.constants else None


def _with_activation(graph: Graph, name: str) -> str:
    after = graph.only_reader(name, *ACTIVATIONS)
    return after.output[0] if after is not None else name


def _quantised(graph: Graph, name: str) -> str:
    """The tensor after eight bits if it is quantised, else itself."""
    after = graph.only_reader(name, "QuantizeLinear")
    readers = graph.readers.get(after.output[0], []) if after is not None else []
    if not readers or readers[0].op_type != "DequantizeLinear":
        return name
    return str(readers[0].output[0])


def _alone(exact: Graph, small: Graph, pairs: list[_Pair]) -> tuple[Any, dict[str, str]]:
    """One model with each quantised product by itself: float in, quantised, multiplied, float out.

    Returns:
        The model, and its inputs → the tensors of the fp32 graph that they are fed with.
    """
    import onnx

    helper, float_type = onnx.helper, onnx.TensorProto.FLOAT
    graph = onnx.GraphProto(name="layers")
    fed: dict[str, str] = {}
    known = {*exact.writers, *(value.name for value in exact.model.graph.input)}
    for pair in pairs:
        x = small.dequantiser(pair.node.input[0]) if pair.node.op_type in PRODUCTS else None
        quantiser = small.writers.get(x.input[0]) if x is not None else None
        source = x.output[0].removesuffix(QUANTISED) if x is not None else ""
        if pair.kept_fp32 or quantiser is None or source not in known:
            continue
        # The quantiser after one layer is the one before the next: each layer has copies of its own.
        for node in (quantiser, *_chain(small, pair)):
            copy = graph.node.add()
            copy.CopyFrom(node)
            copy.name = _own(pair, node.name)
            copy.input[:] = [name if name in small.constants else _own(pair, name) for name in node.input]
            copy.output[:] = [_own(pair, name) for name in node.output]
        fed[_own(pair, quantiser.input[0])] = source
        graph.output.append(helper.make_tensor_value_info(_own(pair, pair.small), float_type, None))
    graph.input.extend(helper.make_tensor_value_info(name, float_type, None) for name in fed)
    names = dict.fromkeys(name for node in graph.node for name in node.input if name in small.constants)
    graph.initializer.extend(small.constants[name] for name in names)
    opsets = small.model.opset_import
    return helper.make_model(graph, opset_imports=opsets, ir_version=small.model.ir_version), fed


def _own(pair: _Pair, name: str) -> str:
    """A tensor's name among those of one layer alone; an optional input that is not given stays so."""
    return f"{pair.node.name}/{name}" if name else ""


def _chain(graph: Graph, pair: _Pair) -> Iterator[Any]:
    """The nodes of one layer: its dequantisers, itself, and what leads from it to the tensor compared."""
    for name in pair.node.input:
        source = graph.dequantiser(name)
        if source is not None:
            yield source
    yield pair.node
    name = pair.node.output[0]
    while name != pair.small:
        following = graph.readers[name][0]
        yield following
        name = following.output[0]


def _reading(graph: Graph, names: set[str]) -> Any:
    """A session of the graph as it is written that also gives these inner tensors."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    inner = sorted(names - graph.outputs - {value.name for value in model.graph.input})
    float_type = onnx.TensorProto.FLOAT
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, float_type, None) for name in inner)
    return session_of(model, optimise=False)


def _run(session: Any, feed: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    if session is None:
        return {}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feed)), strict=True))


def _energy(values: NDArray[np.float32]) -> float:
    flat = values.astype(np.float64).ravel()
    return float(flat @ flat)
