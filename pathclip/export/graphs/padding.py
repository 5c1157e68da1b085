"""Which places of a text hold words: what a tower computes for padding must not steer its quantisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

# What every text tower does with its tokens; all else looks for their end or for padding.
LOOK_UP = {"Gather", "Shape"}


def word_places(model: Any, feed: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The places of a batch of texts before their padding.

    Padding is the run of equal tokens at a text's end, without the first of them, which may be the end
    token. Most places are padding, so its values would make up most of every histogram and mean.

    Args:
        model: ONNX graph.
        feed: its inputs.

    Returns:
        bool [n, length]; None where the graph has no tokens, or treats all alike (as SigLIP does, whose
        padding counts).
    """
    names = [name for name, value in feed.items() if value.ndim == 2 and value.dtype == np.int64]
    if len(names) != 1 or not _looks_at(model, names[0]):
        return None
    tokens = feed[names[0]]
    equal_to_last = tokens == tokens[:, -1:]
    run = np.cumprod(equal_to_last[:, ::-1], axis=1).sum(axis=1)
    return np.asarray(np.arange(tokens.shape[1]) <= (tokens.shape[1] - run)[:, None])


def words_alone(value: np.ndarray, places: np.ndarray | None) -> np.ndarray:
    """Of values [n, length, channels] those of words, [words, channels]; others as they are."""
    if places is None or value.ndim != 3 or value.shape[:2] != places.shape:
        return value
    return np.asarray(value[places])


def _looks_at(model: Any, name: str) -> bool:
    """Whether the graph reads the tokens for anything but looking up their vectors."""
    for node in model.graph.node:
        if name not in node.input:
            continue
        if node.op_type == "Cast":
            if _looks_at(model, node.output[0]):
                return True
        elif node.op_type not in LOOK_UP:
            return True
    return False
