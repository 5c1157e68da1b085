from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pathclip.export.quantiser.equalise import equalise
from pathclip.export.quantiser.recipe import Recipe
from tests.export import graphs
from tests.export.graphs import DATA, quantised, run, write


def weights_of(file):
    return {w.name: numpy_helper.to_array(w) for w in onnx.load(file).graph.initializer}


def test_equalising_leaves_what_the_graph_computes_as_it_was(tmp_path):
    graph = graphs.convolution(tmp_path)
    assert equalise(graph, tmp_path / "even.onnx") == 2
    exact = run(graph, DATA)
    np.testing.assert_allclose(run(tmp_path / "even.onnx", DATA), exact, rtol=1e-6, atol=1e-6)


def test_both_sides_of_a_channel_have_the_same_range_afterwards(tmp_path):
    graph = graphs.convolution(tmp_path)
    equalise(graph, tmp_path / "even.onnx")
    found = weights_of(tmp_path / "even.onnx")
    ahead = np.abs(found["w1"]).max(axis=(1, 2, 3))
    after = np.abs(found["w2"]).max(axis=(0, 2, 3))
    # Factors are powers of two, so ranges meet within one of them.
    assert (np.abs(np.log2(ahead / after)) <= 1.0).all()
    before = weights_of(graph)
    apart = np.log2(np.abs(before["w1"]).max(axis=(1, 2, 3)) / np.abs(before["w2"]).max(axis=(0, 2, 3)))
    assert np.abs(apart).max() > 3


def test_a_bias_is_scaled_with_its_channel(tmp_path):
    graph = graphs.convolution(tmp_path)
    model = onnx.load(graph)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "stem_zero_bias")
    bias.CopyFrom(numpy_helper.from_array(np.linspace(-3, 9, 12, dtype=np.float32), bias.name))
    onnx.save(model, graph)
    equalise(graph, tmp_path / "even.onnx")
    np.testing.assert_allclose(run(tmp_path / "even.onnx", DATA), run(graph, DATA), rtol=1e-5, atol=1e-5)


def test_a_capped_relu_is_not_scaled_across(tmp_path):
    graph = graphs.convolution(tmp_path, "Clip")
    assert equalise(graph, tmp_path / "even.onnx") == 0
    assert not (tmp_path / "even.onnx").exists()


def test_a_convolution_that_two_read_is_left_alone(tmp_path):
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["pixels", "w0"], ["a"], "first"),
        helper.make_node("Conv", ["a", "w1"], ["b"], "second"),
        helper.make_node("Add", ["a", "b"], ["embedding"], "residual"),
    ]
    given = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 6, 8, 8])
    weights = {"w0": rng.normal(size=(6, 6, 1, 1)), "w1": rng.normal(size=(6, 6, 1, 1)) * 100}
    graph = write(tmp_path / "residual.onnx", nodes, given, weights, ["n", 6, 8, 8])
    assert equalise(graph, tmp_path / "even.onnx") == 0


def test_one_scale_per_tensor_serves_an_equalised_graph_better(tmp_path):
    graph = graphs.convolution(tmp_path)
    equalise(graph, tmp_path / "even.onnx")
    exact = run(graph, DATA)
    recipe = Recipe(per_channel=False, keep_fp32=(), bias_correction=False, smoothing=0.0)
    errors = [
        np.abs(run(quantised(file, DATA, recipe).file, DATA) - exact).mean()
        for file in (graph, tmp_path / "even.onnx")
    ]
    assert errors[1] < 0.7 * errors[0]
