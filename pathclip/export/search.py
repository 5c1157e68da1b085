"""Tries a few recipes on one tower and takes the one whose embeddings stay nearest to fp32."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.export import ranges
from pathclip.export.prepare import prepare, smooth
from pathclip.export.quantize import Quantised, quantize_tower
from pathclip.export.recipe import Recipe
from pathclip.export.samples import Samples
from pathclip.progress import track


@dataclass(frozen=True, slots=True)
class Trial:
    """One recipe and how near it stayed to fp32.

    Attributes:
        recipe: what was tried.
        cosine: mean cosine similarity to the fp32 embeddings of the selection samples.
        size: bytes of the int8 file.
    """

    recipe: Recipe
    cosine: float
    size: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """The best recipe of a tower.

    Attributes:
        quantised: its int8 file.
        recipe: the recipe.
        trials: everything that was tried, in order.
    """

    quantised: Quantised
    recipe: Recipe
    trials: tuple[Trial, ...]


def variants(recipe: Recipe) -> list[Recipe]:
    """The recipe itself and the same with the other ways to calibrate; these cost one second each."""
    others = [
        dataclasses.replace(recipe, calibration="mse"),
        dataclasses.replace(recipe, calibration="minmax"),
        dataclasses.replace(recipe, calibration="percentile"),
    ]
    return [recipe, *(other for other in others if other.calibration != recipe.calibration)]


def quantize_best(
    tower: str, fp32: Path, file: Path, calibration: Samples, recipes: Sequence[Recipe], work: Path
) -> Chosen:
    """Quantises a tower with each recipe; the highest mean cosine to fp32 wins.

    Ranges come from the first three quarters of the calibration samples, the choice is made on the rest,
    so that the held-out samples of the gate have seen neither.

    Args:
        tower: 'image' or 'text'.
        fp32: the tower's fp32 ONNX file.
        file: where the int8 file goes.
        calibration: samples.
        recipes: candidates; they may differ in everything but `operators` and `smoothing`.
        work: a folder for what lies between.
    """
    split = max(1, len(calibration) * 3 // 4)
    used, selection = calibration.part(0, split), calibration.part(split, len(calibration))
    selection = selection if len(selection) else used
    first = recipes[0]
    graph = work / f"{tower}_prepared.onnx"
    prepare(fp32, graph)
    # Peaks per channel are all that smoothing needs, and few samples show them.
    peaks = used.part(0, 32) if first.smoothing else used
    statistics = ranges.measure(graph, peaks.feeds(tower), first.operators)
    if first.smoothing and smooth(graph, work / f"{tower}_smooth.onnx", statistics, first.smoothing):
        graph = work / f"{tower}_smooth.onnx"
    if len(peaks) < len(used) or graph.name == f"{tower}_smooth.onnx":
        statistics = ranges.measure(graph, used.feeds(tower), first.operators)
    expected = embed(fp32, tower, selection)
    best: tuple[float, Recipe, Quantised] | None = None
    trials = []
    for place, recipe in enumerate(track(recipes, f"Quantising the {tower} tower")):
        made = quantize_tower(graph, work / f"{tower}_{place}.onnx", statistics, recipe)
        cosine = float((embed(made.file, tower, selection) * expected).sum(axis=1).mean())
        trials.append(Trial(recipe, cosine, made.file.stat().st_size))
        if best is None or cosine > best[0]:
            best = (cosine, recipe, made)
    assert best is not None, "at least one recipe"
    shutil.copyfile(best[2].file, file)
    return Chosen(dataclasses.replace(best[2], file=file), best[1], tuple(trials))


def embed(graph: Path, tower: str, samples: Samples, optimise: bool = True) -> NDArray[np.float32]:
    """L2-normalised embeddings float32 [n, d] of an ONNX tower, in batches of 16.

    Args:
        graph: ONNX file.
        tower: 'image' or 'text'.
        samples: what to embed.
        optimise: let onnxruntime rewrite the graph, as it does in use.
    """
    session = open_session(graph, optimise)
    rows = np.concatenate([session.run(None, feed)[0] for feed in samples.feeds(tower)])
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.maximum(norms, 1e-12)).astype(np.float32)


def open_session(graph: Path, optimise: bool = True) -> Any:
    """An onnxruntime session on the CPU."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
