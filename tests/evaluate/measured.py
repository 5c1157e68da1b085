"""A zero-shot task whose pictures are already encoded: vectors with known similarities, no pictures."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate import stats
from pathclip.evaluate.datasets import LabelledImages
from pathclip.evaluate.features.encode import Encoded
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Measured, Settings, Split
from tests.evaluate.encoders import ColourEncoder

NAMES = ("one", "two", "three", "four")
DIM = 16


def split(
    similarity: NDArray[Any], truth: NDArray[np.int64], groups: list[str], keys: list[str], kind: str
) -> Split:
    """Pictures whose similarities to the unit vectors of the classes are the ones given; their twins too."""
    vectors = np.zeros((len(truth), DIM), np.float32)
    vectors[:, : similarity.shape[1]] = similarity
    names = tuple(f"{kind} {number}" for number in range(len(truth)))
    images = LabelledImages(
        names, tuple(NAMES[number] for number in truth), tuple(groups), kind, lambda numbers: iter(())
    )
    encoded = Encoded(
        {key: {"plain": vectors, "randomised_colour": vectors * 0.5} for key in keys},
        {},
        tuple(hashlib.sha256(name.encode()).hexdigest() for name in names),
        np.zeros((len(truth), 8), np.uint64),
    )
    return Split(images, truth, stats.group_index(groups), encoded)


def pictures(n: int, seed: int, scale: float = 20.0, classes: int = 4) -> tuple[NDArray[Any], NDArray[Any]]:
    """Similarities [n, classes] and classes drawn from their softmax at a scale."""
    rng = np.random.default_rng(seed)
    similarity = rng.normal(0.1, 0.12, (n, classes))
    logits = scale * similarity
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    truth = (shares.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, classes - 1)
    return similarity, truth.astype(np.int64)


def measured(
    test: Split,
    validation: Split | None = None,
    subjects: list[Subject] | None = None,
    classes: int = 4,
    **settings: Any,
) -> Measured:
    """The task; class k is the k-th unit vector."""
    subjects = subjects or [Subject("model", ColourEncoder(), "abc")]
    return Measured(
        name="drawn",
        subjects=subjects,
        settings=Settings(**{"resamples": 200, "code_version": "test", **settings}),
        classes={name: [name, f"{name}s"] for name in NAMES[:classes]},
        templates=["{}", "a {}"],
        variants=["plain", "randomised_colour"],
        vectors={one.key: np.eye(classes, DIM, dtype=np.float32) for one in subjects},
        test=test,
        train=None,
        validation=validation,
        context={"task": "drawn", "data_hash": "test hash", "groups": 1},
    )
