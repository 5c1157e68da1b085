from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pathclip.export.calibration.samples import Samples
from pathclip.export.quantiser.nncf_quantizer import NncfError, import_nncf, quantize_with_nncf
from pathclip.export.quantiser.recipe import Recipe
from pathclip.runtime.preprocess import Preprocess
from tests.export import graphs
from tests.export.graphs import in_fp32, integer_weights, run

pytest.importorskip("nncf")
RECIPE = Recipe(quantizer="nncf", calibration="minmax", keep_fp32=())


class Batches(Samples):
    """Samples that are a graph's input as they are."""

    def feeds(self, tower):
        yield {"pixels": self.pixels}


def batches(values):
    preprocess = Preprocess(size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    return Batches(values, np.zeros((len(values), 1), np.int64), ("",) * len(values), preprocess)


def made(graph, data, recipe=RECIPE, keep=None):
    statistics = graphs.measured(graph, data)
    file = graph.parent / "nncf.onnx"
    return quantize_with_nncf(graph, file, "image", batches(data[:16]), statistics, recipe, keep)


@pytest.fixture(scope="module")
def convolution(tmp_path_factory):
    graph = graphs.convolution(tmp_path_factory.mktemp("nncf"), "Clip")
    return graph, made(graph, graphs.DATA)


def test_every_weight_is_safe_from_saturation_depthwise_ones_too(convolution):
    _, quantised = convolution
    weights = integer_weights(quantised.file)
    assert len(weights) == 3
    assert {int(np.abs(values.astype(int)).max()) for values in weights.values()} == {64}


def test_activations_are_uint8(convolution):
    _, quantised = convolution
    model = onnx.load(quantised.file)
    known = {tensor.name: tensor for tensor in model.graph.initializer}
    zeros = [n.input[2] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert zeros and {numpy_helper.to_array(known[name]).dtype for name in zeros} == {np.dtype(np.uint8)}
    onnx.checker.check_model(model, full_check=True)


def test_no_convolution_is_left_to_fp32(convolution, tmp_path):
    _, quantised = convolution
    assert in_fp32(quantised.file, tmp_path) == 0


def test_onnxruntime_and_openvino_run_it_alike_and_near_fp32(convolution):
    ov = pytest.importorskip("openvino")
    graph, quantised = convolution
    exact, here = run(graph, graphs.DATA), run(quantised.file, graphs.DATA)
    core = ov.Core()
    there = core.compile_model(core.read_model(str(quantised.file)), "CPU")([graphs.DATA])[0]
    scale = np.abs(exact).max()
    assert np.abs(here - exact).max() < 0.05 * scale
    assert np.abs(here - there).max() < 0.02 * scale


def test_nodes_keep_their_names_and_those_kept_run_in_fp32(tmp_path):
    graph = graphs.convolution(tmp_path, "Clip")
    quantised = made(graph, graphs.DATA, keep={"deep": "sensitivity: 3 dB"})
    assert quantised.reasons == {"deep": "sensitivity: 3 dB"}
    assert len(integer_weights(quantised.file)) == 2
    # NNCF leaves what it reads in float too, so the stem before it runs in float.
    assert in_fp32(quantised.file, tmp_path) == 2
    assert {"stem", "deep", "point"} <= {node.name for node in onnx.load(quantised.file).graph.node}


def test_a_transformers_product_is_smoothed_and_safe(tmp_path):
    graph = graphs.product(tmp_path)
    data = np.random.default_rng(2).normal(0, 1, (64, 5, 16)).astype(np.float32)
    exact = run(graph, data)
    errors = []
    for smoothing in (0.0, 0.7):
        recipe = Recipe(quantizer="nncf", calibration="minmax", smoothing=smoothing)
        quantised = made(graph, data, recipe)
        errors.append(np.abs(run(quantised.file, data) - exact).mean())
        weights = integer_weights(quantised.file).values()
        assert max(np.abs(values.astype(int)).max() for values in weights) <= 64
    assert errors[1] < 0.8 * errors[0]


def test_the_percentile_decides_how_far_the_ranges_reach(tmp_path):
    graph = graphs.convolution(tmp_path)
    steps = []
    for percentile in (90.0, 99.99):
        recipe = Recipe(quantizer="nncf", calibration="percentile", percentile=percentile, keep_fp32=())
        model = onnx.load(made(graph, graphs.DATA, recipe).file)
        known = {tensor.name: tensor for tensor in model.graph.initializer}
        (first,) = [n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "pixels"]
        steps.append(float(numpy_helper.to_array(known[first.input[1]])))
    cut = [np.quantile(graphs.DATA[:16], share, axis=(1, 2, 3)).mean() for share in (0.95, 0.99995)]
    assert steps[0] / steps[1] == pytest.approx(cut[0] / cut[1], rel=0.02)


def test_a_tower_that_nncf_cannot_do_is_refused_in_one_line(tmp_path):
    graph = graphs.convolution(tmp_path)
    data = batches(graphs.DATA[:4, :3])  # three channels where the graph takes six
    with pytest.raises(NncfError, match="image tower: nncf cannot quantise it") as refused:
        statistics = graphs.measured(graph, graphs.DATA)
        quantize_with_nncf(graph, tmp_path / "x.onnx", "image", data, statistics, RECIPE)
    assert "\n" not in str(refused.value)


# In a process of its own: under pytest NNCF switches its telemetry off by itself.
QUIET = """
import sys
from pathclip.export.quantiser.nncf_quantizer import import_nncf
import_nncf()
from nncf.telemetry.wrapper import telemetry
assert type(telemetry).__name__ == "MagicMock", type(telemetry)
assert "openvino_telemetry" not in sys.modules
"""
ABSENT = """
import sys
sys.modules["nncf"] = None
from pathclip.export.quantiser.nncf_quantizer import import_nncf, NncfError
try:
    import_nncf()
except NncfError as error:
    print(error)
"""


def python(code, home):
    environment = {"HOME": str(home), "PYTHONPATH": ":".join(sys.path)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_nncf_reports_to_nobody_and_writes_nothing_home(tmp_path):
    done = python(QUIET, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "intel").exists()


def test_without_nncf_one_line_says_what_to_install(tmp_path):
    done = python(ABSENT, tmp_path)
    assert done.stdout.count("\n") == 1 and "pip install 'pathclip[nncf]'" in done.stdout


def test_nncf_is_imported_once(convolution):
    assert import_nncf() is sys.modules["nncf"]
