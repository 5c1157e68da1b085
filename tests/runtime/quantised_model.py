"""A small random network as fp32 ONNX and as QDQ with 7-bit weights: what a real export looks like inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.tiny_model import CONTEXT_LENGTH, DIM, SIZE, WORDS, list_files_again, write_tiny_model

WIDTH, PATCH = 32, 4
FILES = [f"onnx/{tower}_{precision}.onnx" for tower in ("image", "text") for precision in ("fp32", "int8")]


def write_quantised_model(path: Path) -> Path:
    """A folder with both towers in both precisions; int8 really is int8."""
    folder = write_tiny_model(path, FILES)
    for precision in ("fp32", "int8"):
        for tower in ("image", "text"):
            content = _Graph(precision == "int8").tower(tower)
            (folder / f"onnx/{tower}_{precision}.onnx").write_bytes(content)
    list_files_again(folder)
    return folder


class _Graph:
    def __init__(self, int8: bool) -> None:
        self.int8 = int8
        self.rng = np.random.default_rng(0)
        self.nodes: list = []
        self.constants: list = []

    def tower(self, tower: str) -> bytes:
        from onnx import TensorProto, helper

        if tower == "image":
            given = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])
            kernel = self.weight((WIDTH, 3, PATCH, PATCH), 0)
            stride: dict[str, Any] = {"kernel_shape": [PATCH] * 2, "strides": [PATCH] * 2}
            tokens = self.add("Conv", [self.activation("pixels", 4.0), kernel], **stride)
            rows = self.add("Reshape", [tokens, self.constant(np.array([0, WIDTH, -1]))])
            rows = self.add("Transpose", [rows], perm=[0, 2, 1])
        else:
            given = helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", CONTEXT_LENGTH])
            rows = self.add("Gather", [self.constant(self.random((len(WORDS), WIDTH))), "tokens"])
        ones = self.constant(np.ones(WIDTH, np.float32))
        for _ in range(2):
            rows = self.add("LayerNormalization", [rows, ones], axis=-1)
            rows = self.add("MatMul", [self.activation(rows, 6.0), self.weight((WIDTH, WIDTH), 1)])
            rows = self.add("Gelu", [rows])
        mean = self.add("ReduceMean", [rows, self.constant(np.array([1]))], keepdims=0)
        self.add("MatMul", [mean, self.constant(self.random((WIDTH, DIM)))], out="embedding")
        output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", DIM])
        graph = helper.make_graph(self.nodes, tower, [given], [output], initializer=self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return model.SerializeToString()

    def add(self, kind: str, inputs: list[str], out: str | None = None, **attributes) -> str:
        from onnx import helper

        out = out or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [out], name=f"node_{out}", **attributes))
        return out

    def constant(self, values: Any) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def random(self, shape: tuple[int, ...]) -> np.ndarray:
        return (self.rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    def activation(self, name: str, peak: float) -> str:
        if not self.int8:
            return name
        scale = [self.constant(np.float32(2 * peak / 255)), self.constant(np.uint8(128))]
        quantised = self.add("QuantizeLinear", [name, *scale])
        return self.add("DequantizeLinear", [quantised, *scale])

    def weight(self, shape: tuple[int, ...], axis: int) -> str:
        values = self.random(shape)
        if not self.int8:
            return self.constant(values)
        others = tuple(i for i in range(len(shape)) if i != axis)
        scale = np.abs(values).max(axis=others, keepdims=True) / 63
        integers = self.constant(np.round(values / scale).astype(np.int8))
        zeros = self.constant(np.zeros(shape[axis], np.int8))
        return self.add("DequantizeLinear", [integers, self.constant(scale.ravel()), zeros], axis=axis)
