"""Folds batch normalisation into the convolution before it, in torch.

The exporter would do so later, after it has taken every normalisation apart: half of its time.
"""

from __future__ import annotations

from typing import Any


def fold_batch_norms(module: Any, example: Any) -> int:
    """Folds every batch normalisation that reads nothing but a convolution's output, in place.

    Args:
        module: in eval mode; changed, though it computes the same function.
        example: an input; one pass shows which normalisation follows which convolution.

    Returns:
        Number of folded normalisations.
    """
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_weights

    folded = 0
    for convolution, name, norm in _pairs(module, example):
        weight, bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        convolution.weight, convolution.bias = weight, bias
        rest = (getattr(norm, part, None) for part in ("drop", "act"))
        parent, _, leaf = name.rpartition(".")
        setattr(
            module.get_submodule(parent),
            leaf,
            torch.nn.Sequential(*(part for part in rest if part is not None)),
        )
        folded += 1
    return folded


def _pairs(module: Any, example: Any) -> list[tuple[Any, str, Any]]:
    """(convolution, name of the normalisation, normalisation) that follow each other alone and run once."""
    import torch
    from timm.layers import BatchNormAct2d
    from torch.overrides import TorchFunctionMode

    outputs: dict[int, Any] = {}
    kept: list[Any] = []  # keeps every output alive, so that no id is given twice
    runs: dict[int, int] = {}
    found: list[tuple[int, str, Any]] = []
    reads: dict[int, int] = {}

    class CountReads(TorchFunctionMode):
        """How often something is computed of a convolution's output; to ask for its shape is no reading."""

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                for given in (*args, *(kwargs or {}).values()):
                    if id(given) in outputs:
                        reads[id(given)] = reads.get(id(given), 0) + 1
            return result

    def after_convolution(convolution: Any, _: Any, output: Any) -> None:
        kept.append(output)
        outputs[id(output)] = convolution
        runs[id(convolution)] = runs.get(id(convolution), 0) + 1

    def before_norm(name: str) -> Any:
        def hook(norm: Any, inputs: Any) -> None:
            runs[id(norm)] = runs.get(id(norm), 0) + 1
            if id(inputs[0]) in outputs:
                found.append((id(inputs[0]), name, norm))

        return hook

    hooks = []
    for name, part in module.named_modules():
        if type(part) is torch.nn.Conv2d or type(part).__name__ == "Conv2dSame":
            hooks.append(part.register_forward_hook(after_convolution))
        elif type(part) in (torch.nn.BatchNorm2d, BatchNormAct2d) and part.track_running_stats:
            hooks.append(part.register_forward_pre_hook(before_norm(name)))
    try:
        with torch.no_grad(), CountReads():
            module(example[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return [
        (outputs[output], name, norm)
        for output, name, norm in found
        if runs[id(outputs[output])] == runs[id(norm)] == reads.get(output) == 1
    ]
