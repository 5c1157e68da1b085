"""The loss stays at ln(batch): which of the usual causes does it look like? Measured in the run itself."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pathclip import atomic
from pathclip.model.losses import gather
from pathclip.shards.collate import Batch
from pathclip.train.causes import WORTH_SAYING, Cause, Findings, is_learning, rank
from pathclip.train.trials import NO_TRIALS, PAIRS, Trials, embeddings, run_trials, undisturbed

FILE = "diagnosis.json"
_WATCHED = 5  # steps before a look during which gradients and weights are watched
_SMOOTHING = 0.9
# Below so many steps the smoothed loss is too restless to be called falling.
_LONG = 100
_SETTLED = 10  # steps after which the smoothed loss counts for the lowest
_SLICE = 4096  # entries of each parameter that are watched
_MEASURED = 64  # pairs of the batch whose embeddings are measured


class StuckLoss(Callback):
    """Says why the training loss does not leave the level of chance, if it does not.

    At each of the steps in `after` the smoothed loss is compared with the loss that embeddings which tell
    nothing would have (ln n for CLIP's loss on a global batch of n; under DDP the numbers of all ranks are
    gathered). If it is still there, the first rank measures on the current batch, before it is trained on,
    and tries on copies of the model what would let it learn; this costs about as much as training on
    2,000 pairs, and memory for one more copy of the model and its optimiser. It prints one paragraph to
    stderr and writes `diagnosis.json` in the run folder.

    Weights, statistics of norms, gradients and random numbers stay as they were, bit for bit. While the
    learning rate is still rising, nothing is said. Sharded weights (FSDP) are measured without the trials.

    Args:
        after: optimiser steps at which to look.
        tolerance: share of the chance level by which the loss must have fallen to count as learning.
        action: 'warn', or 'stop' to end the training as well.

    Raises:
        ValueError: a step below 10, or a tolerance outside (0, 1).
    """

    def __init__(
        self,
        after: Sequence[int] = (100, 300, 1000),
        tolerance: float = 0.05,
        action: Literal["warn", "stop"] = "warn",
    ):
        if not after or min(after) < 10:
            raise ValueError(
                f"after is {list(after)}; it takes 10 steps at least to see whether a loss falls"
            )
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance is {tolerance}; it must lie between 0 and 1")
        self.after, self.tolerance, self.action = sorted(after), tolerance, action
        self._smoothed: Tensor | None = None
        self._halfway: Tensor | None = None
        self._lowest: Tensor | None = None
        self._seen = 0
        self._looked = -1
        self._start: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}
        self._gradients: list[dict[str, float]] = []
        self._lr_before = math.inf

    def on_train_start(self, trainer: Any, task: Any) -> None:
        """Remembers where the weights began."""
        self._start = _slices(task.model)

    def on_train_batch_end(self, trainer: Any, task: Any, *_: Any) -> None:
        """Smooths the loss, on its device: a look at its value would make a GPU wait."""
        loss = contrastive_loss(trainer)
        if loss is None:
            return
        loss = loss.detach().float()
        self._smoothed = (
            loss.clone() if self._smoothed is None else torch.lerp(loss, self._smoothed, _SMOOTHING)
        )
        if trainer.global_step in {look // 2 for look in self.after if look >= _LONG}:
            self._halfway = self._smoothed
        self._seen += 1
        if self._seen > _SETTLED:
            self._lowest = (
                self._smoothed if self._lowest is None else torch.minimum(self._lowest, self._smoothed)
            )

    def on_before_optimizer_step(self, trainer: Any, task: Any, optimizer: Any) -> None:
        """Watches the gradients of the few steps before a look, before they are clipped."""
        if not self._watching(trainer.global_step):
            return
        if not self._gradients:
            self._before = _slices(task.model)
            self._lr_before = _learning_rate(trainer)
        self._gradients.append(_gradient_norms(task.model))

    def on_train_batch_start(self, trainer: Any, task: Any, batch: Batch, index: int) -> None:
        """Looks, where it is time to."""
        step = trainer.global_step
        if step not in self.after or step == self._looked:
            return
        self._looked = step
        rising = _learning_rate(trainer) > self._lr_before
        watched = len(self._gradients) == _WATCHED and self._smoothed is not None
        if watched and not rising:
            self._look(trainer, task, batch)
        self._before, self._gradients = {}, []

    def _watching(self, step: int) -> bool:
        return any(look - _WATCHED <= step < look for look in self.after)

    def _look(self, trainer: Any, task: Any, batch: Batch) -> None:
        assert self._smoothed is not None
        # Every rank decides alike: what follows must not leave one of them waiting for the others.
        loss = _mean(trainer, self._smoothed)
        earlier = math.inf if self._halfway is None else _mean(trainer, self._halfway)
        group, caption = gather(batch.group), gather(batch.caption)
        chance = float(task.loss.chance_level(group, caption))
        if chance <= 0 or not loss >= (1 - self.tolerance) * chance:
            return
        if math.isfinite(earlier) and earlier - loss > self.tolerance * chance:
            return  # above chance, as with a sharp scale on new data, but falling
        stuck = True
        if trainer.is_global_zero or _sharded(task.model):
            found = self._measure(trainer, task, batch, loss, chance, caption)
            stuck = not is_learning(found)
            if stuck and trainer.is_global_zero:
                self._report(trainer, found)
        if self.action == "stop" and trainer.strategy.broadcast(stuck):
            trainer.should_stop = True

    def _measure(
        self, trainer: Any, task: Any, batch: Batch, loss: float, chance: float, caption: Tensor
    ) -> Findings:
        image, text = _embeddings_now(trainer, task.model, batch)
        logits = task.model.logit_scale.detach().exp().mean().float() * image @ text.T
        now = _slices(task.model)
        norms = {
            tower: sum(each[tower] for each in self._gradients) / len(self._gradients)
            for tower in self._gradients[0]
        }
        clip = trainer.gradient_clip_val
        totals = [math.hypot(*each.values()) for each in self._gradients]
        return Findings(
            step=trainer.global_step,
            loss=loss,
            lowest_loss=math.inf if self._lowest is None else float(self._lowest),
            chance=chance,
            pairs=len(caption),
            distinct_texts=len(caption.unique()),
            lr=_learning_rate(trainer),
            update=_distance(now, self._before) / _WATCHED,
            growth=_norm(now) / max(_norm(self._start), 1e-12),
            gradient_norm=norms,
            trainable=_trainable(task.model),
            clipped=sum(total > clip for total in totals) / len(totals) if clip else 0.0,
            logit_scale=float(task.model.logit_scale.detach().exp().mean()),
            logit_range=float(logits.max() - logits.min()),
            image_cosine=_mean_cosine(image),
            text_cosine=_mean_cosine(text),
            margin=_margin(image @ text.T, batch.group[: len(image)], batch.caption[: len(image)]),
            pixel_spread=float(batch.pixels[:_MEASURED].float().std(dim=0).mean()) if len(batch) > 1 else 0.0,
            trials=_trials(trainer, task.model, batch),
        )

    def _report(self, trainer: Any, found: Findings) -> None:
        causes = rank(found)
        file = Path(trainer.default_root_dir) / FILE
        atomic.write_json(
            file,
            {
                **found.as_json(),
                "causes": [
                    {"name": c.name, "score": c.score, "evidence": c.evidence, "advice": c.advice}
                    for c in causes
                ],
            },
        )
        print(paragraph(found, causes, file), file=sys.stderr, flush=True)


def _mean(trainer: Any, value: Tensor) -> float:
    """Over the processes."""
    return float(trainer.strategy.reduce(value.clone(), reduce_op="mean"))


def contrastive_loss(trainer: Any) -> Tensor | None:
    """The contrastive term of the step just done; of a loss with no other term the loss itself."""
    logged = trainer.callback_metrics
    return logged.get("train/contrastive", logged.get("train/loss"))


def paragraph(found: Findings, causes: Sequence[Cause], file: Path) -> str:
    """What a person reads: the likeliest causes with their evidence, and what to change for each."""
    told = [cause for cause in causes if cause.score >= WORTH_SAYING][:3]
    words = [
        f"train/loss is {found.loss:.4g} after {found.step} steps, no better than chance "
        f"({found.chance:.4g} for {found.pairs} pairs)."
    ]
    for position, cause in enumerate(told):
        lead = "This looks most like" if position == 0 else "Then like"
        words.append(f"{lead} {cause.name.replace('_', ' ')}: {cause.evidence} → {cause.advice}.")
    if not told:
        words.append("None of the usual causes stands out; it may only need more steps.")
    words.append(f"All numbers: {file}")
    return " ".join(words)


def tower_of(name: str) -> str | None:
    """'image' or 'text' for a parameter of open_clip's models; None for scale and bias of the logits."""
    if name.startswith(("logit_scale", "logit_bias")):
        return None
    return "image" if name.startswith("visual.") else "text"


