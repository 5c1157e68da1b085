"""Names of the blocks of transformers' CLIP and SigLIP, and what they are called in open_clip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pathclip.errors import ModelFolderError

_QUERY_KEY_VALUE = ("q_proj", "k_proj", "v_proj")
# transformers' name → open_clip's, within one block.
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "qkv.weight": "attn.in_proj_weight",
    "qkv.bias": "attn.in_proj_bias",
}
# transformers' name → timm's.
TIMM = {
    "layer_norm1": "norm1",
    "self_attn.out_proj": "attn.proj",
    "layer_norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "qkv.weight": "attn.qkv.weight",
    "qkv.bias": "attn.qkv.bias",
}


def rename_blocks(
    tensors: Mapping[str, Tensor], tower: str, layers: int, into: str, names: Mapping[str, str]
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of all blocks of a tower by their new names; queries, keys and values joined to one.

    Args:
        tensors: by transformers' names.
        tower: 'text_model' or 'vision_model'.
        layers: number of blocks.
        into: what new names begin with, before the block's number.
        names: `OPEN_CLIP` or `TIMM`.
    """
    for number in range(layers):
        old, new = f"{tower}.encoder.layers.{number}.", f"{into}.{number}."
        for kind in ("weight", "bias"):
            joined = [tensors[f"{old}self_attn.{part}.{kind}"] for part in _QUERY_KEY_VALUE]
            yield new + names[f"qkv.{kind}"], torch.cat(joined)
            for name in ("layer_norm1", "self_attn.out_proj", "layer_norm2", "mlp.fc1", "mlp.fc2"):
                yield f"{new}{names[name]}.{kind}", tensors[f"{old}{name}.{kind}"]


def tower_shape(config: Any, name: str) -> dict[str, Any]:
    """Entries of open_clip's config that a tower of transformers has, too: layers, width, ratio of the MLP.

    Raises:
        ModelFolderError: widths that open_clip cannot express.
    """
    width, inner = int(config.hidden_size), int(config.intermediate_size)
    heads = int(config.num_attention_heads)
    # open_clip cuts width times ratio down to a whole number.
    ratio = next((r for r in (inner / width, (inner + 0.5) / width) if int(width * r) == inner), None)
    if width % heads or ratio is None:
        raise ModelFolderError(
            f"{name}: hidden_size {width} of {heads} heads with intermediate_size {inner} cannot be expressed"
        )
    return {"layers": int(config.num_hidden_layers), "width": width, "mlp_ratio": ratio}


def norm_settings(config: Any) -> dict[str, Any]:
    """`norm_kwargs` of open_clip's config, where they are not torch's own."""
    eps = float(config.layer_norm_eps)
    return {} if eps == 1e-5 else {"norm_kwargs": {"eps": eps}}
