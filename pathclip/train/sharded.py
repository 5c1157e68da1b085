"""Training with the weights split over the processes (FSDP2), for models that one GPU does not hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from pathclip.train.task import ContrastiveTask


class SplitWeights(ModelParallelStrategy):
    """Weights, gradients and optimiser states split over all processes; each has its own share of a batch."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Lightning's own default would split layers over the processes of a machine, not batches."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


class ShardedTask(ContrastiveTask):
    """The same training; `SplitWeights` calls `configure_model`."""

    def configure_model(self) -> None:
        """Splits every layer of the towers, and what lies around them, over the processes."""
        if self.device_mesh is None:
            return
        # FSDP2 splits rows of contiguous weights; kernels that lie channels last it refuses.
        self._layout = torch.contiguous_format
        self.model.to(memory_format=self._layout)
        mesh = self.device_mesh["data_parallel"]
        for layer in layers(self.model):
            fully_shard(layer, mesh=mesh)
        fully_shard(self.model, mesh=mesh, ignored_params=set(self._scalars()))
        # FSDP gathers weights when `forward` is called; towers are called by these names.
        for method in ("encode_image", "encode_text"):
            register_fsdp_forward_method(self.model, method)
        # It runs a locked text trunk from within, where its weights would not be gathered.
        self._frozen_text = None
        # Likewise the parts of a text tower that gets less than its context length.
        self._cuts_padding = False

    def on_after_backward(self) -> None:
        """Means over the processes of what is not split: the logit scale and bias, what the loss learns."""
        for scalar in [*self._scalars(), *self.loss.parameters()]:
            if scalar.grad is not None and self.trainer.world_size > 1:
                torch.distributed.all_reduce(scalar.grad)
                scalar.grad /= self.trainer.world_size

    def _scalars(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.ndim == 0]


def layers(model: Any) -> list[nn.Module]:
    """Transformer blocks and stages of a model: the members of its lists of like modules, outermost only."""
    found: list[nn.Module] = []
    for child in model.children():
        like = isinstance(child, nn.ModuleList | nn.Sequential) and len({type(m) for m in child}) == 1
        if like and len(child) > 1 and any(True for _ in child.parameters()):
            found += list(child)
        else:
            found += layers(child)
    return found


def whole_weights(trainer: Any) -> dict[str, Tensor]:
    """The weights of the towers on the first process, gathered where they are split; all must call it."""
    return of_model(trainer.strategy.lightning_module_state_dict())


def of_model(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a task's weights that are its model's, by the model's names."""
    prefix = "model."
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
