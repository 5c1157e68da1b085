"""A student learns from a teacher's similarities beside the pairs themselves."""

from __future__ import annotations

from torch import Tensor, nn

from pathclip.errors import ConfigError
from pathclip.model.losses.features import Features, Need
from pathclip.model.losses.gather import compare
from pathclip.model.losses.softmax import ClipLoss


class DistillLoss(nn.Module):
    """A contrastive loss, and the cross-entropy of the student's similarities under the teacher's.

    For each row the teacher's softmax over the batch is the target of the student's, in both directions,
    as in open_clip's DistillClipLoss (after Hinton et al. 2015); the teacher may have embeddings of any
    length. With one of the student's own length the embeddings themselves can be matched too (feature
    distillation of CLIP-KD, Yang et al. 2024).

    Args:
        base: the loss on the pairs; `ClipLoss` if None.
        contrastive_weight: of the base loss.
        distill_weight: of the cross-entropy.
        feature_weight: of the mean squared difference between the embeddings.
        local_loss: as in `ClipLoss`, for the cross-entropy.
        gather_with_grad: likewise.

    Raises:
        ValueError: a negative weight.
    """

    def __init__(
        self,
        base: nn.Module | None = None,
        contrastive_weight: float = 1.0,
        distill_weight: float = 1.0,
        feature_weight: float = 0.0,
        local_loss: bool = True,
        gather_with_grad: bool = True,
    ):
        super().__init__()
        if min(contrastive_weight, distill_weight, feature_weight) < 0:
            raise ValueError("contrastive_weight, distill_weight and feature_weight must be at least 0")
        self.base = base if base is not None else ClipLoss(local_loss, gather_with_grad)
        self.contrastive_weight, self.distill_weight = contrastive_weight, distill_weight
        self.feature_weight = feature_weight
        self.local_loss, self.gather_with_grad = local_loss, gather_with_grad
        self.needs: tuple[Need, ...] = (*self.base.needs, "teacher")

    def forward(self, features: Features) -> dict[str, Tensor]:
        """The terms 'contrastive', 'distillation' and, with a weight, 'feature', each weighted.

        Without a teacher in eval mode (validation on embeddings alone) the term 'contrastive' alone.

        Raises:
            ConfigError: no teacher in training, or `feature_weight` with a teacher of another length.
        """
        terms = {"contrastive": self.contrastive_weight * self.base(features)["contrastive"]}
        image, text, scale = features.teacher_image, features.teacher_text, features.teacher_scale
        if image is None or text is None or scale is None:
            if self.training:
                raise ConfigError("loss=distill: there is no teacher; name its model folder by teacher=…")
            return terms
        local = (self.training, self.local_loss)
        student = compare(features.image, features.text, *local, self.gather_with_grad)
        teacher = compare(image, text, *local, gather_with_grad=False)
        both = (
            _cross_entropy(scale * teacher.image, features.logit_scale * student.image),
            _cross_entropy(scale * teacher.text, features.logit_scale * student.text),
        )
        terms["distillation"] = self.distill_weight * (both[0] + both[1]) / 2
        if self.feature_weight:
            terms["feature"] = self.feature_weight * _feature_difference(features, image, text)
        return terms

    def chance_level(self, group: Tensor, caption: Tensor) -> float:
        """The term 'contrastive' where embeddings tell nothing: the base loss's own level, weighted.

        The term 'distillation' is then its weight times ln n, whatever the teacher says.
        """
        return self.contrastive_weight * float(self.base.chance_level(group, caption))


def _cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    return -(target.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1).mean()


def _feature_difference(features: Features, teacher_image: Tensor, teacher_text: Tensor) -> Tensor:
    own, theirs = features.image.shape[1], teacher_image.shape[1]
    if own != theirs:
        raise ConfigError(
            f"loss.feature_weight: the teacher's embeddings have {theirs} numbers, the student's {own}; "
            f"set loss.feature_weight=0, or give the student {theirs}"
        )
    image = (features.image - teacher_image).square().mean()
    return (image + (features.text - teacher_text).square().mean()) / 2
