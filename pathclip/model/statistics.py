"""Running statistics of norms where activations are computed a second time on the way back."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def move_once(module: nn.Module) -> None:
    """Lets each BatchNorm in it move its statistics in the first pass only; twice is as good as once.

    Whatever computes activations again (blocks by `checkpoint_gradients`, whole towers by micro-batches) does
    so within a backward pass, by which the norm knows.
    """
    for norm in module.modules():
        if isinstance(norm, _BatchNorm) and not hasattr(norm, "usual_momentum"):
            norm.usual_momentum = norm.momentum
            norm.register_forward_pre_hook(_hold)
            norm.register_forward_hook(_release, always_call=True)


def _computed_again() -> bool:
    return torch._C._current_graph_task_id() != -1


def _hold(norm: Any, _: Any) -> None:
    if _computed_again():
        norm.momentum = 0.0


def _release(norm: Any, *_: Any) -> None:
    norm.momentum = norm.usual_momentum
    if _computed_again() and norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.sub_(1)
