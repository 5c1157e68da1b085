"""The pairs of one process against those of all: what is gathered, and who computes which rows.

Gradients are exact under DistributedDataParallel, which averages them over the ranks: the mean over the
ranks of the local losses is the loss of the whole batch, and the gradient of an embedding that was gathered
is the sum of what each rank computed for it. Every rank must hold the same number of pairs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_ALONE = False


@dataclass(frozen=True, slots=True)
class Similarities:
    """Cosines of this process's rows [m] with the columns [N] of all.

    Attributes:
        image: of each image row with every text, [m, N].
        text: of each text row with every image, [m, N].
        own: int64 [m]; the column in which a row's own pair stands.
    """

    image: Tensor
    text: Tensor
    own: Tensor


def compare(
    image: Tensor, text: Tensor, together: bool, local_loss: bool = True, gather_with_grad: bool = True
) -> Similarities:
    """Compares images and texts, each [n, d], within this process or with those of all processes.

    Args:
        image: embeddings of this process.
        text: likewise.
        together: gather the other ranks' embeddings; no effect without DDP.
        local_loss: rows are those of this process, so memory is n · N; otherwise every rank holds N · N.
        gather_with_grad: gradients flow to the ranks that an embedding came from. Without, as in open_clip
            and cheaper by one communication, the gradient is not that of the whole batch: with `local_loss`
            a row trains its tower as a query only, otherwise towers get 1 / world of the gradient.
    """
    image, text = in_full_precision(image), in_full_precision(text)
    rank, world = rank_and_world() if together else (0, 1)
    n = len(image)
    with torch.autocast(image.device.type, enabled=False):
        if world == 1:
            logits = image @ text.T
            return Similarities(logits, logits.T, torch.arange(n, device=image.device))
        all_image, all_text = gather(image, gather_with_grad), gather(text, gather_with_grad)
        if local_loss:
            own = torch.arange(rank * n, (rank + 1) * n, device=image.device)
            return Similarities(image @ all_text.T, text @ all_image.T, own)
        if not gather_with_grad:
            all_image, all_text = (
                torch.cat([everyone[: rank * n], mine, everyone[(rank + 1) * n :]])
                for everyone, mine in ((all_image, image), (all_text, text))
            )
        logits = all_image @ all_text.T
        return Similarities(logits, logits.T, torch.arange(world * n, device=image.device))


def gather(values: Tensor, with_grad: bool = True) -> Tensor:
    """All ranks' rows [world · n, …] in rank order; the input alone without DDP."""
    if rank_and_world()[1] == 1:
        return values
    if with_grad and values.dtype.is_floating_point:
        from torch.distributed.nn.functional import all_gather

        return torch.cat(list(all_gather(values.contiguous())))
    parts = [torch.empty_like(values) for _ in range(rank_and_world()[1])]
    torch.distributed.all_gather(parts, values.detach().contiguous())
    return torch.cat(parts)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Within it a loss sees the pairs of this process only, whatever other processes there are."""
    global _ALONE
    before, _ALONE = _ALONE, True
    try:
        yield
    finally:
        _ALONE = before


def rank_and_world() -> tuple[int, int]:
    """The number of this process and of all; (0, 1) without DDP."""
    if _ALONE or not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def in_full_precision(embeddings: Tensor) -> Tensor:
    """At least float32: a scale of 100 turns the rounding of bfloat16 into logits that are off by 0.2."""
    return embeddings if embeddings.dtype in (torch.float32, torch.float64) else embeddings.float()
