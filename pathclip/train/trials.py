"""What-if trials of a stuck run: can a copy of the model learn a few pairs by heart, and under which change?

A model that learns a handful of pairs by heart at the run's own learning rate, and yet does not improve on
the stream, is not given anything to learn: its captions do not match. One that learns them only at another
learning rate, or from another logit scale, is held up by that.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

PAIRS, STEPS = 16, 30
LEARNT = 0.7  # of ln(pairs): below it the pairs count as learnt
USUAL_LOG_SCALE = math.log(1 / 0.07)  # where CLIP begins
_LOWEST_LR, _HIGHEST_LR = 1e-6, 2e-2  # what is worth trying
_SUSPECT_SCALES = (3.0, 50.0)  # outside it the temperature is worth a trial of its own


@dataclass(frozen=True, slots=True)
class Trials:
    """Loss that a copy reached on a few pairs, as a share of ln(pairs); 1 and more is chance.

    Attributes:
        pairs: how many; 0 where no trial could be made.
        as_is: with everything as in the run.
        by_lr_factor: with the learning rate times the key.
        usual_scale: from CLIP's first logit scale; None where the run's is no reason for doubt.
    """

    pairs: int
    as_is: float
    by_lr_factor: dict[float, float]
    usual_scale: float | None

    def better_factor(self, higher: bool) -> float | None:
        """The factor nearest to 1 with which the pairs were learnt, above or below 1."""
        found = [f for f, share in self.by_lr_factor.items() if share < LEARNT and (f > 1) == higher]
        return min(found, key=lambda f: abs(math.log(f)), default=None)


NO_TRIALS = Trials(0, math.nan, {}, None)


def run_trials(
    model: Any,
    optimizer: torch.optim.Optimizer,
    pixels: Tensor,
    tokens: Tensor,
    clip: float | None = None,
    context: Callable[[], Any] = contextlib.nullcontext,
) -> Trials:
    """Learns the pairs by heart on copies of the model; model, optimiser and RNG stay as they are.

    Args:
        model: open_clip's dual encoder.
        optimizer: of the run; its kind, groups and learning rates are copied, its state is not.
        pixels: float32 [n, 3, h, w] of pairs that have different texts, n at least 2.
        tokens: int64 [n, length].
        clip: largest gradient norm.
        context: the run's precision.
    """

    def share(lr_factor: float, log_scale: float | None = None) -> float:
        return _memorise(model, optimizer, pixels, tokens, lr_factor, log_scale, clip, context)

    as_is = share(1.0)
    by_factor: dict[float, float] = {}
    usual = None
    if not as_is < LEARNT:
        low, high = _SUSPECT_SCALES
        if not low <= float(model.logit_scale.detach().exp().mean()) <= high:
            usual = share(1.0, USUAL_LOG_SCALE)
        lr = max(float(group["lr"]) for group in optimizer.param_groups)
        for direction in (1, -1):
            ladder = [10.0 ** (direction * tens) for tens in range(1, 10)]
            for factor in (f for f in ladder if _LOWEST_LR <= lr * f <= _HIGHEST_LR):
                by_factor[factor] = share(factor)
                if by_factor[factor] < LEARNT:
                    break
    return Trials(len(pixels), as_is, by_factor, usual)


def _memorise(
    model: Any,
    optimizer: torch.optim.Optimizer,
    pixels: Tensor,
    tokens: Tensor,
    lr_factor: float,
    log_scale: float | None,
    clip: float | None,
    context: Callable[[], Any],
) -> float:
    """The lowest loss within `STEPS` steps on a copy, as a share of ln(n)."""
    with undisturbed(pixels.device), torch.enable_grad():
        twin = copy.deepcopy(model)
        if log_scale is not None:
            twin.logit_scale.data.fill_(log_scale)
        own = _optimizer_of(twin, model, optimizer, lr_factor)
        target = torch.arange(len(pixels), device=pixels.device)
        lowest = math.inf
        for _ in range(STEPS):
            with context():
                image, text = embeddings(twin, pixels, tokens)
                logits = twin.logit_scale.exp().mean() * image @ text.T
                loss = functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
            value = float(loss.detach()) / 2 / math.log(len(pixels))
            lowest = min(lowest, value)
            if not math.isfinite(value) or lowest < LEARNT or not loss.requires_grad:
                break
            own.zero_grad()
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(twin.parameters(), clip)
            own.step()
            with torch.no_grad():
                twin.logit_scale.clamp_(0, math.log(100))
        return lowest


def embeddings(model: Any, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """L2-normalised float32 image and text embeddings, each [n, d]."""
    image, text = model.encode_image(pixels), model.encode_text(tokens)
    return functional.normalize(image.float(), dim=-1), functional.normalize(text.float(), dim=-1)


@contextlib.contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Puts torch's random numbers back as they were; nothing else draws any here."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _optimizer_of(
    twin: nn.Module, model: nn.Module, optimizer: torch.optim.Optimizer, lr_factor: float
) -> torch.optim.Optimizer:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    twins = dict(twin.named_parameters())
    groups = []
    for group in optimizer.param_groups:
        settings = {key: value for key, value in group.items() if key not in ("params", "initial_lr")}
        settings["lr"] = float(group["lr"]) * lr_factor
        # Parameters of the loss are no part of the model and stay out.
        settings["params"] = [twins[names[id(p)]] for p in group["params"] if id(p) in names]
        groups.append(settings)
    kind: Any = type(optimizer)
    return kind(groups, lr=groups[0]["lr"])
