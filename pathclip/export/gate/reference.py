"""What the quantised layers must give, in exact integers, beside what onnxruntime gives.

A QDQ graph says what to compute: the sum of integer products of activation and weight, then one rounding
to the step of the output. Integer sums have one right answer, so any two CPUs that compute them agree, and
a runtime that saturates is found out. Products and sums of integers below 2⁵³ are exact in float64, which
is why the sums here are float64 matrix products: the numbers of int64, at the speed of BLAS.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.export.calibration.samples import Samples
from pathclip.export.graphs.qdq import Graph, QuantisedLayer, attributes, quantised_layers
from pathclip.export.graphs.session import session_of

REAL_SAMPLES = 2  # every layer sees hundreds of places of each
WORST_CHANNELS = 3
WORST_SIZE = 8  # height and width of worst-case inputs, where the kernel reaches no farther
WORST_ROWS = 8
# A float sum of products rounds; an integer sum does not.
FLOAT_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class LayerCheck:
    """One layer, computed by onnxruntime and in exact integers.

    Attributes:
        name: of the node.
        op_type: Conv, MatMul or Gemm.
        outputs: values compared.
        differ: those that differ by more than one step, or whose sum does not fit the 32 bits that every
            runtime gives it.
        largest: the largest difference, in steps: of the quantised output or, where the output is float, of
            the 32-bit sum.
    """

    name: str
    op_type: str
    outputs: int
    differ: int
    largest: float


def check_layers(int8: Path, tower: str, samples: Samples, most: int = 64) -> tuple[LayerCheck, ...]:
    """Compares quantised layers one by one, on their real inputs and on those that saturate first.

    Args:
        int8: a QDQ graph.
        tower: 'image' or 'text'.
        samples: the first of them give the real inputs.
        most: layers compared; of more, as many at equal distances.
    """
    graph = Graph(int8)
    layers = [layer for layer in quantised_layers(graph) if supported(layer)]
    chosen = [
        layers[i] for i in np.unique(np.linspace(0, len(layers) - 1, min(most, len(layers))).astype(int))
    ]
    real = captured(graph, [layer.x for layer in chosen], tower, samples.part(0, REAL_SAMPLES))
    return tuple(check(graph, layer, [real[layer.x], *worst_inputs(layer)]) for layer in chosen)


def check(graph: Graph, layer: QuantisedLayer, inputs: Sequence[NDArray[Any]]) -> LayerCheck:
    """Compares one layer on quantised inputs of its own shapes."""
    session = session_of(layer_model(graph, layer))
    outputs, differ, largest = 0, 0, 0.0
    for x in inputs:
        sums = accumulate(layer, x)
        difference = steps_apart(layer, sums, session.run(None, {layer.x: x})[0])
        outputs += difference.size
        differ += int(off(layer, sums, difference).sum())
        largest = max(largest, float(difference.max(initial=0.0)))
    return LayerCheck(layer.node.name, layer.node.op_type, outputs, differ, largest)


def supported(layer: QuantisedLayer) -> bool:
    """Whether the reference knows the layer's form: it does of all that torch's exporter writes."""
    given = attributes(layer.node)
    plain = all(given.get(name, 1.0) == 1.0 for name in ("alpha", "beta")) and not given.get("transA", 0)
    padded = given.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    return plain and padded and layer.w.ndim == (4 if layer.node.op_type == "Conv" else 2)


def accumulate(layer: QuantisedLayer, x: NDArray[Any]) -> NDArray[np.float64]:
    """The exact sums of integer products, without bias.

    Args:
        layer: what multiplies.
        x: quantised activation, [n, c, h, w] or [..., k].

    Returns:
        float64 that holds integers, of the output's shape.
    """
    given = attributes(layer.node)
    shape = [1] * layer.w.ndim
    shape[layer.out_axis] = -1
    weight = layer.w.astype(np.float64) - layer.w_zero.reshape(shape)
    centred = x.astype(np.float64) - layer.x_zero
    if layer.node.op_type == "Conv":
        return _convolve(centred, weight, given)
    return np.asarray(centred @ (weight.T if given.get("transB", 0) else weight))


def off(
    layer: QuantisedLayer, sums: NDArray[np.float64], difference: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which outputs are wrong: more than one step away, or of a sum that int32 does not hold.

    Runtimes add the bias in the same 32 bits; what wraps round may be near by luck.
    """
    whole = sums + _per_channel(layer, layer.bias / (layer.w_scale * layer.x_scale))
    return np.asarray((difference > 1) | (np.abs(whole) >= 2**31))


