"""A whole contrastive batch through the towers in parts, so that the activations of one part are held.

The gradient is that of the whole batch: each part is computed once without its activations and once more
on the way back. That is GradCache (Gao et al. 2021), or open_clip's --accum-freq, expressed as activation
checkpointing of whole towers; so precision, distributed training and the optimiser need no special case.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def in_micro_batches(
    encode: Callable[..., tuple[Tensor, ...]],
    inputs: tuple[Tensor, ...],
    size: int | None,
    model: nn.Module,
) -> tuple[Tensor, ...]:
    """`encode(*inputs)` in parts of `size` rows; exact but for BatchNorm, which sees one part at a time.

    Args:
        encode: rows in, rows out.
        inputs: each [n, …].
        size: rows of a part; None or n or more for one call that keeps its activations.
        model: whose running statistics are moved once, not twice.
    """
    n = len(inputs[0])
    if size is None or size >= n:
        return encode(*inputs)
    parts = zip(*(tensor.split(size) for tensor in inputs), strict=True)
    if not torch.is_grad_enabled():
        outputs = [encode(*part) for part in parts]
    else:
        outputs = [
            checkpoint(
                encode,
                *part,
                use_reentrant=False,
                context_fn=lambda: (contextlib.nullcontext(), _statistics_as_they_are(model)),
            )
            for part in parts
        ]
    return tuple(torch.cat(column) for column in zip(*outputs, strict=True))


@contextlib.contextmanager
def _statistics_as_they_are(model: nn.Module) -> Iterator[None]:
    """The second pass over a part must not move BatchNorm's running statistics again."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    kept = [norm.momentum for norm in norms]
    counts = [norm.num_batches_tracked for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, kept, counts, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
