"""The LightningModule: two towers, a contrastive loss, an optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import lightning
import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch import Tensor, nn
from torch.nn import functional

from pathclip.errors import ConfigError
from pathclip.model.losses import Features
from pathclip.model.padding import encode_text, ignores_padding, without_padding
from pathclip.model.statistics import move_once
from pathclip.model.towers import Towers
from pathclip.shards.collate import Batch
from pathclip.shards.stream import Position, derived_seed
from pathclip.train.frozen_text import FrozenText
from pathclip.train.metric_names import RANKS
from pathclip.train.micro_batches import in_micro_batches
from pathclip.train.parameter_groups import parameter_groups
from pathclip.train.probe import recall_at, zero_shot

MAX_LOG_SCALE = math.log(100)


class ContrastiveTask(lightning.LightningModule):
    """Trains a dual encoder on pairs.

    Args:
        towers: the dual encoder; its `locked` towers stay as they are.
        loss: takes `Features` and gives named terms; see `pathclip.model.losses`.
        optimizer: makes an optimiser from parameter groups; a `functools.partial` with `weight_decay`.
        schedule: learning-rate factor as a function of (step, total steps).
        seed: of dropout and patch dropout.
        layer_decay: factor of the learning rate from each layer to the one below; one, or by tower.
        micro_batch: pairs that go through the towers at a time, so that activations of no more are held;
            the loss still sees the whole batch. None for all at once.
        channels_last: memory layout of pictures and kernels.
        prompts: templates with `{}` of the zero-shot probe, where validation pairs have labels.
        teacher: a `pathclip.model.teacher.Teacher` to distil from.
    """

    def __init__(
        self,
        towers: Towers,
        loss: nn.Module,
        optimizer: Callable[[Iterable[Any]], torch.optim.Optimizer],
        schedule: Callable[[int, int], float],
        seed: int = 0,
        layer_decay: float | Mapping[str, float] = 1.0,
        micro_batch: int | None = None,
        channels_last: bool = False,
        prompts: Sequence[str] = ("{}",),
        teacher: Any = None,
    ):
        super().__init__()
        self.towers = towers
        self.model: Any = towers.model
        self.loss = loss
        self.seed, self.micro_batch, self.prompts = seed, micro_batch, prompts
        self._optimizer, self._schedule, self._layer_decay = optimizer, schedule, layer_decay
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._frozen_text = FrozenText(self.model) if FrozenText.serves(towers) else None
        # A locked trunk cuts them itself, and knows its captions by their whole rows.
        self._cuts_padding = ignores_padding(self.model) and not self._frozen_text
        self._teacher = (teacher,)  # in a tuple: a module would become part of the checkpoint
        self._validated: list[tuple[Tensor, Tensor, Batch]] = []
        self.model.to(memory_format=self._layout)
        if micro_batch:
            move_once(self.model)

    def on_fit_start(self) -> None:
        """Sets the mode of every module: Lightning leaves them as they were built, or loaded."""
        self.train()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """With `resume=epoch`, lets Lightning count the batches of a half-done epoch from 0 again."""
        loop = checkpoint["loops"]["fit_loop"]
        batches = loop["epoch_loop.batch_progress"]
        if self.trainer.datamodule.resume == "epoch" and not batches["is_last_batch"]:
            # Lightning adds the batch in whose end the checkpoint was written, when it goes on.
            missing = batches["total"]["processed"] - batches["total"]["completed"]
            for name in ("epoch_loop.batch_progress", "epoch_loop.scheduler_progress"):
                loop[name]["current"] = dict.fromkeys(loop[name]["current"], 0)
            batches["current"]["completed"] = -missing

    def train(self, mode: bool = True) -> ContrastiveTask:
        """What is locked stays in eval mode: no dropout, no drift of running statistics."""
        super().train(mode)
        self.towers.still()
        return self

    def features(self, batch: Batch) -> Features:
        """What the loss is computed from, for the pairs of this process."""
        pixels = batch.pixels.to(memory_format=self._layout)
        tokens = without_padding(batch.tokens, batch.columns) if self._cuts_padding else batch.tokens
        outputs = in_micro_batches(self._towers_on, (pixels, tokens), self.micro_batch)
        teacher = self._teach(batch)
        return Features(
            group=batch.group,
            caption=batch.caption,
            logit_scale=self.model.logit_scale.exp(),
            logit_bias=getattr(self.model, "logit_bias", None),
            **dict(zip(("image", "text", "token_logits", "token_labels"), outputs, strict=False)),
            **self._unlabelled(batch),
            **teacher,
        )

    def loss_of(self, batch: Batch) -> Tensor:
        """The loss alone, with its graph; nothing is logged."""
        return sum_of(self.loss(self.features(batch)))

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """The loss of one batch; a loss that is no number ends the run with a clear message."""
        # A run that goes on must draw what an undisturbed one would, so the draws depend on the place alone.
        torch.manual_seed(
            derived_seed(self.seed, batch.position.epoch, batch.position.batch, self.global_rank, "step")
        )
        terms = self.loss(self.features(batch))
        loss = sum_of(terms)
        self._refuse_no_number(loss)
        # The stream continues after the last batch that was trained on, not after the last one fetched.
        self.trainer.datamodule.position = Position(batch.position.epoch, batch.position.batch + 1)
        shared = {"batch_size": len(batch), "sync_dist": self.trainer.world_size > 1}
        self.log("train/loss", loss, prog_bar=True, **shared)
        if len(terms) > 1:
            self.log_dict({f"train/{name}": value for name, value in terms.items()}, **shared)
        self.log("train/logit_scale", self.model.logit_scale.exp().mean(), batch_size=len(batch))
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips as Lightning does, and under bf16 also for a fused optimiser.

        Lightning refuses that one under any autocast: it takes the scaling of fp16 back in its step only;
        bf16 needs no scaling.
        """
        precision = self.trainer.precision_plugin
        fused = getattr(optimizer, "_step_supports_amp_scaling", False)
        if not (fused and gradient_clip_val and isinstance(precision, MixedPrecision)):
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        if precision.scaler is not None:
            raise ConfigError(
                "optim.fused=true: gradients in fp16 cannot be clipped for it; use "
                "trainer.precision=bf16-mixed, optim.fused=null or trainer.gradient_clip_val=null"
            )
        algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
        Precision.clip_gradients(precision, optimizer, gradient_clip_val, algorithm)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps, then keeps the logit scale in [1, 100], as CLIP does.

        Here and not after the batch: a checkpoint is written before that hook and would miss the clamp.
        """
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, MAX_LOG_SCALE)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Embeds; the figures come at the end, over all of the validation pairs."""
        features = self.features(batch)
        # Its pixels would stay in memory for the whole of the validation.
        batch.pixels = batch.pixels[:0]
        self._validated.append((features.image, features.text, batch))

    def on_validation_epoch_end(self) -> None:
        """Loss, retrieval and zero-shot accuracy on the validation pairs."""
        if not self._validated:
            return
        images, texts, batches = zip(*self._validated, strict=True)
        image, text = torch.cat(images), torch.cat(texts)
        caption = torch.cat([batch.caption for batch in batches])
        group = torch.cat([batch.group for batch in batches])
        labels = [label for batch in batches for label in batch.labels]
        self._validated.clear()
        self.log("val/loss", self._validation_loss(image, text, group, caption), prog_bar=True)
        for k in RANKS:
            if k < len(image):  # pairs with the same text count as right
                self.log(f"val/text_to_image_recall@{k}", recall_at(k, text, image, caption), prog_bar=k == 5)
                self.log(f"val/image_to_text_recall@{k}", recall_at(k, image, text, caption))
        classes = sorted({label for label in labels if label})
        if len(classes) > 1:
            rows = torch.tensor([index for index, label in enumerate(labels) if label], device=image.device)
            right = torch.tensor([classes.index(label) for label in labels if label], device=image.device)
            accuracy = zero_shot(image[rows], self._class_embeddings(classes), right)
            self.log("val/zero_shot_balanced_accuracy", accuracy, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Parameter groups with their own learning rates and weight decay, and the schedule by step."""
        decay = float(getattr(self._optimizer, "keywords", {}).get("weight_decay", 0.0))
        groups = parameter_groups(self.towers, decay, self._layer_decay)
        scales = [group.pop("lr_scale") for group in groups]
        if of_loss := list(self.loss.parameters()):  # what maps a student's embeddings to its teacher's
            groups.append({"params": of_loss, "weight_decay": 0.0, "name": "loss"})
            scales.append(1.0)
        optimizer = self._optimizer(groups)
        for group, scale in zip(optimizer.param_groups, scales, strict=True):
            group["lr"] *= scale
        steps = int(self.trainer.estimated_stepping_batches)

        def factor(step: int) -> float:
            # Batches that `resume=epoch` repeats make the run longer; it must not end at a rate of 0.
            repeated = -(-self.trainer.datamodule.repeated // self.trainer.accumulate_grad_batches)
            return self._schedule(step, steps + repeated)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _towers_on(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
        """L2-normalised image and text features; of a model with a decoder its logits and labels too."""
        if "decoder" in self.loss.needs and self.training:
            out = self.model(pixels, tokens)
            return out["image_features"], out["text_features"], out["logits"], out["labels"]
        text = self._frozen_text(tokens) if self._frozen_text else encode_text(self.model, tokens)
        image = self.model.encode_image(pixels)
        return functional.normalize(image, dim=-1), functional.normalize(text, dim=-1)

    def _teach(self, batch: Batch) -> dict[str, Any]:
        (teacher,) = self._teacher
        if teacher is None or not self.training:
            return {}
        n = len(batch)
        pixels = batch.large if batch.large is not None else batch.pixels
        image, text, scale = teacher(pixels[:n], batch.teacher_tokens, batch.texts)
        taught = {"teacher_image": image, "teacher_text": text, "teacher_scale": scale}
        if batch.unlabelled is not None:
            beside = batch.unlabelled if batch.large is None else batch.large[n:]
            taught["teacher_unlabelled"] = teacher.images(beside)
        return taught

    def _unlabelled(self, batch: Batch) -> dict[str, Tensor]:
        """What the student makes of pictures without texts."""
        if batch.unlabelled is None or not self.training:
            return {}
        pixels = batch.unlabelled.to(memory_format=self._layout)
        (image,) = in_micro_batches(self._images_on, (pixels,), self.micro_batch)
        return {"unlabelled": image}

    def _images_on(self, pixels: Tensor) -> tuple[Tensor]:
        return (functional.normalize(self.model.encode_image(pixels), dim=-1),)

    def _refuse_no_number(self, loss: Tensor) -> None:
        # Looking at a number makes a GPU wait: there only as often as metrics are logged.
        if loss.is_cuda and self.global_step % self.trainer.log_every_n_steps:
            return
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} at step {self.global_step}: "
                "lower optim.lr or use trainer.precision=32-true"
            )

    def _validation_loss(self, image: Tensor, text: Tensor, group: Tensor, caption: Tensor) -> Tensor:
        """The contrastive loss over batches of the training's size, in one fixed order."""
        # Shards often lie in the order of their classes; a batch of one class has no negatives to tell from.
        order = torch.randperm(len(image), generator=torch.Generator().manual_seed(0)).to(image.device)
        scale, bias = self.model.logit_scale.exp(), getattr(self.model, "logit_bias", None)
        total = image.new_zeros(())
        for rows in order.split(self.trainer.datamodule.batch_size):
            part = Features(image[rows], text[rows], scale, group[rows], caption[rows], logit_bias=bias)
            total = total + sum_of(self.loss(part)) * len(rows)
        return total / len(image)

    def _class_embeddings(self, classes: Sequence[str]) -> Tensor:
        """L2-normalised [classes, d]: the mean over the prompts of each class."""
        tokenizer = self.towers.tokenizer()
        means = []
        for name in classes:
            prompts = [template.replace("{}", name) for template in self.prompts]
            tokens = torch.from_numpy(tokenizer(prompts)).to(self.device)
            means.append(functional.normalize(self.model.encode_text(tokens), dim=-1).mean(0))
        return functional.normalize(torch.stack(means), dim=-1)


def sum_of(terms: Mapping[str, Tensor]) -> Tensor:
    """The loss: the sum of its terms."""
    return torch.stack([*terms.values()]).sum()
