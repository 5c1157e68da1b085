"""Few-shot: what a handful of labelled pictures per class adds to zero-shot.

A shot is one picture of one group: k pictures of one slide or source tile are not k examples. The draws are
repeated, are the same for all encoders and variants, and those of fewer shots are among those of more.

SimpleShot (Wang et al. 2019, arXiv:1911.04623): features are centred by the mean of the training features,
which needs no labels, and L2-normalised; a picture gets the class whose mean of the shots is nearest.

Text-initialised: a linear classifier that starts from the zero-shot class vectors t and may leave them at a
price, the objective of CLAP (Silva-Rodríguez et al. 2024, arXiv:2312.12730):

    mean over shots of cross-entropy(s x·w) + mean over classes of a_c ||w_c - t_c||²

s is the model's own logit scale. The price a_c is the mean probability that zero-shot gives the shots of
class c for their own class, fixed before anything is learnt: nothing is chosen on any row. Unlike in CLAP's
code, the weights are not renormalised, so the objective is convex and L-BFGS finds its one minimum, without
learning rate or augmentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate.classification import zeroshot
from pathclip.evaluate.measures.learning import (
    Floats,
    Numbers,
    Rows,
    learnable,
    require,
)
from pathclip.evaluate.measures.learning_sections import (
    learning_about,
    learning_section,
    lines_with_intervals,
    not_measured,
    points_of,
)
from pathclip.evaluate.measures.learnt_scores import BALANCED, Predictions, learning_scores, seed_values
from pathclip.evaluate.reporting import report
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Measured, TaskResult
from pathclip.progress import track
from pathclip.types import Score

METHODS = {"simple_shot": "SimpleShot", "text_initialised": "text-initialised"}
# Smallest price of leaving the class vectors: of 0, the minimum would lie at infinity.
_LEAST_PRICE = 1e-3


@dataclass(frozen=True, slots=True)
class FewShot:
    """Classifiers of k pictures per class.

    Attributes:
        shots: every k.
        repeats: draws per k.
    """

    shots: Sequence[int] = (1, 2, 4, 8, 16)
    repeats: int = 10
    learns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require("shots", list(self.shots), len(self.shots) > 0 and min(self.shots) >= 1, "at least 1 each")
        require("repeats", self.repeats, self.repeats >= 1, "at least 1")

    def run(self, measured: Measured) -> TaskResult:
        """Measures every subject in every variant with every k for which each class has groups."""
        from threadpoolctl import threadpool_limits

        given = learnable(measured)
        if given.train is None:
            return not_measured(measured, "Few-shot", given)
        possible, remarks = self._possible(measured, given.train)
        remarks = [*given.remarks, *remarks]
        seed = measured.settings.seed
        drawn = [
            draw_shots(given.train.truth, given.train.groups, max(possible, default=0), [seed, number])
            for number in range(self.repeats)
        ]
        runs = [(one, variant) for variant in measured.variants for one in measured.subjects if possible]
        predictions: list[Predictions] = []
        # Products of this size take longer on several threads than on one.
        with threadpool_limits(1):
            for subject, variant in track(runs, f"{measured.name}: few-shot"):
                predictions += _of_subject(measured, given.train, subject, variant, possible, drawn)
        scores = learning_scores(measured, given, predictions, [BALANCED])
        title = f"{measured.name}: few-shot"
        chart = _charts(measured, scores)
        section = learning_section(title, scores, remarks, self._caption(measured, given.train), chart)
        return TaskResult(
            tuple(scores),
            (section,),
            tuple(remarks),
            learning_about(given, shots=possible, repeats=self.repeats),
        )

    def _possible(self, measured: Measured, train: Rows) -> tuple[list[int], list[str]]:
        """Every k for which each class has as many groups, and remarks on the others."""
        counts = [len(np.unique(train.groups[train.truth == c])) for c in range(len(measured.classes))]
        fewest = int(np.argmin(counts))
        possible = sorted({k for k in self.shots if k <= counts[fewest]})
        name = list(measured.classes)[fewest]
        remarks = [
            f"{k} shots left out: class '{name}' has only {counts[fewest]} groups to draw from, and a shot "
            "is one picture of one group."
            for k in sorted({*self.shots} - {*possible})
        ]
        if not any(train.split.images.groups):
            remarks.append("Groups of the training rows are not known: shots are drawn by picture.")
        return possible, remarks

    def _caption(self, measured: Measured, train: Rows) -> str:
        return (
            "Balanced accuracy by the number of labelled pictures per class, each of another group: means of "
            f"{self.repeats} draws out of {len(train)} pictures, with 95 % intervals over the groups of the "
            f"{len(measured.test.truth)} test pictures. SimpleShot: nearest class mean of centred features "
            "(Wang et al. 2019). Text-initialised: starts from the class vectors of the prompts (CLAP, "
            "Silva-Rodríguez et al. 2024). Nothing is chosen on any row."
        )


def draw_shots(truth: Numbers, groups: Numbers, k: int, seed: int | Sequence[int]) -> Numbers:
    """Draws k groups of each class, and one picture of the class from each.

    Args:
        truth: int64 [m].
        groups: int64 [m]; every class is in at least k of them.
        k: shots per class.
        seed: of the draw; the first columns are the draw of fewer shots.

    Returns:
        Rows int64 [classes, k].
    """
    rng = np.random.default_rng(seed)
    found = []
    for number in range(int(truth.max()) + 1):
        shuffled = rng.permutation(np.flatnonzero(truth == number))
        # The first of each group in a random order is a random one of it.
        first = np.unique(groups[shuffled], return_index=True)[1]
        found.append(rng.permutation(shuffled[first])[:k])
    return np.stack(found)


def simple_shot(shots: NDArray[Any], unseen: NDArray[Any], mean: NDArray[Any]) -> Numbers:
    """Nearest class mean after centring and L2-normalisation: SimpleShot's CL2N.

    Args:
        shots: features [classes, k, d].
        unseen: features [n, d].
        mean: of the training features [d].

    Returns:
        Classes int64 [n].
    """
    centres = _unit(shots - mean).mean(axis=1)
    # ||q - m||² orders the classes as q·m - ||m||² / 2 does, backwards.
    closeness = _unit(unseen - mean) @ centres.T - (centres**2).sum(axis=1) / 2
    return closeness.argmax(axis=1)


def text_initialised(shots: NDArray[Any], vectors: NDArray[Any], logit_scale: float) -> Floats:
    """Weights of the classifier that starts from the class vectors; see the module.

    Args:
        shots: L2-normalised features [classes, k, d].
        vectors: L2-normalised class vectors [classes, d].
        logit_scale: the model's factor of the cosine similarity.

    Returns:
        float64 [classes, d]; a picture x gets the class with the largest x·w.
    """
    from scipy.optimize import minimize
    from scipy.special import softmax

    classes, k, _ = shots.shape
    rows, start = shots.reshape(classes * k, -1).astype(np.float64), vectors.astype(np.float64)
    own = np.arange(classes).repeat(k)
    before = logit_scale * rows @ start.T
    zero_shot = softmax(before, axis=1)[np.arange(len(own)), own]
    price = np.maximum(zero_shot.reshape(classes, k).mean(axis=1), _LEAST_PRICE)[:, None] / classes
    # The minimum differs from t only within the span of the shots: search there, which is smaller.
    basis = np.linalg.qr(rows.T)[0]
    inside = logit_scale * rows @ basis
    one_hot = np.eye(classes)[own]

    def objective(flat: Floats) -> tuple[float, Floats]:
        moved = flat.reshape(classes, -1)
        shares = softmax(before + inside @ moved.T, axis=1)
        loss = -np.log(np.maximum(shares[np.arange(len(own)), own], 1e-300)).mean()
        gradient = (shares - one_hot).T @ inside / len(own) + 2 * price * moved
        return float(loss + (price * moved**2).sum()), gradient.ravel()

    found = minimize(
        objective, np.zeros(classes * basis.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 500}
    )
    return start + found.x.reshape(classes, -1) @ basis.T


def _of_subject(
    measured: Measured,
    train: Rows,
    subject: Subject,
    variant: str,
    possible: Sequence[int],
    drawn: Sequence[Numbers],
) -> list[Predictions]:
    rows = train.embeddings(subject.key, variant)
    unseen = measured.test.encoded.embeddings[subject.key][variant]
    vectors, mean, scale = measured.vectors[subject.key], rows.mean(axis=0), subject.encoder.logit_scale
    found = []
    for k in possible:
        chosen = [rows[one[:, :k]] for one in drawn]
        said = {
            "simple_shot": [simple_shot(one, unseen, mean) for one in chosen],
            "text_initialised": [
                zeroshot.predict(unseen @ text_initialised(one, vectors, scale).T.astype(np.float32))
                for one in chosen
            ],
        }
        for method, rows_said in said.items():
            about = {"shots": k, "learnt_from": k * len(vectors)}
            if method == "simple_shot":
                about["centred_by"] = len(rows)  # pictures whose mean is taken off, without their labels
            found.append(Predictions(method, variant, np.stack(rows_said), subject, about))
    return found


def _charts(measured: Measured, scores: Sequence[Score]) -> str:
    """Shots against balanced accuracy: one chart per variant and encoder, zero-shot as a level line."""
    parts = []
    for variant in measured.variants:
        for subject in measured.subjects:
            lines = {
                name: points
                for method, name in METHODS.items()
                if (points := points_of(scores, "shots", subject, variant, method))
            }
            if not lines:
                continue
            similar = zeroshot.similarities(
                measured.test.encoded.embeddings[subject.key][variant], measured.vectors[subject.key]
            )
            level = float(seed_values(measured, zeroshot.predict(similar)[None], [BALANCED])[0, 0])
            drawing = lines_with_intervals(lines, "labelled pictures per class", {"zero-shot": level})
            parts.append(f"<h3>{report.escape(f'{subject.title}, {report.words(variant)}')}</h3>{drawing}")
    return "".join(parts)


def _unit(rows: NDArray[Any]) -> NDArray[Any]:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
