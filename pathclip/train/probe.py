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


def zero_shot(image_embeddings: Tensor, class_embeddings: Tensor, labels: Tensor) -> Tensor:
    """Balanced accuracy of the nearest class: the mean, over the classes that occur, of the share found.

    Args:
        image_embeddings: L2-normalised [n, d], n at least 1.
        class_embeddings: L2-normalised [classes, d].
        labels: int64 [n]; row of `class_embeddings` that each picture belongs to.

    Returns:
        A scalar in [0, 1]; a guess gives 1 / classes.

    Raises:
        ValueError: no pictures, or a label that is no row of `class_embeddings`.
    """
    if not len(labels) or int(labels.min()) < 0 or int(labels.max()) >= len(class_embeddings):
        raise ValueError(f"{len(labels)} labels do not fit {len(class_embeddings)} classes")
    nearest = (image_embeddings @ class_embeddings.T).argmax(dim=1)
    right = torch.zeros(len(class_embeddings), device=labels.device)
    right.index_add_(0, labels, (nearest == labels).float())
    there = torch.bincount(labels, minlength=len(class_embeddings))
    return (right[there > 0] / there[there > 0]).mean()
