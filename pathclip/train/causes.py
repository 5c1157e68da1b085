"""Why a loss stays at the chance level: causes ranked by what was measured."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from pathclip.train.trials import LEARNT, STEPS, Trials

COLLAPSED = 0.99  # mean cosine of two pictures, or of two texts
TINY_UPDATE, HUGE_UPDATE = 1e-5, 5e-2  # ‖Δw‖/‖w‖ of one step; about 1e-3 is usual
BLOWN_UP = 3.0  # ‖w‖ now over ‖w‖ at the start
CAME_BACK = 0.7  # of the chance level: the loss had been below it
LEARNING = 2.5  # as RECOGNISED, and more than chance
RECOGNISED = 4.0  # standard errors by which the true pairs are closer than others
NEAR = 1.1  # of the chance level: a loss further above it is of another kind than slow
WORTH_SAYING = 0.35  # score from which a cause is named
PINNED = 99.0  # the logit scale is clamped at 100


@dataclass(frozen=True, slots=True)
class Findings:
    """What was measured of a run whose loss does not fall.

    Attributes:
        step: optimiser steps done.
        loss: smoothed training loss.
        lowest_loss: the lowest that the smoothed loss has been.
        chance: the loss of embeddings that tell nothing.
        pairs: of the global batch.
        distinct_texts: different captions in it.
        lr: largest learning rate of the step.
        update: ‖Δw‖/‖w‖ of one step, mean of the last few.
        growth: ‖w‖ now over ‖w‖ when the run began.
        gradient_norm: by tower, mean of the last few steps, before clipping.
        trainable: by tower, parameters that are trained.
        clipped: share of the last few steps whose gradient was clipped.
        logit_scale: the factor itself.
        logit_range: largest minus smallest logit of the batch.
        image_cosine: mean cosine of two different pictures of the batch.
        text_cosine: mean cosine of two different texts.
        margin: how much closer true pairs are than others, in standard errors.
        pixel_spread: mean deviation over the batch of one normalised pixel; 0 for equal pictures.
        trials: what copies of the model could learn.
    """

    step: int
    loss: float
    lowest_loss: float
    chance: float
    pairs: int
    distinct_texts: int
    lr: float
    update: float
    growth: float
    gradient_norm: dict[str, float]
    trainable: dict[str, int]
    clipped: float
    logit_scale: float
    logit_range: float
    image_cosine: float
    text_cosine: float
    margin: float
    pixel_spread: float
    trials: Trials

    @property
    def without_gradient(self) -> list[str]:
        """Towers that no gradient reaches."""
        return [tower for tower, norm in self.gradient_norm.items() if norm == 0]

    @property
    def learns_by_heart(self) -> bool:
        """A copy learnt a few pairs with everything as in the run."""
        return self.trials.as_is < LEARNT

    def as_json(self) -> dict[str, Any]:
        """All numbers; one that is none becomes null."""
        return _plain(asdict(self))


@dataclass(frozen=True, slots=True)
class Cause:
    """One explanation.

    Attributes:
        name: lr_too_low, lr_too_high, temperature, frozen_tower, shuffled_captions or collapsed_embeddings.
        score: 0 to 1; how well the measurements fit.
        evidence: the measurements, in words.
        advice: what to change.
    """

    name: str
    score: float
    evidence: str
    advice: str


def rank(found: Findings) -> list[Cause]:
    """All causes, the likeliest first."""
    causes = [
        _frozen(found),
        _lr_too_low(found),
        _lr_too_high(found),
        _temperature(found),
        _collapsed(found),
        _shuffled(found),
    ]
    return sorted(causes, key=lambda cause: -cause.score)


def is_learning(found: Findings) -> bool:
    """Whether the pairs begin to be told apart and nothing stands in the way: a slow run, not a stuck one."""
    obstacles = (_frozen(found), _lr_too_high(found), _temperature(found), _collapsed(found))
    near_chance, moves = found.loss < NEAR * found.chance, found.update >= TINY_UPDATE
    free = all(cause.score < WORTH_SAYING for cause in obstacles)
    return near_chance and moves and free and found.margin >= LEARNING


def _frozen(found: Findings) -> Cause:
    dead = found.without_gradient
    untrained = [tower for tower in dead if not found.trainable[tower]]
    score = 0.0
    if dead:
        # One locked tower is how LiT works; it is a cause only where nothing else lets the pairs be learnt.
        score = 1.0 if len(dead) == len(found.gradient_norm) else 0.3 if found.learns_by_heart else 0.75
    norms = ", ".join(
        f"{tower} {norm:.1e} in {found.trainable[tower]:,} parameters"
        for tower, norm in found.gradient_norm.items()
    )
    what = (
        f"no gradient reaches the {' and the '.join(dead)} tower" if dead else "gradients reach both towers"
    )
    advice = (
        "unlock it: model.lock=[]" if untrained else "its output does not depend on its weights: look there"
    )
    return Cause("frozen_tower", score, f"{what} (norms: {norms})", advice)


def _lr_too_low(found: Findings) -> Cause:
    better = found.trials.better_factor(higher=True)
    tiny = found.update < TINY_UPDATE
    score = 0.0
    if len(found.without_gradient) < len(found.gradient_norm):
        score = 0.95 if tiny and better else 0.9 if tiny else 0.7 if better else 0.0
        if found.learns_by_heart and found.margin > RECOGNISED:
            score = 0.6
    advice = f"raise the learning rate, as in optim.lr={found.lr * (better or 10):.0e}"
    return Cause("lr_too_low", score, _update_words(found) + _trial_words(found, better), advice)


def _lr_too_high(found: Findings) -> Cause:
    better = found.trials.better_factor(higher=False)
    came_back = found.lowest_loss < CAME_BACK * found.chance
    score, words = 0.0, _update_words(found)
    if found.growth > BLOWN_UP or found.update > HUGE_UPDATE:
        score = 0.8
        words += f", ‖w‖ is {found.growth:.2g} times what it was at the start"
    if came_back:
        score = max(score, 0.85)
        words += f", the loss had fallen to {found.lowest_loss:.3g} and came back"
    if better:
        score = max(score, 0.85)
    if found.clipped >= 1 and found.update > 1e-3 and not found.learns_by_heart:
        score = max(score, 0.4)
        words += ", every gradient is clipped"
    score += 0.1 if score >= 0.8 and better and (came_back or found.growth > BLOWN_UP) else 0.0
    advice = f"lower the learning rate, as in optim.lr={found.lr * (better or 0.1):.0e}, or warm up longer"
    return Cause("lr_too_high", score, words + _trial_words(found, better), advice)


def _temperature(found: Findings) -> Cause:
    # With cosines of 1 and -1 the loss would be this; see the softmax over one right and n - 1 wrong answers.
    reachable = math.log1p((found.pairs - 1) * math.exp(-2 * found.logit_scale))
    helps = found.trials.usual_scale is not None and found.trials.usual_scale < LEARNT
    pinned, flat = found.logit_scale >= PINNED, reachable > 0.2 * found.chance
    score = 0.0
    if pinned or flat:
        score = 0.97 if helps else 0.9 if reachable > 0.8 * found.chance else 0.45
        score = min(score, 0.3) if found.learns_by_heart else score
    elif helps:
        score = 0.8
    words = (
        f"the logit scale is {found.logit_scale:.3g} and the logits of a batch span {found.logit_range:.2g}"
    )
    words += (
        ", pinned at its limit"
        if pinned
        else f", so no loss below {reachable:.3g} can be reached"
        if flat
        else ""
    )
    if helps:
        words += f"; from a scale of 14.3 a copy learns {found.trials.pairs} pairs by heart"
    return Cause("temperature", score, words, "start from a logit scale near 14.3 (temperature 0.07)")


def _collapsed(found: Findings) -> Cause:
    sides = [
        side
        for side, cosine in (("pictures", found.image_cosine), ("texts", found.text_cosine))
        if cosine > COLLAPSED
    ]
    score = 0.0
    if sides:
        # New weights often look collapsed; they are not stuck there as long as pairs can be learnt by heart.
        score = 0.3 if found.learns_by_heart or found.update < TINY_UPDATE else 0.78
    words = f"mean cosine of two pictures {found.image_cosine:.4f}, of two texts {found.text_cosine:.4f}"
    advice = "start from other weights, with a lower optim.lr and a longer warm-up"
    if found.pixel_spread < 0.05:
        score = 0.98 if "pictures" in sides else score
        words += f"; the pictures themselves are alike (pixels deviate by {found.pixel_spread:.2g})"
        advice = "look at first_batch.png: the pictures may be blank"
    elif found.distinct_texts == 1:
        score = 0.98 if "texts" in sides else score
        words += f"; all {found.pairs} captions of the batch are the same"
        advice = "look at first_batch.png: the captions are alike"
    return Cause("collapsed_embeddings", score, words, advice)


def _shuffled(found: Findings) -> Cause:
    score = 0.0
    if found.learns_by_heart and found.update >= TINY_UPDATE:
        score = 0.8 if found.margin < LEARNING else 0.0
    words = (
        f"a copy learns {found.trials.pairs} pairs by heart at the run's own settings, so it can learn, "
        f"but on new pictures the true pairs are no closer than others ({found.margin:+.1f} standard errors)"
    )
    advice = (
        "captions do not seem to match the pictures: look at first_batch.png and how the shards were made"
    )
    return Cause("shuffled_captions", score, words, advice)


def _update_words(found: Findings) -> str:
    return f"one step changes the weights by {found.update:.1e} of their size at lr {found.lr:.1e}"


def _trial_words(found: Findings, better: float | None) -> str:
    if better is None:
        return ""
    return (
        f"; a copy learns {found.trials.pairs} pairs by heart in {STEPS} steps at {found.lr * better:.0e}, "
        f"but not at {found.lr:.0e}"
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
