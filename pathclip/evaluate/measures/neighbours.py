"""Nearest neighbours: what the embeddings tell without anything fitted upon them.

The k training pictures most similar by cosine vote, each with the weight exp(cosine / temperature): Wu et al.
2018, arXiv:1805.01978, with k = 20 and a temperature of 0.07 as in DINO
(Caron et al. 2021, arXiv:2104.14294).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate.marks import learnt_colour_remarks
from pathclip.evaluate.measures.learning import (
    Floats,
    Numbers,
    learnable,
    require,
)
from pathclip.evaluate.measures.learning_sections import learning_about, learning_section, not_measured
from pathclip.evaluate.measures.learnt_scores import Predictions, learning_answers, learning_scores
from pathclip.evaluate.task import Measured, TaskResult
from pathclip.progress import track

METHOD = "nearest_neighbours"
_AT_ONCE = 8_000_000  # similarities held at once


@dataclass(frozen=True, slots=True)
class Neighbours:
    """A vote of the nearest training pictures.

    Attributes:
        k: how many vote.
        temperature: of the weight of a vote, exp(cosine / temperature).
    """

    k: int = 20
    temperature: float = 0.07
    learns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require("k", self.k, self.k >= 1, "at least 1")
        require("temperature", self.temperature, self.temperature > 0, "a number above 0")

    def run(self, measured: Measured) -> TaskResult:
        """Measures every subject in every variant."""
        given = learnable(measured)
        if given.train is None:
            return not_measured(measured, "Nearest neighbours", given)
        k, remarks = min(self.k, len(given.train)), list(given.remarks)
        if k < self.k:
            remarks.append(f"{k} neighbours instead of {self.k}: there are no more training pictures.")
        predictions = []
        runs = [(one, variant) for variant in measured.variants for one in measured.subjects]
        for subject, variant in track(runs, f"{measured.name}: neighbours"):
            rows = given.train.embeddings(subject.key, variant)
            unseen = measured.test.encoded.embeddings[subject.key][variant]
            shares = votes(rows, given.train.truth, unseen, len(measured.classes), k, self.temperature)
            said = shares.argmax(axis=1)[None]
            about = {"k": k, "temperature": self.temperature}
            predictions.append(Predictions(METHOD, variant, said, subject, about, shares.max(axis=1)))
        scores = learning_scores(measured, given, predictions)
        remarks += learnt_colour_remarks(scores, measured.marks)
        caption = (
            f"The {k} nearest of {len(given.train)} training pictures by cosine vote, the nearer the more "
            f"(Wu et al. 2018; temperature {self.temperature:g}). Nothing is fitted or chosen."
        )
        title = f"{measured.name}: nearest neighbours"
        return TaskResult(
            tuple(scores),
            (learning_section(title, scores, remarks, caption),),
            tuple(remarks),
            learning_about(given, k=k, temperature=self.temperature),
            learning_answers(measured, predictions),
        )


def votes(
    rows: NDArray[np.float32],
    truth: Numbers,
    unseen: NDArray[np.float32],
    classes: int,
    k: int,
    temperature: float,
) -> Floats:
    """Share of the weighted votes that each class gets: float64 [n, classes], rows sum to 1.

    Args:
        rows: L2-normalised training embeddings [m, d].
        truth: their classes int64 [m].
        unseen: L2-normalised [n, d].
        classes: number of classes.
        k: neighbours that vote, at most m.
        temperature: a vote weighs exp(cosine / temperature).

    >>> rows = np.eye(2, dtype=np.float32)
    >>> votes(rows, np.array([0, 1]), rows[:1], 2, 1, 0.07).tolist()
    [[1.0, 0.0]]
    """
    found = np.zeros((len(unseen), classes))
    step = max(1, _AT_ONCE // len(rows))
    for start in range(0, len(unseen), step):
        similar = unseen[start : start + step] @ rows.T
        nearest = np.argpartition(similar, len(rows) - k, axis=1)[:, len(rows) - k :]
        near = np.take_along_axis(similar, nearest, axis=1).astype(np.float64)
        weights = np.exp((near - near.max(axis=1, keepdims=True)) / temperature)
        part = found[start : start + step]
        np.add.at(part, (np.arange(len(part))[:, None], truth[nearest]), weights)
    return found / found.sum(axis=1, keepdims=True)
