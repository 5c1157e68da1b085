"""Which parameters decay, and how fast each layer learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pathclip.errors import ConfigError
from pathclip.model.layers import tower_layers
from pathclip.model.towers import Towers


def parameter_groups(
    towers: Towers, weight_decay: float, layer_decay: float | Mapping[str, float] = 1.0
) -> list[dict[str, Any]]:
    """Groups of an optimiser over what is trained; each parameter stands in exactly one.

    Weights decay where they have two dimensions or more: not norms, biases, class embedding, logit scale
    and bias. Token and position embeddings do, as in open_clip_train.

    With layer-wise decay (ELECTRA, Clark et al. 2020; BEiT, Bao et al. 2022) a layer learns more slowly
    the further it lies below the top: by `layer_decay ** depth`, where the projection has depth 0, the last
    block 1, and the embeddings the greatest. Logit scale and bias learn at the full rate.

    Args:
        towers: what is trained; layers as `pathclip.model.layers.tower_layers` counts them.
        weight_decay: of those that decay; 0 for the others.
        layer_decay: above 0, up to 1, for all towers or by tower ('image', 'text', and CoCa's 'decoder').

    Returns:
        Dicts with `params`, `weight_decay`, `lr_scale` (multiply the learning rate by it) and `name`; those
        at the full rate first, then each tower from its input up.

    Raises:
        ConfigError: a factor out of range, an unknown tower, or nothing left to train.
    """
    by_tower = _by_tower(towers, layer_decay)
    place: dict[str, tuple[str, float]] = {}
    for tower, decay in by_tower.items():
        if decay == 1:
            continue
        layers = tower_layers(towers.model)[tower].names
        for number, names in enumerate(layers):
            scale = decay ** (len(layers) - 1 - number)
            place |= dict.fromkeys(names, (f"{tower} layer {number + 1} of {len(layers)}", scale))
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in towers.model.named_parameters():
        if not parameter.requires_grad:
            continue
        label, scale = place.get(name, ("full rate", 1.0))
        decays = parameter.ndim >= 2
        group = groups.setdefault(
            (label, decays),
            {
                "params": [],
                "weight_decay": weight_decay if decays else 0.0,
                "lr_scale": scale,
                "name": label if decays else f"{label}, no weight decay",
            },
        )
        group["params"].append(parameter)
    if not groups:
        raise ConfigError("model.lock: nothing is left to train; unlock a tower")
    order = {label: position for position, (label, _) in enumerate([("full rate", 1.0), *place.values()])}
    return [groups[key] for key in sorted(groups, key=lambda key: (order[key[0]], not key[1]))]


def _by_tower(towers: Towers, layer_decay: float | Mapping[str, float]) -> dict[str, float]:
    known = ["image", "text", *(["decoder"] if hasattr(towers.model, "text_decoder") else [])]
    given = dict(layer_decay) if isinstance(layer_decay, Mapping) else dict.fromkeys(known, layer_decay)
    for tower, decay in given.items():
        key = f"layer_decay.{tower}" if isinstance(layer_decay, Mapping) else "layer_decay"
        if tower not in known:
            raise ConfigError(f"{key}: the model has no such tower; it has {', '.join(known)}")
        if not isinstance(decay, int | float) or isinstance(decay, bool) or not 0 < decay <= 1:
            raise ConfigError(f"{key}: a factor above 0, up to 1, is needed, not {decay!r}")
    return given
