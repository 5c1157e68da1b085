"""Every kind of tower through the whole way: torch, fp32 ONNX, int8 in onnxruntime and in OpenVINO."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pathclip.export.calibration.samples import Samples
from pathclip.export.graphs.onnx import INPUTS, export_tower
from pathclip.export.graphs.session import open_session
from pathclip.export.quantiser.recipe import Recipe
from pathclip.export.quantiser.tower import Tower
from pathclip.runtime.preprocess import Preprocess
from tests.export.integer_share import integer_share
from tests.export.kinds import CONTEXT_LENGTH, IMAGE_KINDS, LARGE_IMAGE_KINDS, TEXT_KINDS, WORDS, build

# Lowest mean cosine between int8 and fp32, of the embeddings and of what sets each apart from their mean; a
# random tower may set them apart by little, of which rounding then is a larger part.
LEAST_COSINE, LEAST_APART = 0.99, 0.97
# Deep convolutional towers lose more by one recipe for all layers; a search by sensitivity is for them.
NEAR = {"efficientnet_b0": 0.75, "efficientnet_lite0": 0.94, "resnet50": 0.95}
APART = {"efficientnet_b0": 0.88, "efficientnet_lite0": 0.65, "resnet50": 0.4}
# OpenVINO computes the same graph less exactly.
NEAR_IN_OPENVINO = {"swin_tiny": 0.95}
QUICK = ("coca", "open_clip resnet", "convnext", "efficientnet")
QUICK_TEXT = ("clip", "bert, mean")


@dataclass(frozen=True)
class Exported:
    """A tower, its fp32 graph, and inputs of 17 samples."""

    name: str
    fp32: Path
    size: int
    torch_output: NDArray[np.float32]
    inputs: NDArray[Any]
    samples: Samples


def pictures(n: int, size: int) -> NDArray[np.uint8]:
    """Smooth pictures in the colours of a stain, each with its own."""
    rng = np.random.default_rng(0)
    colours = rng.integers(60, 250, (n, 1, 1, 3))
    blocks = rng.normal(0, 40, (n, 8, 8, 3)) + colours
    step = -(-size // 8)
    return blocks.repeat(step, 1).repeat(step, 2)[:, :size, :size].clip(0, 255).astype(np.uint8)


def texts(n: int) -> NDArray[np.int64]:
    """Tokens with an end (the largest id, as CLIP has it) at different places and padding after it."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(3, WORDS - 1, (n, CONTEXT_LENGTH))
    for row, length in enumerate(rng.integers(3, CONTEXT_LENGTH, n)):
        tokens[row, length] = WORDS - 1
        tokens[row, length + 1 :] = 0
    return tokens


def exported(kind: str, tower: str, folder: Path) -> Exported:
    make, size = {**IMAGE_KINDS, **LARGE_IMAGE_KINDS}[kind] if tower == "image" else (TEXT_KINDS[kind], 48)
    model: Any = build(make, size)
    preprocess = Preprocess(size=(size, size), mean=(0.5,) * 3, std=(0.25,) * 3)
    samples = Samples(pictures(48, size), texts(48), tuple("" for _ in range(48)), preprocess)
    feeds = {name: np.concatenate([feed[name] for feed in samples.part(0, 17).feeds(tower)])
             for name in (INPUTS[tower],)}  # fmt: skip
    inputs = feeds[INPUTS[tower]]
    encode = model.encode_image if tower == "image" else model.encode_text
    with torch.no_grad():
        expected = encode(torch.from_numpy(inputs), normalize=False).numpy()
    file = folder / f"{tower}_fp32.onnx"
    export_tower(model, tower, file, (size, size), CONTEXT_LENGTH)
    return Exported(tower, file, size, expected, inputs, samples)


def check(kind: str, tower: str, folder: Path) -> None:
    """fp32 equals torch in every batch; int8 is near, runs in integers, and OpenVINO agrees."""
    made = exported(kind, tower, folder)
    session = open_session(made.fp32)
    for batch in (1, 3, 17):
        got = session.run(None, {INPUTS[tower]: made.inputs[:batch]})[0]
        error = np.abs(got - made.torch_output[:batch]).max() / np.abs(made.torch_output).max()
        assert error < 1e-4, (kind, batch, error)

    way = Tower(tower, made.fp32, made.samples.part(17, 48), made.samples.part(0, 17), folder)
    quantised = way.quantise(Recipe(), folder / f"{tower}_int8.onnx")
    share, floats = integer_share(way.graph(Recipe()), quantised.file)
    by_onnxruntime = open_session(quantised.file).run(None, {INPUTS[tower]: made.inputs})[0]
    near, apart = nearness(by_onnxruntime, made.torch_output)
    print(f"{tower} {kind}: cosine {near:.4f}, apart from the mean {apart:.3f}, {share:.1%} in integers")
    near_enough, apart_enough = NEAR.get(kind, LEAST_COSINE), APART.get(kind, LEAST_APART)
    assert near > near_enough and apart > apart_enough
    # What the recipe does not keep runs as an integer kernel.
    assert len(floats) == len(quantised.kept_fp32), floats

    near, apart = nearness(run_openvino(quantised.file, made.inputs), made.torch_output)
    print(f"{tower} {kind} in OpenVINO: cosine {near:.4f}, apart from the mean {apart:.3f}")
    assert near > NEAR_IN_OPENVINO.get(kind, near_enough - 0.01) and apart > apart_enough - 0.05


def nearness(rows: NDArray[Any], exact: NDArray[Any]) -> tuple[float, float]:
    """Mean cosine of the rows to the exact ones, and the same after the mean of each is taken off."""

    def cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
        return float(((a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).mean())

    return cosine(rows, exact), cosine(rows - rows.mean(axis=0), exact - exact.mean(axis=0))


def run_openvino(file: Path, inputs: NDArray[Any]) -> NDArray[Any]:
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_NUM_THREADS": 2})
    return compiled(inputs)[0]


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow)
                                  for kind in IMAGE_KINDS])  # fmt: skip
def test_an_image_tower_means_the_same_in_onnx_and_in_integers(kind, tmp_path):
    check(kind, "image", tmp_path)


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=() if kind in QUICK_TEXT else pytest.mark.slow)
                                  for kind in TEXT_KINDS])  # fmt: skip
def test_a_text_tower_means_the_same_in_onnx_and_in_integers(kind, tmp_path):
    check(kind, "text", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", LARGE_IMAGE_KINDS)
def test_a_tower_of_real_size_means_the_same_in_onnx_and_in_integers(kind, tmp_path):
    check(kind, "image", tmp_path)
