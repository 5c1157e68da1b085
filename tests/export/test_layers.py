"""Signal-to-noise of each layer: its formula, where noise comes in, and what is said of fp32 layers."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pathclip.export.gate.layers import layer_errors
from tests.export import towers

SAMPLES = towers.make_samples(16)
ORDER = ["stem", "depthwise", "grouped", "pointwise", "product", "head"]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return towers.write_network(tmp_path_factory.mktemp("network") / "fp32.onnx")


@pytest.fixture(scope="module")
def int8(network):
    return towers.quantise_network(network, network.with_name("int8.onnx"))


def measured(network, int8, reasons=None):
    return {one.name: one for one in layer_errors(network, int8, "image", SAMPLES, reasons or {})}


def test_every_weighted_layer_has_its_entry_in_graph_order(network, int8):
    found = layer_errors(network, int8, "image", SAMPLES, {})
    assert [one.name for one in found] == ORDER
    assert [one.op_type for one in found] == ["Conv"] * 4 + ["MatMul", "Gemm"]
    assert all(20 < one.snr_db < 60 and one.alone_db > 20 and not one.kept_fp32 for one in found)


def test_the_ratio_is_that_of_signal_to_squared_difference(tmp_path):
    weights = towers.make_weights(SAMPLES)
    fp32, int8 = towers.write_fp32(tmp_path / "a", weights), towers.write_int8(tmp_path / "b", weights)
    for file in (fp32["image"], int8["image"]):
        named(file)
    (found,) = layer_errors(fp32["image"], int8["image"], "image", SAMPLES, {})
    rows = towers.PREPROCESS.normalise(SAMPLES.pixels).reshape(len(SAMPLES), -1).astype(np.float64)
    scale = np.abs(weights["image"]).max() / 127
    exact = rows @ weights["image"]
    lost = rows @ (weights["image"] - np.round(weights["image"] / scale) * scale)
    assert found.snr_db == pytest.approx(10 * math.log10((exact**2).sum() / (lost**2).sum()), abs=0.01)


def test_a_quantised_table_is_a_layer_too(tmp_path):
    weights = towers.make_weights(SAMPLES)
    fp32, int8 = towers.write_fp32(tmp_path / "a", weights), towers.write_int8(tmp_path / "b", weights)
    for file in (fp32["text"], int8["text"]):
        named(file)
    (found,) = layer_errors(fp32["text"], int8["text"], "text", SAMPLES, {})
    assert (found.op_type, found.kept_fp32, math.isnan(found.alone_db)) == ("Gather", False, True)
    assert 30 < found.snr_db < 60


def test_equal_graphs_have_no_noise(network):
    found = measured(network, network, {"stem": "all of it"})
    assert all(one.snr_db == math.inf and one.kept_fp32 for one in found.values())
    assert found["stem"].reason == "all of it" and found["head"].reason == ""


def test_noise_in_one_layer_shows_alone_there_and_in_the_network_from_there_on(network, int8, tmp_path):
    model = onnx.load(int8)
    weight = next(one for one in model.graph.initializer if one.name == "grouped.w_quantized")
    values = numpy_helper.to_array(weight)
    noise = np.random.default_rng(0).integers(-8, 9, values.shape)
    weight.CopyFrom(numpy_helper.from_array((values + noise).clip(-64, 64).astype(np.int8), weight.name))
    onnx.save(model, tmp_path / "noisy.onnx")
    before, after = measured(network, int8), measured(network, tmp_path / "noisy.onnx")
    alone = {name for name in ORDER if after[name].alone_db < before[name].alone_db - 3}
    accumulated = {name for name in ORDER if after[name].snr_db < before[name].snr_db - 3}
    assert alone == {"grouped"}
    assert accumulated == set(ORDER[2:])


def test_a_layer_kept_in_fp32_is_named_with_its_reason(network, tmp_path):
    int8 = towers.quantise_network(network, tmp_path / "int8.onnx", 7, ("pointwise",))
    found = measured(network, int8, {"pointwise": "most sensitive", "stem": "not kept"})
    assert [(one.name, one.reason) for one in found.values() if one.kept_fp32] == [
        ("pointwise", "most sensitive")
    ]
    assert found["stem"].reason == "" and math.isnan(found["pointwise"].alone_db)


def test_a_layer_whose_activation_function_the_quantiser_left_out_is_compared_after_it(network, int8):
    """The output of 'depthwise' is clipped to [0, 6]: fp32 before it and int8 after it are far apart."""
    assert measured(network, int8)["depthwise"].snr_db > 25


def named(file):
    """The towers' product and look-up get the names that layers are matched by."""
    model = onnx.load(file)
    for node in model.graph.node:
        node.name = node.op_type
    onnx.save(model, file)
