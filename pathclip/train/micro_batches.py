"""A whole contrastive batch through the towers in parts, so that the activations of one part are held.

The gradient is that of the whole batch: each part is computed once without its activations and once more
on the way back. That is GradCache (Gao et al. 2021), or open_clip's --accum-freq, expressed as activation
checkpointing of whole towers; so precision, distributed training and the optimiser need no special case.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def in_micro_batches(
    encode: Callable[..., tuple[Tensor, ...]],
    inputs: tuple[Tensor, ...],
    size: int | None,
) -> tuple[Tensor, ...]:
    """`encode(*inputs)` in parts of `size` rows; exact but for BatchNorm, which sees one part at a time.

    Its running statistics are moved twice for each part unless `pathclip.model.statistics` has been asked.

    Args:
        encode: rows in, rows out.
        inputs: each [n, …].
        size: rows of a part; None or n or more for one call that keeps its activations.
    """
    n = len(inputs[0])
    if size is None or size >= n:
        return encode(*inputs)
    parts = zip(*(tensor.split(size) for tensor in inputs), strict=True)
    if not torch.is_grad_enabled():
        outputs = [encode(*part) for part in parts]
    else:
        outputs = [checkpoint(encode, *part, use_reentrant=False) for part in parts]
    return tuple(torch.cat(column) for column in zip(*outputs, strict=True))
