"""Is it pathology? A small convolutional network that this project trained itself answers.

`data/pathology/card.json` says on what it was trained and how well it does; `scripts/
train_pathology_classifier.py` makes both the weights and the card anew. It looks at the whole picture, shrunk
to 96 x 96 pixels, and tells stained tissue (sections, smears, slide overviews, also within a figure) from
everything else: charts, text, people, places, animals, empty glass.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathclip.config import data_dir
from pathclip.errors import DataError

SIDE = 96  # pixels of the network's input
WEIGHTS = "pathology/classifier.onnx"


def tissue_probability(image: Image.Image, weights: Path | None = None) -> float:
    """How probable it is that a picture shows stained tissue or cells, in [0, 1].

    Args:
        image: RGB, of any size.
        weights: another classifier than the one that comes along.

    Raises:
        DataError: the weights are missing or cannot be loaded.
    """
    (logits,) = _session(weights or data_dir() / WEIGHTS).run(None, {"pixels": network_input(image)[None]})
    return float(1 / (1 + np.exp(-np.float64(logits.item()))))


def network_input(image: Image.Image) -> NDArray[np.float32]:
    """The picture as the network sees it: in [0, 1], [3, SIDE, SIDE], sides not kept in proportion."""
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1), dtype=np.float32) / np.float32(255)


@functools.cache
def _session(file: Path) -> Any:
    """Made once per process. One thread: the engine has a process for every core already."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class but this
        raise DataError(
            f"{file}: the pathology classifier cannot be loaded; reinstall pathclip, "
            "or set images.pathology=false to go without"
        ) from error
