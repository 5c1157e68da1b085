"""Small tasks of made-up embeddings, for tests of what learns from embeddings."""

from __future__ import annotations

import hashlib

import numpy as np

from pathclip.evaluate import stats
from pathclip.evaluate.datasets import LabelledImages
from pathclip.evaluate.features.encode import VARIANTS, Encoded
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Measured, Settings, Split
from tests.evaluate.encoders import ColourEncoder

INT8 = Subject("model", ColourEncoder(precision="int8"), "abc")
FP32 = Subject("model", ColourEncoder(), "abc")
UNTRAINED = Subject("untrained", ColourEncoder(), "def")
SUBJECTS = [INT8, FP32, UNTRAINED]
# How far the classes of a subject lie from one another.
APART = {INT8.key: 0.8, FP32.key: 1.0, UNTRAINED.key: 0.0}
CLASSES = {"benign": ["benign"], "atypical": ["atypical"], "malignant": ["malignant"]}
DIM = 12


def split(
    name, n=90, groups=None, truth=None, subjects=SUBJECTS, seed=0, classes=3, embeddings=None, salt=None
):
    """Labelled pictures; by default groups of two of one class. `embeddings` [n, d] are every subject's."""
    rng = np.random.default_rng([seed, len(name)])
    truth = np.asarray(truth if truth is not None else np.arange(n) // 2 % classes)
    n = len(truth)
    groups = groups if groups is not None else [f"{name}{number // 2}" for number in range(n)]
    centres = np.random.default_rng(7).normal(size=(classes, DIM))
    found = {}
    for subject in subjects:
        noise = rng.normal(size=(n, DIM))
        rows = embeddings if embeddings is not None else APART[subject.key] * centres[truth] + noise
        found[subject.key] = dict.fromkeys(VARIANTS, normalised(rows))
    colours = dict.fromkeys(VARIANTS, rng.normal(size=(n, 54)))
    sha256 = tuple(hashlib.sha256(f"{salt or name}{number}".encode()).hexdigest() for number in range(n))
    images = LabelledImages(
        tuple(f"{name}{number}.png" for number in range(n)),
        tuple(list(CLASSES)[number] for number in truth),
        tuple(groups),
        name,
        lambda numbers: iter(()),
    )
    encoded = Encoded(found, colours, sha256, np.zeros((n, 8), np.uint64))
    return Split(images, truth, stats.group_index(groups), encoded)


def task(train="default", test=None, validation=None, subjects=SUBJECTS, variants=("plain",), resamples=200):
    test = test or split("test", 60, subjects=subjects)
    classes = int(test.truth.max()) + 1
    centres = np.random.default_rng(7).normal(size=(3, DIM))[:classes]
    vectors = normalised(centres + np.random.default_rng(8).normal(0, 1.5, (classes, DIM)))
    return Measured(
        "cells",
        subjects,
        Settings(resamples=resamples, code_version="test"),
        dict(list(CLASSES.items())[:classes]),
        ["{}"],
        variants,
        {one.key: vectors for one in subjects},
        test,
        split("train", subjects=subjects) if train == "default" else train,
        validation,
        {"task": "cells", "data_hash": "0" * 64, "groups": 30},
    )


def normalised(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def find(result, name, **where):
    found = [
        one
        for one in result.scores
        if one.name == name and all(one.context.get(key) == value for key, value in where.items())
    ]
    assert len(found) == 1, found
    return found[0]
