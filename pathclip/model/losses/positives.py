"""Which pairs of a batch are positives of each other."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Positives = Literal["pair", "group_and_text", "group", "text"]


def matches(positives: Positives, group: Tensor, caption: Tensor, own: Tensor) -> Tensor:
    """Whether a row's pair and a column's pair are positives of each other, bool [m, N].

    Args:
        positives: the pair alone; same group and same text; same group; or same text whatever the group.
        group: int64 [N] of all pairs.
        caption: int64 [N] of all pairs.
        own: int64 [m], where the rows stand among the columns.
    """
    alone = own[:, None] == torch.arange(len(group), device=own.device)[None, :]
    if positives == "pair":
        return alone
    same_group = group[own][:, None] == group[None, :]
    same_text = caption[own][:, None] == caption[None, :]
    both = {"group": same_group, "text": same_text, "group_and_text": same_group & same_text}
    return both[positives] | alone


def counts(positives: Positives, group: Tensor, caption: Tensor) -> Tensor:
    """How many positives each pair of a whole batch has, itself included, int64 [N]."""
    keys = {
        "pair": torch.arange(len(group))[:, None],
        "group": group[:, None],
        "text": caption[:, None],
        "group_and_text": torch.stack([group, caption], dim=1),
    }
    _, member, size = torch.unique(keys[positives], dim=0, return_inverse=True, return_counts=True)
    return size[member]
