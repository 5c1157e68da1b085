"""Runs the ONNX towers of an export in onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.export.calibration.samples import BATCH, Samples
from pathclip.progress import track


def embed(
    graph: Path, tower: str, samples: Samples, optimise: bool = True, progress: str = ""
) -> NDArray[np.float32]:
    """L2-normalised embeddings float32 [n, d] of an ONNX tower, in batches of 16.

    Args:
        graph: ONNX file.
        tower: 'image' or 'text'.
        samples: what to embed.
        optimise: let onnxruntime rewrite the graph, as it does in use.
        progress: what a bar on stderr says; no bar without it.
    """
    session = open_session(graph, optimise)
    feeds: Iterable[dict[str, np.ndarray]] = samples.feeds(tower)
    if progress:
        feeds = track(feeds, progress, -(-len(samples) // BATCH))
    rows = np.concatenate([session.run(None, feed)[0] for feed in feeds])
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.maximum(norms, 1e-12)).astype(np.float32)


def open_session(graph: Path, optimise: bool = True) -> Any:
    """An onnxruntime session on the CPU, of a file."""
    return _session(str(graph), optimise)


def session_of(model: Any, optimise: bool = True) -> Any:
    """An onnxruntime session on the CPU, of an ONNX model in memory (at most 2 GB)."""
    return _session(model.SerializeToString(), optimise)


def _session(source: str | bytes, optimise: bool) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
