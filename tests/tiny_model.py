"""A model folder of a few kilobytes that knows colours: of pictures the mean, of texts the words.

The image tower is the average pixel times a matrix; the text tower the average of word vectors that lie
where that matrix puts the colour. So "red" is near a red picture, and answers can be checked by thought.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pathclip import atomic
from pathclip.model_folder import CARD, write_model_folder

DIM = 8
CONTEXT_LENGTH = 12
SIZE = 16
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
FILLERS = [
    "an",
    "h",
    "e",
    "image",
    "of",
    "histopathology",
    "a",
    "slide",
    "showing",
    "photomicrograph",
    "stain",
]
WORDS = ["[PAD]", "[UNK]", "[START]", "[END]", *COLOURS, *FILLERS]
ONNX_FILES = ("onnx/image_int8.onnx", "onnx/text_int8.onnx")


def write_tiny_model(path: Path, files: Sequence[str] = ONNX_FILES, **card: Any) -> Path:
    """Writes the folder; `files` are the ONNX files in it, `card` replaces entries of the card."""
    content = {
        "name": "tiny",
        "embed_dim": DIM,
        "context_length": CONTEXT_LENGTH,
        "pad_id": 0,
        "logit_scale": 10.0,
        "logit_bias": None,
        "preprocess": {"size": SIZE, "mode": "RGB", "mean": [0.5] * 3, "std": [0.5] * 3},
        "prompts": {"templates": ["a photomicrograph of {}", "{}"]},
        "calibration": {},
        "training": {},
        "scores": [],
        "licence": "Apache-2.0",
        **card,
    }
    with write_model_folder(path, content) as folder:
        (folder / "onnx").mkdir()
        for name in files:
            (folder / name).write_bytes(_image_tower() if "image" in name else _text_tower())
        (folder / "tokenizer.json").write_text(_tokenizer())
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": DIM}}))
    return path


def write_image(path: Path, colour: str, size: tuple[int, int] = (40, 30)) -> Path:
    """A picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, COLOURS[colour]).save(path)
    return path


def break_file(path: Path) -> None:
    """Changes one byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def list_files_again(folder: Path) -> None:
    """Brings the card's list of files up to what now lies in the folder, as a malicious author would."""
    card = json.loads((folder / CARD).read_text())
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != CARD)
    card["files"] = {file.relative_to(folder).as_posix(): atomic.sha256_file(file) for file in files}
    (folder / CARD).write_text(json.dumps(card))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model folder that no test may change."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def _projection() -> np.ndarray:
    return np.eye(3, DIM, dtype=np.float32)


def _word_vectors() -> np.ndarray:
    vectors = np.zeros((len(WORDS), DIM), np.float32)
    for colour, rgb in COLOURS.items():
        vectors[WORDS.index(colour)] = (np.array(rgb, np.float32) / 127.5 - 1) @ _projection()
    vectors[WORDS.index("[UNK]"), DIM - 1] = 1.0
    for word in FILLERS:
        vectors[WORDS.index(word), DIM - 2] = 0.05
    return vectors


def _image_tower() -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weight"], ["embedding"]),
    ]
    return _model(
        nodes,
        helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, SIZE, SIZE]),
        [numpy_helper.from_array(_projection(), "weight")],
    )


def _text_tower() -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Gather", ["words", "tokens"], ["vectors"], axis=0),
        helper.make_node("ReduceMean", ["vectors", "axes"], ["embedding"], keepdims=0),
    ]
    return _model(
        nodes,
        helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", CONTEXT_LENGTH]),
        [
            numpy_helper.from_array(_word_vectors(), "words"),
            numpy_helper.from_array(np.array([1], np.int64), "axes"),
        ],
    )


def _model(nodes: list[Any], given: Any, weights: list[Any]) -> bytes:
    from onnx import TensorProto, helper

    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", DIM])
    graph = helper.make_graph(nodes, "tower", [given], [output], initializer=weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


def _tokenizer() -> str:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[START] $A [END]", special_tokens=[("[START]", 2), ("[END]", 3)]
    )
    return tokenizer.to_str()
