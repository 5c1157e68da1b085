"""Contrastive losses. Each takes the local batch and, in training under DDP, gathers the rest with gradients.

In eval mode nothing is gathered: every rank then sees all validation pairs, and a gathered batch would
hold each of them once per rank, as negatives of themselves.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Positives = Literal["group_and_text", "group", "text"]


def gather(features: Tensor) -> Tensor:
    """All ranks' rows [world * n, …] in rank order, with gradients to each; the input alone without DDP."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return features
    if torch.distributed.get_world_size() == 1:
        return features
    if features.dtype.is_floating_point:
        from torch.distributed.nn.functional import all_gather

        return torch.cat(list(all_gather(features)))
    parts = [torch.empty_like(features) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, features)
    return torch.cat(parts)


class ClipLoss(nn.Module):
    """The symmetric softmax loss of CLIP (Radford et al. 2021): pair i's only positive is pair i."""

    def forward(
        self, image: Tensor, text: Tensor, logit_scale: Tensor, group: Tensor, caption: Tensor
    ) -> Tensor:
        """Mean cross-entropy of both directions.

        Args:
            image: L2-normalised [n, d].
            text: L2-normalised [n, d].
            logit_scale: the factor itself (not its logarithm), a scalar.
            group: int64 [n], unused here.
            caption: int64 [n], unused here.
        """
        if self.training:
            image, text = gather(image), gather(text)
        logits = logit_scale * image @ text.T
        target = torch.arange(len(logits), device=logits.device)
        return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


class MultiPositiveLoss(nn.Module):
    """Softmax loss whose target is spread evenly over all positives of a row.

    Several pictures of a post share its text; CLIP's loss then calls true pairs negatives and cannot
    fall below log(m) for m such pairs. Here they share the target, as in supervised contrastive
    learning (Khosla et al. 2020) and UniCL (Yang et al. 2022). The entropy of the target is subtracted,
    so that the loss reaches 0 at best and can be compared across batches.

    Args:
        positives: which pairs count as positives of each other: same group and same text (the default),
            same group, or same text whatever the group.
    """

    def __init__(self, positives: Positives = "group_and_text"):
        super().__init__()
        self.positives = positives

    def forward(
        self, image: Tensor, text: Tensor, logit_scale: Tensor, group: Tensor, caption: Tensor
    ) -> Tensor:
        """Mean Kullback–Leibler divergence of both directions; arguments as in `ClipLoss`.

        `group` and `caption` are int64 [n]: equal numbers mean the same group or the same text.
        """
        if self.training:
            image, text, group, caption = gather(image), gather(text), gather(group), gather(caption)
        logits = logit_scale * image @ text.T
        same_group = group[:, None] == group[None, :]
        same_text = caption[:, None] == caption[None, :]
        match = {"group": same_group, "text": same_text, "group_and_text": same_group & same_text}[
            self.positives
        ]
        match = match | torch.eye(len(match), dtype=torch.bool, device=match.device)
        target = match.to(logits.dtype)
        target = target / target.sum(dim=1, keepdim=True)  # match is symmetric: rows serve both directions
        floor = -torch.xlogy(target, target).sum(dim=1).mean()
        return (
            functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
        ) / 2 - floor
