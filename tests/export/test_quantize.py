from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from pathclip.export import ranges
from pathclip.export.prepare import prepare, smooth
from pathclip.export.quantize import coverage, kept_nodes, quantize_tower
from pathclip.export.recipe import OPERATORS, Recipe

RNG = np.random.default_rng(0)
DATA = (RNG.gamma(2.0, 1.0, (64, 6, 8, 8))).astype(np.float32)


def write(path, nodes, given, initializers, out_shape):
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, out_shape)
    constants = [
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in initializers.items()
    ]
    graph = helper.make_graph(nodes, "tower", [given], [output], initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


@pytest.fixture
def convolution(tmp_path):
    """Stem, depthwise, pointwise; each pointwise filter has one large value, so the rest round badly."""
    point = RNG.normal(0, 0.02, (16, 12, 1, 1))
    point[:, 0] = 3.0
    nodes = [
        helper.make_node("Conv", ["pixels", "w0"], ["a"], "stem", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "w1"], ["c"], "deep", group=12),
        helper.make_node("Relu", ["c"], ["d"], "relu2"),
        helper.make_node("Conv", ["d", "w2"], ["e"], "point"),
        helper.make_node("GlobalAveragePool", ["e"], ["f"], "pool"),
        helper.make_node("Flatten", ["f"], ["embedding"], "flat"),
    ]
    weights = {"w0": RNG.normal(0, 0.3, (12, 6, 3, 3)), "w1": RNG.normal(0, 0.5, (12, 1, 3, 3)), "w2": point}
    given = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 6, 8, 8])
    write(tmp_path / "fp32.onnx", nodes, given, weights, ["n", 16])
    prepare(tmp_path / "fp32.onnx", tmp_path / "prepared.onnx")
    return tmp_path / "prepared.onnx"


@pytest.fixture
def product(tmp_path):
    """A layer norm with two outlier channels before a matrix product, as transformers have."""
    gain = np.ones(16)
    gain[[3, 9]] = 60
    nodes = [
        helper.make_node("LayerNormalization", ["pixels", "g", "b"], ["x"], "norm"),
        helper.make_node("MatMul", ["x", "w"], ["y"], "product"),
        helper.make_node("Add", ["y", "bias"], ["embedding"], "add"),
    ]
    weights = {"g": gain, "b": np.zeros(16), "w": RNG.normal(0, 1, (16, 24)), "bias": RNG.normal(0, 1, 24)}
    weights["w"][[3, 9]] *= 0.05
    given = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 5, 16])
    write(tmp_path / "fp32.onnx", nodes, given, weights, ["n", 5, 24])
    prepare(tmp_path / "fp32.onnx", tmp_path / "prepared.onnx")
    return tmp_path / "prepared.onnx"


@pytest.mark.parametrize("stride", [1, 2])
def test_a_tap_of_the_kernel_counts_as_often_as_it_lies_inside_the_picture(stride):
    kernel, size = (5, 3), (4, 6)
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[2, 1, 2, 1], strides=[stride, stride])
    shares = np.zeros(kernel)
    tops, lefts = range(-2, 2, stride), range(-1, 5, stride)
    for top in tops:
        for left in lefts:
            for i in range(5):
                for j in range(3):
                    shares[i, j] += 0 <= top + i < 4 and 0 <= left + j < 6
    np.testing.assert_allclose(coverage(node, kernel, size), shares / (len(tops) * len(lefts)))


def run(graph, data):
    return ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"]).run(None, {"pixels": data})[0]


def quantised(graph, data, recipe):
    statistics = ranges.measure(graph, [{"pixels": data[:32]}, {"pixels": data[32:]}], OPERATORS)
    file = graph.parent / "int8.onnx"
    quantize_tower(graph, file, statistics, recipe)
    return run(file, data)


def test_bias_correction_takes_the_mean_shift_away(convolution):
    exact = run(convolution, DATA)
    plain = quantised(convolution, DATA, Recipe(bias_correction=False, keep_fp32=()))
    corrected = quantised(convolution, DATA, Recipe(keep_fp32=()))
    shift = [np.abs((rows - exact).mean(axis=0)).mean() for rows in (plain, corrected)]
    assert shift[1] < 0.4 * shift[0]


def test_the_stem_is_the_first_convolution_and_the_depthwise_one_after_it(convolution):
    model = onnx.load(convolution)
    assert kept_nodes(model, ["stem"]) == ("stem", "deep")
    assert kept_nodes(model, ["depthwise"]) == ("deep",)
    assert kept_nodes(model, ["poi"]) == ("point",)


def test_a_node_kept_in_fp32_keeps_its_float_weight(convolution):
    statistics = ranges.measure(convolution, [{"pixels": DATA}], OPERATORS)
    file = convolution.parent / "int8.onnx"
    assert quantize_tower(convolution, file, statistics, Recipe()).kept_fp32 == ("stem", "deep")
    kinds = {w.name: w.data_type for w in onnx.load(file).graph.initializer}
    assert kinds["w0"] == TensorProto.FLOAT and kinds["w2_quantized"] == TensorProto.INT8


def test_smoothing_leaves_fp32_as_it_was_and_brings_int8_nearer(product):
    data = np.random.default_rng(2).normal(0, 1, (64, 5, 16)).astype(np.float32)
    exact = run(product, data)
    statistics = ranges.measure(product, [{"pixels": data}], OPERATORS)
    smoothed = product.parent / "smooth.onnx"
    assert smooth(product, smoothed, statistics, 0.5) == 1
    np.testing.assert_allclose(run(smoothed, data), exact, rtol=1e-6, atol=1e-5)
    recipe = Recipe(calibration="minmax", keep_fp32=())
    before = np.abs(quantised(product, data, recipe) - exact).mean()
    after = np.abs(quantised(smoothed, data, recipe) - exact).mean()
    assert after < 0.5 * before


def test_a_channel_that_calibration_left_quiet_does_not_burst_the_range(product):
    data = np.random.default_rng(3).normal(0, 1, (64, 5, 16)).astype(np.float32)
    statistics = ranges.measure(product, [{"pixels": data}], OPERATORS)
    statistics.channels["x"].peak[5] = 0.0
    smoothed = product.parent / "smooth.onnx"
    smooth(product, smoothed, statistics, 0.7)
    gain = next(w for w in onnx.load(smoothed).graph.initializer if w.name == "g")
    factors = numpy_helper.to_array(gain)
    assert factors[5] <= 16 * factors[3]
