"""Fitting and judging probabilities: temperature, reliability, conformal thresholds, "none of these".

What was fitted is judged on groups that it was not fitted on. Sums over the pictures of each group are
what comes back wherever that is possible, so that `pathclip.evaluate.stats.bootstrap` can draw groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate.stats import group_sums
from pathclip.runtime.calibration import ConformalMethod, conformal_scores, softmax

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
SCALES = (1e-2, 1e4)  # bounds of the factor of a cosine similarity; CLIP trains 1 to 100
_HALVINGS = 40


@dataclass(frozen=True, slots=True)
class Fitted:
    """What is fitted on similarities whose classes are known; see `pathclip.runtime.calibration.Calibrated`.

    Attributes:
        logit_scale: factor before the softmax.
        at_bound: whether that is an end of `SCALES`: the pictures have no best one.
        conformal_threshold: of `conformal_scores` after that softmax.
        none_threshold: of the highest similarity.
    """

    logit_scale: float
    at_bound: bool
    conformal_threshold: float
    none_threshold: float


def fit(
    similarity: NDArray[Any],
    truth: Numbers,
    groups: Numbers,
    method: ConformalMethod = "lac",
    coverage: float = 0.9,
    known_pass: float = 0.95,
) -> Fitted:
    """Fits every value on pictures of known classes.

    The temperature is fitted on the same pictures as the conformal threshold; being one number, it moves
    the coverage little.

    Args:
        similarity: cosine similarities [n, c].
        truth: class numbers int64 [n].
        groups: group numbers int64 [n].
        method: of the conformal sets.
        coverage: the share of pictures of new groups whose set is to hold their class.
        known_pass: the share of pictures of new groups that are not to be called "none of these".
    """
    scale, at_bound = fit_logit_scale(similarity, truth)
    strange = conformal_scores(softmax(similarity, scale), method)[np.arange(len(truth)), truth]
    highest = np.asarray(similarity, np.float64).max(axis=1)
    return Fitted(
        scale,
        at_bound,
        min(1.0, group_quantile(strange, groups, coverage)),
        max(-1.0, -group_quantile(-highest, groups, known_pass)),
    )


def fit_logit_scale(similarity: NDArray[Any], truth: Numbers) -> tuple[float, bool]:
    """The factor before the softmax with the least negative log-likelihood.

    That is temperature scaling (Guo et al. 2017, arXiv:1706.04599): the temperature is the model's own
    factor over this one. The likelihood is convex in the factor, so its slope has one zero, which is found
    by halving on a logarithmic scale.

    Args:
        similarity: cosine similarities [n, c].
        truth: class numbers int64 [n].

    Returns:
        The factor, and whether it is an end of `SCALES`: where every answer is right the largest, where
        similarities say nothing or the opposite the smallest.
    """
    rows = np.asarray(similarity, np.float64)
    own = rows[np.arange(len(truth)), truth]

    def slope(scale: float) -> float:
        return float(((softmax(rows, scale) * rows).sum(axis=1) - own).mean())

    low, high = map(math.log, SCALES)
    # Rounding leaves a slope of some 1e-17 where there is none.
    if slope(SCALES[0]) >= -1e-12:
        return SCALES[0], True
    if slope(SCALES[1]) <= 0:
        return SCALES[1], True
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if slope(math.exp(middle)) < 0:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2), False


def group_quantile(values: NDArray[Any], groups: Numbers, share: float) -> float:
    """A bound that a picture of a new group stays within with probability `share`, or more.

    Pictures of one group are alike, so n pictures are not n observations. Each of the G groups weighs the
    same, its pictures share its weight, and one more group, the new one, is counted as beyond everything
    (Lee, Barber and Willett 2023, arXiv:2306.06342). With groups of one picture it is the order
    statistic ceil((n + 1) share) of split conformal prediction. It holds if the groups are exchangeable.

    Args:
        values: float [n].
        groups: group numbers int64 [n].
        share: in (0, 1).

    Returns:
        One of the values; infinity where there are too few groups for the share.

    >>> group_quantile(np.arange(1, 20), np.arange(19), 0.9)
    18.0
    >>> group_quantile(np.arange(1, 20), np.zeros(19, int), 0.9)
    inf
    """
    sizes = np.bincount(groups)
    weight = 1 / ((np.count_nonzero(sizes) + 1) * sizes[groups])
    order = np.argsort(values, kind="stable")
    reached = np.flatnonzero(np.cumsum(weight[order]) >= share - 1e-12)
    return float(np.asarray(values)[order][reached[0]]) if len(reached) else math.inf


def halves(truth: Numbers, groups: Numbers, seed: int) -> Numbers | None:
    """Deals the groups into two halves, the groups of each class in turn: 0 or 1 for each picture [n].

    A group's class is that of its first picture.

    Returns:
        None if there is one group only.
    """
    names, first = np.unique(groups, return_index=True)
    if len(names) < 2:
        return None
    shuffled = np.random.default_rng(seed).permutation(len(names))
    dealt = shuffled[np.argsort(truth[first[shuffled]], kind="stable")]
    half = np.zeros(int(groups.max()) + 1, np.int64)
    half[names[dealt]] = np.arange(len(names)) % 2
    return half[groups]


def reliability_sums(
    shares: Floats, truth: Numbers, groups: Numbers, bins: int = 15, equal_mass: bool = False
) -> Floats:
    """Per group and bin of confidence: pictures, their confidence, their right answers: [G, bins, 3].

    Confidence is the highest probability.

    Args:
        shares: probabilities [n, c].
        truth: class numbers int64 [n].
        groups: group numbers int64 [n].
        bins: their number.
        equal_mass: bins of the same number of pictures, which `calibration_error` then calls adaptive
            (Nguyen and O'Connor 2015, arXiv:1508.05154), where False gives bins of the same width. Their
            borders are those of all pictures and stay when groups are drawn anew. Pictures of one confidence
            share a bin, whatever order they came in, so that some bins may hold more and others none.
    """
    confidence = shares.max(axis=1)
    if equal_mass:
        place = np.searchsorted(np.sort(confidence), confidence, "left") * bins // len(confidence)
    else:
        place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    rows = np.zeros((len(shares), bins, 3))
    right = shares.argmax(axis=1) == truth
    rows[np.arange(len(shares)), place] = np.stack([np.ones(len(shares)), confidence, right], axis=1)
    return group_sums(rows, groups)


def calibration_error(sums: Floats) -> Any:
    """Expected calibration error of sums [..., bins, 3] of `reliability_sums`.

    The gap between confidence and accuracy, averaged over the bins by their pictures (Naeini, Cooper and
    Hauskrecht 2015; Guo et al. 2017). Few pictures per bin make it too large, for a perfect model too.

    >>> round(float(calibration_error(np.array([[10, 9.0, 7], [0, 0, 0], [10, 5.0, 5]]))), 3)
    0.1
    """
    gaps = np.abs(sums[..., 1] - sums[..., 2]).sum(axis=-1)
    return gaps / sums[..., 0].sum(axis=-1)


def brier(shares: Floats, truth: Numbers) -> Floats:
    """Squared distance of the probabilities to the truth, summed over the classes: [n] in [0, 2].

    Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2, in its form for several classes.
    """
    wanted = np.zeros_like(shares)
    wanted[np.arange(len(truth)), truth] = 1
    squares: Floats = ((shares - wanted) ** 2).sum(axis=1)
    return squares


def negative_log_likelihood(
    similarity: NDArray[Any], truth: Numbers, logit_scale: float | NDArray[Any]
) -> Floats:
    """Minus the natural logarithm of the true class's probability: [n].

    From similarities, and not from probabilities, so that a probability too small for a number has one.

    Args:
        similarity: cosine similarities [n, c].
        truth: class numbers int64 [n].
        logit_scale: one factor, or one per picture [n].
    """
    scale = np.broadcast_to(np.asarray(logit_scale, np.float64), (len(similarity),))
    logits = scale[:, None] * np.asarray(similarity, np.float64)
    highest = logits.max(axis=1)
    total = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
    losses: Floats = total - logits[np.arange(len(truth)), truth]
    return losses
