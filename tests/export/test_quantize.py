from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pathclip.errors import ConfigError
from pathclip.export.quantiser import ranges
from pathclip.export.quantiser.bias import coverage
from pathclip.export.quantiser.prepare import smooth
from pathclip.export.quantiser.quantize import hold_in_fp32, kept_nodes, weighted_nodes
from pathclip.export.quantiser.recipe import OPERATORS, Recipe
from tests.export import graphs
from tests.export.graphs import DATA, in_fp32, integer_weights, quantised, run


@pytest.fixture
def convolution(tmp_path):
    return graphs.convolution(tmp_path)


@pytest.fixture
def product(tmp_path):
    return graphs.product(tmp_path)


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


def test_bias_correction_takes_the_mean_shift_away(convolution):
    exact = run(convolution, DATA)
    plain = run(quantised(convolution, DATA, Recipe(bias_correction=False, keep_fp32=())).file, DATA)
    corrected = run(quantised(convolution, DATA, Recipe(keep_fp32=())).file, DATA)
    shift = [np.abs((rows - exact).mean(axis=0)).mean() for rows in (plain, corrected)]
    assert shift[1] < 0.4 * shift[0]


def test_two_products_that_share_a_bias_are_corrected_each_for_itself(tmp_path):
    rng = np.random.default_rng(4)
    nodes = [
        *(helper.make_node("MatMul", ["pixels", f"w{n}"], [f"y{n}"], f"product{n}") for n in (0, 1)),
        *(helper.make_node("Add", [f"y{n}", "bias"], [f"z{n}"], f"add{n}") for n in (0, 1)),
        helper.make_node("Concat", ["z0", "z1"], ["embedding"], "both", axis=-1),
    ]
    weights = {f"w{n}": rng.normal(0, 1, (16, 8)) for n in (0, 1)} | {"bias": np.zeros(8)}
    given = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 5, 16])
    graph = graphs.write(tmp_path / "fp32.onnx", nodes, given, weights, ["n", 5, 16])
    data = rng.gamma(2.0, 1.0, (64, 5, 16)).astype(np.float32)
    exact = run(graph, data)
    shift = []
    for corrected in (False, True):
        recipe = Recipe(bias_correction=corrected, keep_fp32=(), calibration="minmax")
        rows = run(quantised(graph, data, recipe).file, data)
        shift.append(np.abs((rows - exact).mean(axis=(0, 1))).mean())
    assert shift[1] < 0.3 * shift[0]


def test_products_of_two_activations_are_quantised_where_the_recipe_asks(tmp_path):
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["t"], "turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["pixels", "t"], ["embedding"], "attention"),
    ]
    given = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 5, 16])
    graph = graphs.write(tmp_path / "fp32.onnx", nodes, given, {}, ["n", 5, 5])
    data = np.random.default_rng(4).normal(size=(64, 5, 16)).astype(np.float32)
    for wanted in (True, False):
        model = onnx.load(quantised(graph, data, Recipe(attention=wanted)).file)
        (product,) = [node for node in model.graph.node if node.name == "attention"]
        writers = {name: node.op_type for node in model.graph.node for name in node.output}
        read = [writers.get(name) == "DequantizeLinear" for name in product.input]
        assert read == [wanted] * 2


def test_a_patch_embedding_is_no_stem(tmp_path):
    nodes = [
        helper.make_node("Conv", ["pixels", "w"], ["patches"], "patch_embedding", strides=[4, 4]),
        helper.make_node("Flatten", ["patches"], ["embedding"], "flat"),
    ]
    given = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 8, 8])
    weights = {"w": np.random.default_rng(0).normal(size=(5, 3, 4, 4))}
    graph = graphs.write(tmp_path / "fp32.onnx", nodes, given, weights, ["n", 20])
    assert kept_nodes(onnx.load(graph), ["stem"]) == {}


def test_the_stem_is_the_first_convolution_and_the_depthwise_one_after_it(convolution):
    model = onnx.load(convolution)
    assert list(kept_nodes(model, ["stem"])) == ["stem", "deep"]
    assert list(kept_nodes(model, ["depthwise"])) == ["deep"]
    assert kept_nodes(model, ["poi"]) == {"point": "recipe: poi"}