def requantise(layer: QuantisedLayer, sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """The layer's output as the QDQ graph defines it: real values, or integers where it is quantised."""
    step, bias = _per_channel(layer, layer.w_scale * layer.x_scale), _per_channel(layer, layer.bias)
    real = sums * step + bias
    if layer.y is None:
        return real
    scale, zero = layer.y
    return np.clip(np.rint(real / scale) + zero, 0, 255)


def steps_apart(layer: QuantisedLayer, sums: NDArray[np.float64], got: NDArray[Any]) -> NDArray[np.float64]:
    """Difference of a runtime's output from the exact one, in steps, of the output's shape.

    Of a float output the step is that of the 32-bit sum, and float's own rounding is allowed for.
    """
    expected = requantise(layer, sums)
    difference = np.abs(got.astype(np.float64) - expected)
    if layer.y is not None:
        return difference
    allowed = FLOAT_ROUNDING * np.abs(expected)
    return np.maximum(difference - allowed, 0.0) / _per_channel(layer, layer.w_scale * layer.x_scale)


def captured(graph: Graph, names: Sequence[str], tower: str, samples: Samples) -> dict[str, NDArray[Any]]:
    """Quantised activations of the graph as it is written, by name."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None))
    session = session_of(model, optimise=False)
    feed = next(samples.feeds(tower))
    return dict(zip(wanted, session.run(wanted, feed) if wanted else [], strict=True))


def worst_inputs(layer: QuantisedLayer) -> Iterator[NDArray[Any]]:
    """Activations at their largest: everywhere, and wherever a channel's weights have one sign.

    Two neighbouring weights of one sign with activations of 255 make the largest sum there is.
    """
    channels = np.unique(np.linspace(0, layer.w.shape[layer.out_axis] - 1, WORST_CHANNELS).astype(int))
    if layer.node.op_type != "Conv":
        weight = np.moveaxis(layer.w, layer.out_axis, 0)
        rows = [np.full(weight.shape[1], True)]
        rows += [side for c in channels for side in (weight[c] > 0, weight[c] < 0)]
        yield np.tile(np.stack(rows), (WORST_ROWS, 1)).astype(np.uint8) * 255
        return
    given = attributes(layer.node)
    dilations = given.get("dilations", [1, 1])
    groups = given.get("group", 1)
    per_group = len(layer.w) // groups
    size = [
        max(WORST_SIZE, dilation * (taps - 1) + 1)
        for taps, dilation in zip(layer.w.shape[2:], dilations, strict=True)
    ]
    tile = np.ix_(
        *(np.arange(n) // d % taps for n, d, taps in zip(size, dilations, layer.w.shape[2:], strict=True))
    )
    pictures = [np.full((layer.w.shape[1] * groups, *size), True)]
    for channel in channels:
        # The same channel of every group, its kernel repeated over the picture like tiles.
        weight = layer.w[channel % per_group :: per_group].reshape(-1, *layer.w.shape[2:])
        repeated = weight[(slice(None), *tile)]
        pictures += [repeated > 0, repeated < 0]
    yield np.stack(pictures).astype(np.uint8) * 255


def layer_model(graph: Graph, layer: QuantisedLayer) -> Any:
    """A model of the layer alone, from quantised input to its output, with the nodes of the graph."""
    import onnx

    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [*layer.around, layer.node]
    if layer.y is not None:  # the quantiser of the output comes after the layer
        nodes = [*layer.around[:-1], layer.node, layer.around[-1]]
    names = dict.fromkeys(name for node in nodes for name in node.input if name in graph.constants)
    rank = layer.w.ndim if layer.node.op_type != "MatMul" else None
    free = [None] * rank if rank is not None else None
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "layer",
            [helper.make_tensor_value_info(layer.x, kinds.UINT8, free)],
            [helper.make_tensor_value_info(layer.output, kinds.UINT8 if layer.y else kinds.FLOAT, free)],
            initializer=[graph.constants[name] for name in names],
        ),
        opset_imports=graph.model.opset_import,
        ir_version=graph.model.ir_version,
    )
    return model


def _convolve(x: NDArray[np.float64], weight: NDArray[np.float64], given: Any) -> NDArray[np.float64]:
    """Cross-correlation [n, out, h, w], tap by tap, each tap a product of matrices."""
    groups, strides = given.get("group", 1), given.get("strides", [1, 1])
    dilations, pads = given.get("dilations", [1, 1]), given.get("pads", [0, 0, 0, 0])
    # A padded place is the real number zero, which a centred activation has at 0.
    x = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    taps = weight.shape[2:]
    places = [
        (x.shape[2 + axis] - dilations[axis] * (taps[axis] - 1) - 1) // strides[axis] + 1 for axis in (0, 1)
    ]
    n, channels = x.shape[:2]
    depthwise = weight.shape[1] == 1 and len(weight) == channels
    sums = np.zeros((n, groups, len(weight) // groups, places[0] * places[1]))
    for i in range(taps[0]):
        for j in range(taps[1]):
            down, right = i * dilations[0], j * dilations[1]
            seen = x[:, :, down:, right:][:, :, :: strides[0], :: strides[1]][:, :, : places[0], : places[1]]
            if depthwise:
                product = seen.reshape(n, groups, 1, -1) * weight[:, 0, i, j].reshape(groups, 1, 1)
            else:
                matrix = weight[:, :, i, j].reshape(groups, len(weight) // groups, -1)
                product = matrix @ seen.reshape(n, groups, channels // groups, -1)
            sums += product
    return sums.reshape(n, len(weight), *places)


def _per_channel(layer: QuantisedLayer, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values per output channel, shaped to go with the output."""
    if values.size == 1:
        return values.reshape(())
    return values.reshape(-1, 1, 1) if layer.node.op_type == "Conv" else values
