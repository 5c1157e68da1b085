"""CLIP's softmax loss, its form with several positives, and the reweighting of hard negatives in both."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pathclip.model.losses.features import Features, Need
from pathclip.model.losses.gather import compare, gather
from pathclip.model.losses.positives import Positives, counts, matches


class ClipLoss(nn.Module):
    """The symmetric softmax loss of CLIP (Radford et al. 2021): pair i's only positive is pair i.

    Args:
        local_loss: each rank computes its own rows against all columns: memory n · N in place of N · N.
        gather_with_grad: gradients reach the ranks that gathered embeddings came from. Without, gradients
            are not those of the whole batch; as in open_clip.
        hard_negative_beta: weight negatives by their similarity; see `reweight_negatives`. 0 weights none.

    Raises:
        ValueError: a negative `hard_negative_beta`.
    """

    needs: tuple[Need, ...] = ()

    def __init__(
        self, local_loss: bool = True, gather_with_grad: bool = True, hard_negative_beta: float = 0.0
    ):
        super().__init__()
        if not 0 <= hard_negative_beta < math.inf:
            raise ValueError(f"hard_negative_beta must be at least 0, not {hard_negative_beta}")
        self.local_loss, self.gather_with_grad = local_loss, gather_with_grad
        self.hard_negative_beta = hard_negative_beta

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Mean cross-entropy of both directions, as the term 'contrastive'."""
        found = compare(features.image, features.text, self.training, self.local_loss, self.gather_with_grad)
        both = []
        for similarities in (found.image, found.text):
            logits = features.logit_scale * similarities
            if self.hard_negative_beta:
                negative = torch.ones_like(logits, dtype=torch.bool).scatter_(1, found.own[:, None], False)
                logits = reweight_negatives(logits, negative, self.hard_negative_beta)
            both.append(functional.cross_entropy(logits, found.own))
        return {"contrastive": (both[0] + both[1]) / 2}

    def chance_level(self, group: Tensor, caption: Tensor) -> float:
        """The term 'contrastive' where all similarities are equal: ln n.

        Args:
            group: int64 [n] of the whole batch, over all ranks.
            caption: likewise.
        """
        return math.log(len(group))


class MultiPositiveLoss(nn.Module):
    """Softmax loss whose target is spread evenly over all positives of a row.

    Several pictures of a post share its text; CLIP's loss then calls true pairs negatives and cannot
    fall below log(m) for m such pairs. Here they share the target, as in supervised contrastive
    learning (Khosla et al. 2020) and UniCL (Yang et al. 2022). The entropy of the target is subtracted,
    so that the loss reaches 0 at best and can be compared across batches.

    Args:
        positives: which pairs count as positives of each other: same group and same text (the default),
            same group, or same text whatever the group.
        local_loss: as in `ClipLoss`.
        gather_with_grad: as in `ClipLoss`.
        hard_negative_beta: as in `ClipLoss`; positives are never weighted.

    Raises:
        ValueError: a negative `hard_negative_beta`.
    """

    needs: tuple[Need, ...] = ()

    def __init__(
        self,
        positives: Positives = "group_and_text",
        local_loss: bool = True,
        gather_with_grad: bool = True,
        hard_negative_beta: float = 0.0,
    ):
        super().__init__()
        if not 0 <= hard_negative_beta < math.inf:
            raise ValueError(f"hard_negative_beta must be at least 0, not {hard_negative_beta}")
        self.positives = positives
        self.local_loss, self.gather_with_grad = local_loss, gather_with_grad
        self.hard_negative_beta = hard_negative_beta

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Mean Kullback–Leibler divergence of both directions, as the term 'contrastive'."""
        found = compare(features.image, features.text, self.training, self.local_loss, self.gather_with_grad)
        group, caption = features.group, features.caption
        if self.training:
            group, caption = gather(group), gather(caption)
        match = matches(self.positives, group, caption, found.own)
        target = match.to(found.image.dtype)
        target = target / target.sum(dim=1, keepdim=True)  # matching is symmetric: rows serve both directions
        floor = -torch.xlogy(target, target).sum(dim=1).mean()
        both = []
        for similarities in (found.image, found.text):
            logits = features.logit_scale * similarities
            if self.hard_negative_beta:
                logits = reweight_negatives(logits, ~match, self.hard_negative_beta)
            both.append(functional.cross_entropy(logits, target))
        return {"contrastive": (both[0] + both[1]) / 2 - floor}

    def chance_level(self, group: Tensor, caption: Tensor) -> float:
        """The term 'contrastive' where all similarities are equal: ln n less the target's mean entropy.

        Arguments as in `ClipLoss.chance_level`.
        """
        size = counts(self.positives, group, caption)
        return math.log(len(group)) - float(size.double().log().mean())


def reweight_negatives(logits: Tensor, negative: Tensor, beta: float) -> Tensor:
    """Logits with those of a row's negatives raised by the logarithm of their weight.

    The weight of negative j is (number of negatives) · exp(β · logit_j) / Σ_k exp(β · logit_k): 1 on
    average, more for those that resemble the query (HN-NCE, Radenovic et al. 2023, after Robinson et al.
    2021). Weights are constants to the gradient, else an easy negative would be drawn nearer. β = 0, or
    similarities that are all equal, change nothing.

    Args:
        logits: [m, N].
        negative: bool [m, N].
        beta: HN-NCE found 0.25 to 0.5 good.
    """
    with torch.no_grad():
        raised = (beta * logits).masked_fill(~negative, -math.inf)
        number = negative.sum(dim=1, keepdim=True)
        log_weight = number.log() + raised - raised.logsumexp(dim=1, keepdim=True)
        log_weight = log_weight.masked_fill(~negative, 0.0)  # also where a row has no negative at all
    return logits + log_weight