def _local(parameter: Tensor) -> Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def _sharded(model: nn.Module) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def _slices(model: nn.Module) -> dict[str, Tensor]:
    """The first entries of every trained parameter: enough to see how far the weights move."""
    return {
        name: _local(parameter).detach().reshape(-1)[:_SLICE].float().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def _norm(slices: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float(part.square().sum()) for part in slices.values()))


def _distance(now: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> float:
    """‖now - before‖ / ‖before‖."""
    return _norm({name: now[name] - before[name] for name in now}) / max(_norm(before), 1e-12)


def _gradient_norms(model: nn.Module) -> dict[str, float]:
    squares = {"image": 0.0, "text": 0.0}
    for name, parameter in model.named_parameters():
        tower = tower_of(name)
        if tower and parameter.grad is not None:
            squares[tower] += float(_local(parameter.grad).detach().float().square().sum())
    return {tower: math.sqrt(square) for tower, square in squares.items()}


def _trainable(model: nn.Module) -> dict[str, int]:
    counts = {"image": 0, "text": 0}
    for name, parameter in model.named_parameters():
        tower = tower_of(name)
        if tower and parameter.requires_grad:
            counts[tower] += parameter.numel()
    return counts


def _learning_rate(trainer: Any) -> float:
    return max(float(group["lr"]) for optimizer in trainer.optimizers for group in optimizer.param_groups)


def _embeddings_now(trainer: Any, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Embeddings as the loss sees them: with the batch's own statistics, so on a copy that may keep them."""
    pixels, tokens = batch.pixels[:_MEASURED], batch.tokens[:_MEASURED]
    twin = model if _sharded(model) else copy.deepcopy(model)
    with undisturbed(pixels.device), torch.no_grad(), trainer.precision_plugin.forward_context():
        return embeddings(twin, pixels, tokens)


def _mean_cosine(rows: Tensor) -> float:
    """Mean cosine of two different rows, which are L2-normalised."""
    n = len(rows)
    return float((rows.sum(dim=0).square().sum() - n) / (n * (n - 1))) if n > 1 else math.nan


def _margin(cosine: Tensor, group: Tensor, caption: Tensor) -> float:
    """Mean cosine of true pairs minus that of pairs of other groups and texts, in standard errors."""
    others = cosine[(group[:, None] != group[None]) & (caption[:, None] != caption[None])]
    if len(others) < 2:
        return 0.0
    error = float(others.std()) / math.sqrt(len(cosine))
    return float(cosine.diagonal().mean() - others.mean()) / max(error, 1e-12)


def _trials(trainer: Any, model: Any, batch: Batch) -> Trials:
    """Trials on pairs with different texts; none where there are too few of them or too little memory."""
    first: dict[int, int] = {}
    for row, number in enumerate(batch.caption.tolist()):
        first.setdefault(number, row)
    rows = list(first.values())[:PAIRS]
    if len(rows) < 4 or _sharded(model):
        return NO_TRIALS
    try:
        return run_trials(
            model,
            trainer.optimizers[0],
            batch.pixels[rows],
            batch.tokens[rows],
            trainer.gradient_clip_val,
            trainer.precision_plugin.forward_context,
        )
    except torch.OutOfMemoryError:
        return NO_TRIALS
