"""CoCa's loss: contrast, and the caption word by word."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pathclip.errors import ConfigError
from pathclip.model.losses.features import Features, Need
from pathclip.model.losses.gather import rank_and_world
from pathclip.model.losses.softmax import ClipLoss


class CoCaLoss(nn.Module):
    """A contrastive loss, and the cross-entropy of each next token of the caption (Yu et al. 2022).

    Args:
        base: the contrastive loss; `ClipLoss` if None.
        contrastive_weight: of the base loss; 1 in the paper and in open_clip.
        caption_weight: of the caption's; 2 there.
        pad_id: label that is not counted.

    Raises:
        ValueError: a negative weight.
    """

    def __init__(
        self,
        base: nn.Module | None = None,
        contrastive_weight: float = 1.0,
        caption_weight: float = 2.0,
        pad_id: int = 0,
    ):
        super().__init__()
        if min(contrastive_weight, caption_weight) < 0:
            raise ValueError("contrastive_weight and caption_weight must be at least 0")
        self.base = base if base is not None else ClipLoss()
        self.contrastive_weight, self.caption_weight, self.pad_id = contrastive_weight, caption_weight, pad_id
        self.needs: tuple[Need, ...] = (*self.base.needs, "decoder")

    def forward(self, features: Features) -> dict[str, Tensor]:
        """The terms 'contrastive' and 'caption', each weighted; the latter a mean over all ranks' tokens.

        Without `token_logits` in eval mode (validation on embeddings alone) there is no term 'caption'.

        Raises:
            ConfigError: in training, the model has no decoder.
        """
        terms = {"contrastive": self.contrastive_weight * self.base(features)["contrastive"]}
        if features.token_logits is not None and features.token_labels is not None:
            caption = self._caption(features.token_logits, features.token_labels)
            return {**terms, "caption": self.caption_weight * caption}
        if self.training:
            raise ConfigError("loss=coca: the model has no decoder; use model=coca")
        return terms

    def chance_level(self, group: Tensor, caption: Tensor) -> float:
        """The term 'contrastive' where embeddings tell nothing: the base loss's own level, weighted.

        The caption's term is left out: a decoder that sees no image still learns the language.
        """
        return self.contrastive_weight * float(self.base.chance_level(group, caption))

    def _caption(self, logits: Tensor, labels: Tensor) -> Tensor:
        total = functional.cross_entropy(
            logits.transpose(1, 2), labels, ignore_index=self.pad_id, reduction="sum"
        )
        tokens = (labels != self.pad_id).sum()
        world = rank_and_world()[1] if self.training else 1
        if world > 1:
            # Captions differ in length: a mean of the ranks' own means would weigh their tokens unequally.
            torch.distributed.all_reduce(tokens)
        return total * world / tokens.clamp(min=1)
