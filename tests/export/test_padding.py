from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from pathclip.export.graphs.padding import word_places, words_alone
from pathclip.export.quantiser import ranges
from tests.export.graphs import write

TOKENS = np.array([[9, 4, 5, 0, 0, 0], [9, 4, 5, 6, 7, 8], [9, 4, 8, 8, 8, 8]])


def text_tower(folder, masked):
    """Looks up a vector per token, multiplies it, and averages; `masked` looks for padding as well."""
    table = np.ones((10, 4))
    table[0] = 100.0  # padding
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["words"], "look_up"),
        helper.make_node("MatMul", ["words", "w"], ["y"], "product"),
        helper.make_node("ReduceMean", ["y"], ["embedding"], "pool", keepdims=0),
    ]
    if masked:
        nodes.insert(0, helper.make_node("Cast", ["tokens"], ["numbers"], "cast", to=TensorProto.FLOAT))
        nodes.insert(1, helper.make_node("Sign", ["numbers"], ["mask"], "mask"))
    given = helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", 6])
    return write(folder / "text.onnx", nodes, given, {"table": table, "w": np.eye(4)}, None)


def load(path):
    import onnx

    return onnx.load(path)


def test_the_run_of_equal_tokens_at_the_end_is_padding_but_for_the_first(tmp_path):
    places = word_places(load(text_tower(tmp_path, masked=True)), {"tokens": TOKENS})
    assert places.sum(axis=1).tolist() == [4, 6, 3]
    assert places[0].tolist() == [True] * 4 + [False] * 2


def test_a_tower_that_treats_all_tokens_alike_has_no_padding(tmp_path):
    assert word_places(load(text_tower(tmp_path, masked=False)), {"tokens": TOKENS}) is None


def test_pictures_have_no_padding(tmp_path):
    model = load(text_tower(tmp_path, masked=True))
    assert word_places(model, {"pixels": np.zeros((2, 3, 8, 8), np.float32)}) is None


def test_words_are_taken_out_of_values_per_token_alone():
    places = np.array([[True, False], [True, True]])
    per_token, attention = np.arange(12).reshape(2, 2, 3), np.zeros((2, 5, 2, 2))
    assert words_alone(per_token, places).tolist() == [[0, 1, 2], [6, 7, 8], [9, 10, 11]]
    assert words_alone(attention, places) is attention
    assert words_alone(per_token, None) is per_token


@pytest.mark.parametrize(("masked", "mean"), [(True, (3 + 100 + 6 + 3) / 13), (False, 315 / 18)])
def test_padding_counts_in_the_statistics_only_of_a_tower_that_reads_it(tmp_path, masked, mean):
    graph = text_tower(tmp_path, masked)
    found = ranges.measure(graph, [{"tokens": TOKENS}], ["MatMul"])
    assert found.channels["words"].mean == pytest.approx(mean)
