"""A quick look at retrieval while training; `pathclip.evaluate` has the full figures with intervals."""

from __future__ import annotations

import torch
from torch import Tensor


def recall_at(k: int, queries: Tensor, gallery: Tensor, identity: Tensor) -> Tensor:
    """Share of queries that find a gallery row of their own identity among the k nearest.

    Args:
        k: at least 1.
        queries: L2-normalised [n, d].
        gallery: L2-normalised [n, d]; row i belongs to query i.
        identity: int64 [n]; equal numbers count as a match.
    """
    found = []
    for start in range(0, len(queries), 1024):
        nearest = (queries[start : start + 1024] @ gallery.T).topk(k).indices
        found.append((identity[nearest] == identity[start : start + 1024, None]).any(dim=1))
    return torch.cat(found).float().mean()
