"""Exact integer arithmetic against a plain loop, against onnxruntime, and against sums that saturate."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from onnx import helper

from pathclip.export.gate.reference import (
    accumulate,
    check,
    check_layers,
    off,
    requantise,
    steps_apart,
    worst_inputs,
)
from pathclip.export.graphs.qdq import Graph, QuantisedLayer, quantised_layers
from tests.export import towers


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    return towers.quantise_network(towers.write_network(folder / "fp32.onnx"), folder / "int8.onnx")


def layer(op_type: str, weight, zero: int = 3, y=(0.5, 7), **attributes) -> QuantisedLayer:
    """A layer with steps of 1 and no bias."""
    node = helper.make_node(op_type, ["x", "w"], ["y"], "layer", **attributes)
    channels = weight.shape[0 if op_type == "Conv" or attributes.get("transB") else -1]
    one, nothing = np.ones(1), np.zeros(1)
    return QuantisedLayer(node, (), "x", 1.0, zero, weight, one, nothing, np.zeros(channels), y, "y")


def looped(x, weight, zero, group=1, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1)):
    """Convolution by its definition, one output at a time, in int64."""
    x = np.pad(x.astype(np.int64) - zero, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    out, per_group, *taps = weight.shape
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, taps, strict=True)]
    size = [(n - r) // s + 1 for n, r, s in zip(x.shape[2:], reach, strides, strict=True)]
    sums = np.zeros((len(x), out, *size), np.int64)
    for n, o, i, j in itertools.product(range(len(x)), range(out), range(size[0]), range(size[1])):
        first = o // (out // group) * per_group
        for c, a, b in itertools.product(range(per_group), range(taps[0]), range(taps[1])):
            value = x[n, first + c, i * strides[0] + a * dilations[0], j * strides[1] + b * dilations[1]]
            sums[n, o, i, j] += value * int(weight[o, c, a, b])
    return sums


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((4, 6, 3, 3), {}),
        ((4, 6, 3, 3), {"strides": [2, 1], "pads": [0, 1, 1, 2]}),
        ((4, 6, 1, 1), {"strides": [2, 2]}),
        ((6, 1, 3, 3), {"group": 6, "pads": [1, 1, 1, 1]}),
        ((12, 1, 3, 2), {"group": 6, "strides": [1, 2]}),
        ((4, 3, 2, 3), {"group": 2, "dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    ],
)
def test_sums_of_a_convolution_are_those_of_its_definition(shape, attributes):
    rng = np.random.default_rng(0)
    weight = rng.integers(-128, 128, shape, np.int8)
    x = rng.integers(0, 256, (2, 6, 7, 8), np.uint8)
    sums = accumulate(layer("Conv", weight, 3, **attributes), x)
    assert np.array_equal(sums, looped(x, weight, 3, **attributes))


@pytest.mark.parametrize("transposed", [False, True])
def test_sums_of_a_product_of_matrices_are_those_of_int64(transposed):
    rng = np.random.default_rng(0)
    weight = rng.integers(-128, 128, (300, 20), np.int8)
    x = rng.integers(0, 256, (5, 300), np.uint8)
    expected = (x.astype(np.int64) - 3) @ weight.astype(np.int64)
    given = layer("Gemm", weight.T, 3, transB=1) if transposed else layer("MatMul", weight, 3)
    assert np.array_equal(accumulate(given, x), expected)


def test_outputs_are_rounded_to_the_nearest_step_and_clipped():
    sums = np.array([[0.0, 0.3, 0.2, -10.0, 1000.0]])
    given = layer("MatMul", np.zeros((1, 5), np.int8), y=(0.5, 7))
    assert requantise(given, sums).tolist() == [[7, 8, 7, 0, 255]]


def test_onnxruntime_agrees_with_the_reference_on_every_form_of_layer(int8):
    checks = check_layers(int8, "image", towers.make_samples())
    assert [one.name for one in checks] == ["stem", "depthwise", "grouped", "pointwise", "product", "head"]
    assert {one.op_type for one in checks} == {"Conv", "MatMul", "Gemm"}
    assert all(one.outputs > 1000 and one.differ == 0 and one.largest <= 1 for one in checks)


def test_of_many_layers_a_sample_is_checked(int8):
    assert [one.name for one in check_layers(int8, "image", towers.make_samples(), most=2)] == [
        "stem",
        "head",
    ]


def pairs_in_16_bits(x, weight):
    """What `vpmaddubsw` makes of a product: neighbouring products added in 16 bits, cut at both ends."""
    products = x.astype(np.int64)[:, :, None] * weight.astype(np.int64)
    return np.clip(products[:, 0::2] + products[:, 1::2], -(2**15), 2**15 - 1).sum(axis=1)


@pytest.mark.parametrize(("largest", "saturates"), [(64, False), (127, True)])
@pytest.mark.parametrize("y", [None, (2000.0, 128)], ids=["float output", "quantised output"])
def test_saturated_sums_differ_from_the_reference_with_eight_bits_and_not_with_seven(largest, saturates, y):
    weight = np.random.default_rng(0).integers(-largest, largest + 1, (64, 8)).astype(np.int8)
    given = layer("MatMul", weight, zero=0, y=y)
    (x,) = worst_inputs(given)
    runtime = requantise(given, pairs_in_16_bits(x, weight).astype(np.float64))
    difference = steps_apart(given, accumulate(given, x), runtime)
    assert bool((difference > 1).any()) is saturates


def test_worst_inputs_reach_the_largest_sum_of_a_channel():
    weight = np.random.default_rng(0).integers(-64, 65, (8, 3, 3, 3)).astype(np.int8)
    given = layer("Conv", weight, zero=0)
    (x,) = worst_inputs(given)
    first = weight[0].astype(np.int64)
    sums = accumulate(given, x)[:, 0]
    assert sums.max() == 255 * first[first > 0].sum() and sums.min() == 255 * first[first < 0].sum()


def test_a_sum_beyond_32_bits_is_wrong_whatever_comes_out():
    given = layer("MatMul", np.zeros((1, 4), np.int8))
    given = dataclasses.replace(given, bias=np.array([0.0, 2.0**31 - 1, 2.0**31, -(2.0**31)]))
    nothing = np.zeros((1, 4))
    assert off(given, nothing, nothing).tolist() == [[False, False, True, True]]
    assert off(given, nothing, nothing + 1.5).all() and not off(given, nothing, nothing + 1)[0, 0]


def test_a_weight_that_changed_in_the_runtime_is_found(int8):
    graph = Graph(int8)
    given = next(quantised_layers(graph))
    other = dataclasses.replace(given, w=np.roll(given.w, 1))
    assert check(graph, other, list(worst_inputs(given))).differ > 0
