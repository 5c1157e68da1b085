"""Which layers are trained, and the mode of those that are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pathclip.errors import ConfigError
from pathclip.model.layers import tower_layers


def unlocked_layers(lock: Sequence[str] | Mapping[str, int] | None) -> dict[str, int]:
    """Tower → number of layers at its top that stay trainable.

    Args:
        lock: that mapping, or a list as `['image:2', 'text']`, where a bare name means 0: a list replaces
            another in a config, where a mapping cannot.

    Raises:
        ConfigError: a number that is none, or below 0.
    """
    numbers: dict[str, Any] = dict(lock) if isinstance(lock, Mapping) else {}
    if not isinstance(lock, Mapping):
        for entry in lock or ():
            tower, colon, number = entry.partition(":")
            numbers[tower] = int(number) if number.isdecimal() else number if colon else 0
    for tower, number in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise ConfigError(
                f"model.lock.{tower}: expected the number of layers at the top that stay trainable, "
                f"0 or more, got {number!r}"
            )
    return numbers


def lock_layers(model: Any, lock: Mapping[str, int], norms: bool = True) -> None:
    """Freezes all but the last layers of towers; layers as `pathclip.model.layers.tower_layers` counts them.

    Locked-image tuning (Zhai et al. 2022) is `{"image": 0}`. A projection that was added to a timm or
    Hugging Face trunk is always trained and not counted; an open_clip tower's own counts as a layer.

    Args:
        model: open_clip's `CLIP`, `CustomTextCLIP` or `CoCa`.
        lock: tower → number of layers at the top that stay trainable.
        norms: freeze the norms of the locked layers too: weights, and running statistics by way of
            `set_frozen_to_eval`. Otherwise both go on.

    Raises:
        ConfigError: an unknown tower, or as many layers as it has, which would lock nothing.
    """
    if not lock:
        return
    towers = tower_layers(model)
    parameters = dict(model.named_parameters())
    kept = set() if norms else _norm_parameters(model)
    for tower, unlocked in lock.items():
        if tower not in towers:
            known = " nor ".join(f"'{name}'" for name in towers)
            raise ConfigError(f"model.lock: '{tower}' is neither {known}")
        layers = towers[tower].lockable
        if unlocked >= len(layers):
            raise ConfigError(
                f"model.lock.{tower}={unlocked}: the tower has {len(layers)} layers, so at most "
                f"{len(layers) - 1} of them can stay trainable; or leave it out of model.lock"
            )
        for name in (name for layer in layers[: len(layers) - unlocked] for name in layer):
            parameters[name].requires_grad_(name in kept)


def set_frozen_to_eval(model: nn.Module) -> None:
    """Puts every module all of whose parameters are frozen into eval mode; call it after each `train()`.

    So locked layers have neither dropout nor drifting running statistics. A module without parameters
    follows the one that holds it.
    """
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def _norm_parameters(model: nn.Module) -> set[str]:
    norms = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, _BatchNorm)
    return {
        f"{name}.{own}"
        for name, module in model.named_modules()
        # Some libraries write norms of their own; all call them so.
        if isinstance(module, norms) or type(module).__name__.endswith("Norm")
        for own, _ in module.named_parameters(recurse=False)
    }
