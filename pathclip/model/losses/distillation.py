"""A student learns what a teacher makes of pictures and texts, beside the pairs themselves."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pathclip.errors import ConfigError
from pathclip.model.losses.features import Features, Need
from pathclip.model.losses.gather import compare, gather, in_full_precision
from pathclip.model.losses.softmax import ClipLoss


class DistillLoss(nn.Module):
    """A contrastive loss, and the cross-entropy of the student's similarities under the teacher's.

    For each row the teacher's softmax over the batch is the target of the student's, in both directions,
    as in open_clip's DistillClipLoss (after Hinton et al. 2015, arXiv:1503.02531); the teacher may have
    embeddings of any length. The embeddings themselves can be matched too (feature distillation of CLIP-KD,
    Yang et al. 2024, arXiv:2307.12732, which found it the strongest single term): those of a student of
    another length through a linear map, one for pictures and texts as they share a space. The map is learnt
    with the student and is no part of the model.

    Pictures without texts have no contrastive term, as no text of the batch is theirs. Their rows of
    similarities with the captions of the batch, which the teacher has softly sorted, are learnt from it, and
    their embeddings count in the picture's half of the feature term.

    Args:
        base: the loss on the pairs; `ClipLoss` if None.
        contrastive_weight: of the base loss.
        distill_weight: of the cross-entropy.
        feature_weight: of the mean squared difference between the embeddings; they have length 1, so d
            numbers differ by 2 (1 - cosine) / d, and CLIP-KD's weight is 2000.
        unlabelled_weight: of the cross-entropy of pictures without texts.
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
        unlabelled_weight: float = 1.0,
        local_loss: bool = True,
        gather_with_grad: bool = True,
    ):
        super().__init__()
        if min(contrastive_weight, distill_weight, feature_weight, unlabelled_weight) < 0:
            raise ValueError(
                "contrastive_weight, distill_weight, feature_weight and unlabelled_weight must be at least 0"
            )
        self.base = base if base is not None else ClipLoss(local_loss, gather_with_grad)
        self.contrastive_weight, self.distill_weight = contrastive_weight, distill_weight
        self.feature_weight, self.unlabelled_weight = feature_weight, unlabelled_weight
        self.local_loss, self.gather_with_grad = local_loss, gather_with_grad
        self.needs: tuple[Need, ...] = (*self.base.needs, "teacher")
        self.to_teacher: nn.Linear | None = None

    def match_lengths(self, student: int, teacher: int) -> None:
        """Makes the map from the student's embeddings to the teacher's, where the feature term needs one.

        To be called before the optimiser is made.
        """
        if self.feature_weight and student != teacher:
            self.to_teacher = nn.Linear(student, teacher, bias=False)

    def forward(self, features: Features) -> dict[str, Tensor]:
        """The terms 'contrastive' and 'distillation', and with their weights 'feature' and 'unlabelled'.

        Each is weighted. 'unlabelled' is there with pictures without texts only. Without a teacher in eval
        mode (validation on embeddings alone) the term 'contrastive' alone.

        Raises:
            ConfigError: no teacher in training, or a feature term with a teacher of another length before
                `match_lengths`.
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
            terms["feature"] = self.feature_weight * self._feature_difference(features, image, text)
        if self.unlabelled_weight and features.unlabelled is not None:
            terms["unlabelled"] = self.unlabelled_weight * self._unlabelled(features, text, scale)
        return terms

    def chance_level(self, group: Tensor, caption: Tensor) -> float:
        """The term 'contrastive' where embeddings tell nothing: the base loss's own level, weighted.

        The term 'distillation' is then its weight times ln n, whatever the teacher says.
        """
        return self.contrastive_weight * float(self.base.chance_level(group, caption))

    def _unlabelled(self, features: Features, teacher_text: Tensor, teacher_scale: float) -> Tensor:
        """Cross-entropy over all captions of the batch, of the pictures of this process."""
        assert features.unlabelled is not None and features.teacher_unlabelled is not None
        image, text = in_full_precision(features.unlabelled), in_full_precision(features.text)
        theirs, their_text = (
            in_full_precision(features.teacher_unlabelled),
            in_full_precision(teacher_text),
        )
        if self.training:
            text, their_text = gather(text, self.gather_with_grad), gather(their_text, with_grad=False)
        with torch.autocast(image.device.type, enabled=False):
            return _cross_entropy(
                teacher_scale * theirs @ their_text.T, features.logit_scale * image @ text.T
            )

    def _feature_difference(self, features: Features, teacher_image: Tensor, teacher_text: Tensor) -> Tensor:
        image = features.image
        if features.unlabelled is not None and features.teacher_unlabelled is not None:
            image = torch.cat([image, features.unlabelled])
            teacher_image = torch.cat([teacher_image, features.teacher_unlabelled])
        pictures = (self._as_teacher(image, teacher_image) - teacher_image).square().mean()
        texts = (self._as_teacher(features.text, teacher_text) - teacher_text).square().mean()
        return (pictures + texts) / 2

    def _as_teacher(self, own: Tensor, theirs: Tensor) -> Tensor:
        if self.to_teacher is not None:
            return functional.normalize(self.to_teacher(own), dim=-1)
        if own.shape[1] != theirs.shape[1]:
            raise ConfigError(
                f"loss.feature_weight: the teacher's embeddings have {theirs.shape[1]} numbers, the "
                f"student's {own.shape[1]}; set loss.feature_weight=0, or give the student {theirs.shape[1]}"
            )
        return own


def _cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    return -(target.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1).mean()
