"""The check of an ONNX graph against torch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from pathclip.export.graphs.onnx import OnnxExportError, check_against_torch, export_tower, export_towers
from tests.export.kinds import CONTEXT_LENGTH, TEXT_KINDS, build
from tests.export.towers import make_samples, make_weights, write_fp32


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A text tower of small numbers, its input, and what it gives."""
    samples = make_samples(8)
    weights = {name: 1e-3 * values for name, values in make_weights(samples).items()}
    file = write_fp32(tmp_path_factory.mktemp("towers") / "fp32", weights)["text"]
    return file, torch.from_numpy(samples.tokens), weights["text"][:8]


def test_a_graph_that_computes_the_same_passes(text):
    file, tokens, exact = text
    assert check_against_torch(exact, tokens, file, "text") < 1e-9


def test_an_error_of_a_thousandth_is_refused_however_small_the_numbers(text):
    file, tokens, exact = text
    with pytest.raises(OnnxExportError, match="text tower: the ONNX graph differs from torch by"):
        check_against_torch(exact * 1.001, tokens, file, "text")


def test_what_is_not_a_number_is_refused(text):
    file, tokens, exact = text
    with pytest.raises(OnnxExportError):
        check_against_torch(np.full_like(exact, np.nan), tokens, file, "text")


def test_both_towers_take_any_batch_under_their_public_names_and_tell_nothing_of_this_machine(tmp_path):
    files = export_towers(build(TEXT_KINDS["clip"]), tmp_path, (48, 48), CONTEXT_LENGTH)
    for tower, name, fixed in (("image", "pixels", [3, 48, 48]), ("text", "tokens", [CONTEXT_LENGTH])):
        graph = onnx.load(files[tower]).graph
        (given,), (made,) = graph.input, graph.output
        batch, *rest = given.type.tensor_type.shape.dim
        assert (given.name, made.name) == (name, "embedding")
        assert batch.dim_param and [dim.dim_value for dim in rest] == fixed
        assert b"/site-packages/" not in files[tower].read_bytes()


def test_layers_with_equal_biases_do_not_share_one(tmp_path):
    model = build(TEXT_KINDS["clip"])
    for part in model.modules():
        if isinstance(part, nn.Linear | nn.LayerNorm):
            part.bias.data.zero_()
        if isinstance(part, nn.LayerNorm):
            part.weight.data.fill_(1)
    export_tower(model, "text", tmp_path / "text.onnx", (48, 48), CONTEXT_LENGTH)
    graph = onnx.load(tmp_path / "text.onnx").graph
    floats = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    vectors = {tensor.name for tensor in floats if len(tensor.dims) == 1}
    read = [name for node in graph.node for name in node.input if name in vectors]
    assert len(read) == len(set(read)) > 10
