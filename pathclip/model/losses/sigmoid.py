"""The sigmoid loss of SigLIP."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from pathclip.errors import ConfigError
from pathclip.model.losses.features import Features, Need
from pathclip.model.losses.gather import compare, gather
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
        found = compare(features.image, features.text, self.training)
        group, caption = features.group, features.caption
        if self.training:
            group, caption = gather(group), gather(caption)
        match = matches(self.positives, group, caption, found.own)
        logits = features.logit_scale * found.image + features.logit_bias
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
