from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pathclip.export.quantiser.moments import input_rows, second_moments
from pathclip.export.quantiser.prepare import weighted
from pathclip.export.quantiser.recipe import Recipe
from pathclip.export.quantiser.rounding import (
    BUDGET,
    ITERATIONS,
    AdaRound,
    adaround,
    as_rows,
    from_rows,
    iterations,
)
from tests.export import graphs
from tests.export.graphs import DATA, integer_weights, quantised, run


def correlated(seed=0, k=24, rows=400):
    rng = np.random.default_rng(seed)
    inputs = np.abs(rng.normal(size=(rows, 4)) @ rng.normal(size=(4, k)) + 0.3 * rng.normal(size=(rows, k)))
    return inputs.astype(np.float32), rng.normal(0, 15, (1, 8, k)).astype(np.float32)


def test_adaround_halves_the_output_error_of_rounding_to_the_nearest():
    inputs, ratio = correlated()
    moments = (inputs.T @ inputs / len(inputs))[None]
    found = adaround(ratio, np.round(ratio), moments, 64, 300)
    errors = [(((rounded - ratio)[0] @ inputs.T) ** 2).mean() for rounded in (np.round(ratio), found)]
    assert errors[1] < 0.5 * errors[0]


def test_every_weight_is_rounded_to_one_of_its_two_neighbours_within_the_limits():
    inputs, ratio = correlated()
    ratio = ratio * 3
    nearest = np.clip(np.round(ratio), -64, 64)
    found = adaround(ratio, nearest, (inputs.T @ inputs / len(inputs))[None], 64, 100)
    assert np.abs(found).max() <= 64
    inside = np.abs(ratio) < 63
    assert (np.abs(found - ratio)[inside] < 1).all() and (found == np.round(found)).all()


def test_no_output_channel_ends_up_worse_than_with_the_nearest_values():
    for seed in range(5):
        inputs, ratio = correlated(seed)
        moments = (inputs.T @ inputs / len(inputs))[None]
        # Too few steps to get anywhere.
        found = adaround(ratio, np.round(ratio), moments, 64, 6)
        errors = [
            (((rounded - ratio)[0] @ inputs.T) ** 2).mean(axis=1) for rounded in (np.round(ratio), found)
        ]
        assert (errors[1] <= errors[0] * 1.0001).all()


def test_steps_are_fewer_where_a_tower_is_large():
    assert iterations([1e9, 1e9]) == ITERATIONS
    assert iterations([BUDGET / 400, BUDGET / 400]) == 200


@pytest.mark.parametrize("shape", [(12, 1, 3, 3), (16, 12, 1, 1)])
def test_rows_of_a_weight_are_its_output_channels_and_come_back(shape):
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=12 if shape[1] == 1 else 1)
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    rows = as_rows(node, weight, 12 if shape[1] == 1 else 1)
    assert rows.shape[-1] == np.prod(shape[1:])
    np.testing.assert_array_equal(from_rows(node, rows, shape), weight)


def test_rows_of_a_matrix_are_its_columns():
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    weight = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    np.testing.assert_array_equal(as_rows(node, weight, 1)[0], weight.T)
    np.testing.assert_array_equal(from_rows(node, as_rows(node, weight, 1), (5, 7)), weight)


@pytest.mark.parametrize("group", [1, 6])
def test_input_rows_times_a_filter_are_the_convolutions_outputs(tmp_path, group):
    rng = np.random.default_rng(0)
    value = rng.normal(size=(3, 6, 7, 5)).astype(np.float32)
    weight = rng.normal(size=(6, 6 // group, 3, 3)).astype(np.float32)
    node = helper.make_node(
        "Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], strides=[2, 1], dilations=[1, 2], group=group
    )
    rows = input_rows(node, value, weight.shape, np.random.default_rng(1))
    products = np.einsum("ngk,gok->ngo", rows, as_rows(node, weight, group)).reshape(len(rows), 6)
    import torch

    expected = torch.conv2d(
        torch.from_numpy(value), torch.from_numpy(weight), None, (2, 1), (1, 1), (1, 2), group
    ).numpy()
    outputs = expected.transpose(0, 2, 3, 1).reshape(-1, 6)
    distance = np.abs(products[:20, None] - outputs[None]).max(axis=2).min(axis=1)
    assert distance.max() < 1e-4


def test_centred_moments_are_those_around_the_mean(tmp_path):
    graph = graphs.convolution(tmp_path)
    model = onnx.load(graph)
    nodes = [node for node in weighted(model) if node.name == "point"]
    feeds = lambda: [{"pixels": DATA}]  # noqa: E731
    ((_, plain),) = second_moments(graph, model, nodes, feeds, centred=())
    ((_, centred),) = second_moments(graph, model, nodes, feeds, centred={"point"})
    assert plain.shape == (1, 12, 12)
    lost = plain[0] - centred[0]
    # What is lost is the product of a vector with itself: of rank one.
    values = np.linalg.eigvalsh(lost)
    assert values[-1] > 0 and np.abs(values[:-1]).max() < 1e-3 * values[-1]


def test_a_graph_rounded_by_adaround_is_nearer_to_fp32_and_saturation_safe(tmp_path):
    graph = graphs.product(tmp_path, loudest=1.0)
    rng = np.random.default_rng(2)
    data = (rng.normal(0, 1, (64, 5, 3)) @ rng.normal(0, 1, (3, 16))).astype(np.float32)
    exact = run(graph, data)
    recipe = Recipe(keep_fp32=(), calibration="minmax")
    nearest = run(quantised(graph, data, recipe).file, data)
    made = quantised(
        graph, data, recipe, rounder=AdaRound(graph, lambda: [{"pixels": data}], 7, centred=True)
    )
    errors = [np.square(rows - exact).mean() for rows in (nearest, run(made.file, data))]
    assert errors[1] < 0.8 * errors[0]
    assert max(np.abs(values.astype(int)).max() for values in integer_weights(made.file).values()) <= 64


def test_the_mean_error_of_a_layer_without_a_bias_counts(tmp_path):
    """Nothing corrects it afterwards: to leave it out would be worse than to round to the nearest."""
    rng = np.random.default_rng(5)
    weights = {"w": rng.normal(0, 1, (16, 24))}
    given = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 5, 16])
    nodes = [helper.make_node("MatMul", ["pixels", "w"], ["embedding"], "product")]
    graph = graphs.write(tmp_path / "fp32.onnx", nodes, given, weights, ["n", 5, 24])
    data = (rng.normal(0, 1, (64, 5, 3)) @ rng.normal(0, 0.3, (3, 16)) + 2).astype(np.float32)
    exact, recipe = run(graph, data), Recipe(keep_fp32=(), calibration="minmax")
    errors = []
    for rounder in (None, AdaRound(graph, lambda: [{"pixels": data}], 7, centred=True)):
        rows = run(quantised(graph, data, recipe, rounder=rounder).file, data)
        errors.append(np.square(rows - exact).mean())
    assert errors[1] < 0.8 * errors[0]


def test_what_was_rounded_once_is_not_searched_again(tmp_path):
    graph = graphs.convolution(tmp_path)
    asked = []

    def feeds():
        asked.append(1)
        return [{"pixels": DATA}]

    rounder = AdaRound(graph, feeds, bits=7, centred=True)
    first = integer_weights(quantised(graph, DATA, Recipe(keep_fp32=()), rounder=rounder).file)
    again = quantised(graph, DATA, Recipe(keep_fp32=("point",), calibration="minmax"), rounder=rounder)
    assert len(asked) == 1
    second = integer_weights(again.file)
    assert second and all(np.array_equal(first[name], second[name]) for name in second)
