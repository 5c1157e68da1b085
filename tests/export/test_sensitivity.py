from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pathclip.export.graphs.session import embed
from pathclip.export.search.sensitivity import sensitivities, spread
from tests.export import towers

LAYERS = {"stem", "depthwise", "grouped", "pointwise", "product", "head"}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    fp32 = towers.write_network(folder / "fp32.onnx")
    return fp32, towers.quantise_network(fp32, folder / "int8.onnx")


@pytest.fixture(scope="module")
def samples():
    return towers.make_samples(16)


def test_every_layer_is_measured_the_costliest_first(network, samples):
    found, layers = sensitivities(*network, "image", samples)
    assert layers == len(LAYERS)
    assert {one.name for one in found} == LAYERS
    costs = [one.cost for one in found]
    assert costs == sorted(costs, reverse=True) and costs[0] > 0


def test_a_layer_costs_alone_what_quantising_it_alone_costs(network, samples, tmp_path):
    fp32, _ = network
    exact = embed(fp32, "image", samples)
    found = {one.name: one.cost for one in sensitivities(*network, "image", samples)[0]}
    for name in ("pointwise", "head"):
        alone = towers.quantise_network(fp32, tmp_path / "alone.onnx", keep_fp32=tuple(LAYERS - {name}))
        cost = 1 - float((embed(alone, "image", samples, optimise=False) * exact).sum(axis=1).mean())
        assert found[name] == pytest.approx(cost, rel=0.5, abs=1e-6)


def test_a_layer_whose_input_is_cut_to_a_few_steps_is_found(network, samples, tmp_path):
    fp32, int8 = network
    model = onnx.load(int8)
    writers = {name: node for node in model.graph.node for name in node.output}
    (node,) = [node for node in model.graph.node if node.name == "grouped"]
    scale = writers[node.input[0]].input[1]
    (tensor,) = [one for one in model.graph.initializer if one.name == scale]
    coarse = numpy_helper.to_array(tensor) * np.float32(50)
    tensor.CopyFrom(numpy_helper.from_array(coarse, scale))
    onnx.save(model, tmp_path / "coarse.onnx")
    found, _ = sensitivities(fp32, tmp_path / "coarse.onnx", "image", samples)
    assert found[0].name == "grouped" and found[0].cost > 10 * found[1].cost


def test_no_layer_is_begun_when_time_is_over(network, samples):
    assert sensitivities(*network, "image", samples, ends=0.0) == ((), len(LAYERS))


@pytest.mark.parametrize("count", [0, 1, 2, 7, 50])
def test_every_beginning_of_the_order_lies_all_over_the_network(count):
    order = spread(count)
    assert sorted(order) == list(range(count))
    for measured in range(1, count + 1):
        gaps = np.diff([-1, *sorted(order[:measured]), count])
        assert gaps.max() <= 3 * count / measured