def test_a_node_kept_in_fp32_keeps_its_float_weight(convolution):
    made = quantised(convolution, DATA, Recipe())
    assert made.kept_fp32 == ("stem", "deep")
    kinds = {w.name: w.data_type for w in onnx.load(made.file).graph.initializer}
    assert kinds["w0"] == TensorProto.FLOAT and kinds["w2_quantized"] == TensorProto.INT8


def test_further_nodes_stay_in_fp32_and_say_why(convolution):
    made = quantised(convolution, DATA, Recipe(), keep={"point": "sensitivity: 3 dB"})
    assert made.reasons == {
        "point": "sensitivity: 3 dB",
        "stem": "recipe: stem",
        "deep": "recipe: stem",
    }


def test_a_layer_to_keep_that_the_graph_lacks_is_refused(convolution):
    with pytest.raises(ConfigError, match="has no nowhere"):
        quantised(convolution, DATA, Recipe(), keep={"nowhere": "sensitivity"})


def test_a_layer_kept_between_int8_layers_runs_in_fp32(convolution, tmp_path):
    made = quantised(convolution, DATA, Recipe(keep_fp32=("depthwise",)))
    assert in_fp32(made.file, tmp_path) == 1


def test_holding_a_layer_in_fp32_changes_no_number(convolution):
    file = quantised(convolution, DATA, Recipe(keep_fp32=())).file
    model = onnx.load(convolution)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "deep_zero_bias")
    bias.CopyFrom(numpy_helper.from_array(np.linspace(-2, 3, 12, dtype=np.float32), bias.name))
    onnx.save(model, file)
    expected = run(file, DATA)
    # As if its input came from an int8 layer.
    model.graph.node.insert(1, helper.make_node("QuantizeLinear", ["b", "s", "z"], ["q"], "q"))
    model.graph.node.insert(2, helper.make_node("DequantizeLinear", ["q", "s", "z"], ["bq"], "dq"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1e-4), "s"))
    model.graph.initializer.append(numpy_helper.from_array(np.uint16(0), "z"))
    model.opset_import[0].version = 21
    nodes = {node.name: node for node in model.graph.node}
    order = [name for name in nodes if name not in ("q", "dq")]
    order.insert(order.index("deep"), "q")
    order.insert(order.index("deep"), "dq")
    ordered = [nodes[name] for name in order]
    nodes["deep"].input[0] = "bq"
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    onnx.save(model, file)
    before = run(file, DATA)
    assert hold_in_fp32(model, {"deep": "sensitivity"}) == 1
    onnx.save(model, file)
    np.testing.assert_allclose(run(file, DATA), before, rtol=1e-6, atol=1e-6)
    assert before.shape == expected.shape


def test_seven_bits_keep_every_weight_safe_from_saturation(convolution):
    recipe = Recipe(keep_fp32=())
    weights = integer_weights(quantised(convolution, DATA, recipe).file)
    assert len(weights) == 3
    assert max(np.abs(values.astype(int)).max() for values in weights.values()) == 64


def test_the_nodes_of_the_int8_graph_have_the_names_of_the_fp32_graph(convolution):
    file = quantised(convolution, DATA, Recipe()).file
    assert weighted_nodes(convolution) == ["stem", "deep", "point"]
    assert set(weighted_nodes(convolution)) <= {node.name for node in onnx.load(file).graph.node}


def test_smoothing_leaves_fp32_as_it_was_and_brings_int8_nearer(product):
    data = np.random.default_rng(2).normal(0, 1, (64, 5, 16)).astype(np.float32)
    exact = run(product, data)
    statistics = ranges.measure(product, [{"pixels": data}], OPERATORS)
    smoothed = product.parent / "smooth.onnx"
    assert smooth(product, smoothed, statistics, 0.5) == 1
    np.testing.assert_allclose(run(smoothed, data), exact, rtol=1e-6, atol=1e-5)
    recipe = Recipe(calibration="minmax", keep_fp32=())
    before = np.abs(run(quantised(product, data, recipe).file, data) - exact).mean()
    after = np.abs(run(quantised(smoothed, data, recipe).file, data) - exact).mean()
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
