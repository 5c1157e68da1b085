"""The sigmoid loss of SigLIP."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pathclip.errors import ConfigError
from pathclip.model.losses.features import Features, Need
from pathclip.model.losses.gather import gather, in_full_precision, rank_and_world
from pathclip.model.losses.positives import Positives, counts, matches


class SigLipLoss(nn.Module):
    """Each image with each text is a question of its own: do they belong together (Zhai et al. 2023)?

    The model needs a logit bias; SigLIP starts with `model.logit_scale=10 model.logit_bias=-10`. Each rank
    compares its images with the texts of all ranks, which is exact and holds n · N logits.

    Args:
        positives: what belongs together: the pair alone, as in the paper, or what `MultiPositiveLoss` offers.
    """

    needs: tuple[Need, ...] = ("logit_bias",)

    def __init__(self, positives: Positives = "pair"):
        super().__init__()
        self.positives = positives

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Sum over a row's logarithmic losses, mean over the rows, as the term 'contrastive'.

        Raises:
            ConfigError: the model has no logit bias.
        """
        if features.logit_bias is None:
            raise ConfigError(
                "loss=siglip: the model has no logit bias; set model.logit_scale=10 model.logit_bias=-10"
            )
        image, text = in_full_precision(features.image), in_full_precision(features.text)
        group, caption = features.group, features.caption
        rank, _ = rank_and_world() if self.training else (0, 1)
        own = rank * len(image) + torch.arange(len(image), device=image.device)
        if self.training:
            text, group, caption = gather(text), gather(group), gather(caption)
        match = matches(self.positives, group, caption, own)
        with torch.autocast(image.device.type, enabled=False):
            cosines = image @ text.T
        logits = features.logit_scale * cosines + features.logit_bias
        sign = 2 * match.to(logits.dtype) - 1
        return {"contrastive": -functional.logsigmoid(sign * logits).sum(dim=1).mean()}

    def chance_level(self, group: Tensor, caption: Tensor) -> float:
        """The term 'contrastive' with the best constant logit: n times the entropy of the share of positives.

        Arguments as in `ClipLoss.chance_level`. The untrained loss is higher: its bias is not yet that.
        """
        n = len(group)
        share = float(counts(self.positives, group, caption).sum()) / n**2
        if share == 1:
            return 0.0
        return n * -(share * math.log(share) + (1 - share) * math.log1p(-share))
