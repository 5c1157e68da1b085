"""The LightningModule: two towers, a contrastive loss, an optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional

from pathclip.model.towers import Towers
from pathclip.shards.datamodule import Batch
from pathclip.shards.stream import Position
from pathclip.train.frozen_text import FrozenText
from pathclip.train.probe import recall_at

MAX_LOG_SCALE = math.log(100)


class ContrastiveTask(lightning.LightningModule):
    """Trains a dual encoder on pairs.

    Args:
        towers: the dual encoder; its `locked` towers stay as they are.
        loss: takes (image, text, logit_scale, group, caption); see `pathclip.model.losses`.
        optimizer: makes an optimiser from parameter groups.
        schedule: learning-rate factor as a function of (step, total steps).
    """

    def __init__(
        self,
        towers: Towers,
        loss: nn.Module,
        optimizer: Callable[[Iterable[Any]], torch.optim.Optimizer],
        schedule: Callable[[int, int], float],
    ):
        super().__init__()
        self.towers = towers
        self.model: Any = towers.model
        self.loss = loss
        self._optimizer, self._schedule = optimizer, schedule
        self._frozen_text = FrozenText(self.model) if "text" in towers.locked and towers.text_config else None
        self._held: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def on_fit_start(self) -> None:
        """Sets the mode of every module: Lightning leaves them as they were built, or loaded."""
        self.train()

    def train(self, mode: bool = True) -> ContrastiveTask:
        """Locked trunks stay in eval mode: no dropout, no drift of running statistics."""
        super().train(mode)
        if "image" in self.towers.locked:
            getattr(self.model.visual, "trunk", self.model.visual).eval()
        if "text" in self.towers.locked and hasattr(self.model, "text"):
            getattr(self.model.text, "transformer", self.model.text).eval()
        return self

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """L2-normalised image and text features, each [n, d]."""
        text = self._frozen_text(batch.tokens) if self._frozen_text else self.model.encode_text(batch.tokens)
        return functional.normalize(self.model.encode_image(batch.pixels), dim=-1), functional.normalize(
            text, dim=-1
        )

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """The loss of one batch; a loss that is no number ends the run with a clear message."""
        image, text = self.embed(batch)
        loss = self.loss(image, text, self.model.logit_scale.exp(), batch.group, batch.caption)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} at step {self.global_step}: "
                "lower optim.lr or use trainer.precision=32-true"
            )
        # The stream continues after the last batch that was trained on, not after the last one fetched.
        self.trainer.datamodule.position = Position(batch.position.epoch, batch.position.batch + 1)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch))
        self.log("train/logit_scale", self.model.logit_scale.exp().mean(), batch_size=len(batch))
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps, then keeps the logit scale in [1, 100], as CLIP does.

        Here and not after the batch: a checkpoint is written before that hook and would miss the clamp.
        """
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, MAX_LOG_SCALE)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Embeds; the figures come at the end, over all of the validation pairs."""
        # Not the batch itself: its pixels would stay in memory for the whole of the validation.
        self._held.append((*self.embed(batch), batch.group, batch.caption))

    def on_validation_epoch_end(self) -> None:
        """Loss and retrieval on the validation pairs; pairs with the same text count as right."""
        if not self._held:
            return
        image, text, group, caption = (torch.cat(parts) for parts in zip(*self._held, strict=True))
        # Shards often lie in the order of their classes; a batch of one class has no negatives to tell from.
        order = torch.randperm(len(image), generator=torch.Generator().manual_seed(0)).to(image.device)
        scale, size = self.model.logit_scale.exp(), self.trainer.datamodule.batch_size
        losses = [
            self.loss(image[rows], text[rows], scale, group[rows], caption[rows]) * len(rows)
            for rows in order.split(size)
        ]
        self.log("val/loss", torch.stack(losses).sum() / len(image), prog_bar=True)
        for k in (1, 5, 10):
            if k < len(image):
                self.log(f"val/text_to_image_recall@{k}", recall_at(k, text, image, caption), prog_bar=k == 5)
        self._held.clear()

    def configure_optimizers(self) -> Any:
        """Weight decay on matrices and kernels only: not on norms, biases and the logit scale."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = self._optimizer(
            [
                {"params": [p for p in trained if p.ndim >= 2]},
                {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
            ]
        )
        total = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self._schedule(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
