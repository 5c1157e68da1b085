"""Which weights overflow the 16-bit sums of a CPU without VNNI, and what such a CPU then answers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pathclip.export.gate.saturation import in_eight_bits, saturation, worst_pair
from pathclip.export.graphs.session import embed
from tests.export import towers

LAYERS = {"stem", "depthwise", "grouped", "pointwise", "product", "head"}


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    return towers.write_network(tmp_path_factory.mktemp("network") / "image_fp32.onnx")


@pytest.mark.parametrize(
    ("weights", "worst"),
    [
        ([[64, 64, 0]], 32640),  # just within 16 bits
        ([[65, 64, 0]], 32895),  # just beyond
        ([[127, -127, 1]], 32640),  # opposite signs do not add up; 127 + 1 do
        ([[-65, -64, 3]], 32895),
        ([[100, 0, 0], [0, 100, 0]], 25500),  # two output channels never add up
        ([[127], [-128]], 32640),  # one product has no neighbour
    ],
)
def test_the_two_largest_weights_of_one_sign_and_channel_make_the_largest_sum(weights, worst):
    rows = np.array(weights, np.int8)
    assert worst_pair(rows, 0) == worst_pair(rows.T, 1) == worst


def test_weights_of_seven_bits_are_safe_in_every_layer(network, tmp_path):
    layers = saturation(towers.quantise_network(network, tmp_path / "int8.onnx", bits=7))
    assert {layer.name for layer in layers} == LAYERS
    assert all(layer.safe for layer in layers)


def test_weights_of_eight_bits_saturate(network, tmp_path):
    layers = saturation(towers.quantise_network(network, tmp_path / "int8.onnx", bits=8))
    assert {layer.name for layer in layers if not layer.safe} == LAYERS


def test_a_float_layer_that_onnxruntime_quantises_on_loading_is_found(network, tmp_path):
    int8 = towers.quantise_network(network, tmp_path / "int8.onnx", 7, ("grouped",))
    unsafe = [layer for layer in saturation(int8) if not layer.safe]
    assert [(layer.name, layer.rewritten) for layer in unsafe] == [("grouped", True)]


def test_a_graph_without_quantised_activations_has_no_integer_layer(tmp_path):
    samples = towers.make_samples()
    files = towers.write_int8(tmp_path / "int8", towers.make_weights(samples))
    assert saturation(files["image"]) == saturation(files["text"]) == ()


def test_the_same_weights_in_eight_bits_say_the_same_and_are_unsafe(network, tmp_path):
    seven = towers.quantise_network(network, tmp_path / "seven.onnx", bits=7)
    eight = in_eight_bits(seven, tmp_path / "eight.onnx")
    assert {layer.name for layer in saturation(eight) if not layer.safe} == LAYERS
    samples = towers.make_samples(32)
    rows = [embed(graph, "image", samples, optimise=False) for graph in (seven, eight)]
    assert (rows[0] * rows[1]).sum(axis=1).min() > 0.9995


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="qemu-x86_64 is not installed")
def test_a_cpu_without_vnni_gives_the_same_answers_with_seven_bits_and_others_with_eight(network, tmp_path):
    """The real arithmetic of AVX2, in an emulator; the emulated share off the reference is what tells."""
    script = Path(__file__).resolve().parents[2] / "scripts" / "check_saturation.py"
    folder = towers.write_folder(tmp_path / "model", network)
    done = subprocess.run(
        [sys.executable, str(script), str(folder), "--pictures", "8"],
        capture_output=True,
        text=True,
        check=True,
    )
    seven, eight = done.stdout.split("weights ")[1:]
    assert "as exported: 0 of 6 layers may saturate" in seven
    assert "here to there: mean 1.000000, least 1.000000" in seven
    assert seven.rstrip().endswith("there 0.00%")
    assert "in 8 bits: 6 of 6 layers may saturate" in eight
    assert float(eight.rsplit("there ", 1)[1].rstrip().rstrip("%")) > 1.0
    assert float(eight.split("least ")[1].split()[0]) < 0.9999
