"""Writes attention plainly before a tower is exported: fewer copies of every token, the same numbers.

torch's own attention turns to [tokens, batch, width] and back, and takes query, key and value as slices of
one product; the exporter then writes every turn as a copy, 8 per block. Here it is three products and 4
turns, and the scale of the scores lies in the query's weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def plain_attention(module: nn.Module) -> int:
    """Replaces `nn.MultiheadAttention` and timm's `Attention` in place, where this file knows their form.

    Args:
        module: in eval mode; changed, though it computes the same function.

    Returns:
        Number of replaced modules.
    """
    from timm.layers import Attention

    replaced = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.MultiheadAttention and _is_plain(child):
                setattr(parent, name, _of_torch(child))
            elif type(child) is Attention and _is_fused(child):
                setattr(parent, name, _of_timm(child))
            else:
                continue
            replaced += 1
    return replaced


class PlainAttention(nn.Module):
    """Multi-head attention [n, tokens, width] by plain products.

    Args:
        query: its projection, with the scale of the scores in it.
        key: projection.
        value: projection.
        out: projection of all heads' values.
        heads: number of them.
        in_pair: give (output, None), as `nn.MultiheadAttention` does.
    """

    def __init__(
        self, query: nn.Linear, key: nn.Linear, value: nn.Linear, out: nn.Module, heads: int, in_pair: bool
    ) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = query, key, value, out
        self.heads, self.in_pair = heads, in_pair

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Any:
        """Attention of query [n, t, d] over key and value [n, s, …], by default over itself.

        `attn_mask` is added to the scores, or, if boolean, takes out what is True in torch and what is False
        in timm; its shape is [t, s] or [n · heads, t, s]. `is_causal` and `need_weights` are only hints.
        """
        q, k, v = (
            # A length of -1 would make the exporter count it at run time; only the batch is free.
            layer(given).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, given in (
                (self.query, query),
                (self.key, query if key is None else key),
                (self.value, query if value is None else value),
            )
        )
        scores = q @ k.transpose(-2, -1)
        if attn_mask is not None:
            scores = scores + self._added(attn_mask)
        values = (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
        return (self.out(values), None) if self.in_pair else self.out(values)

    def _added(self, mask: Tensor) -> Tensor:
        if mask.dtype == torch.bool:
            hidden = mask if self.in_pair else ~mask
            mask = torch.zeros(mask.shape).masked_fill(hidden, float("-inf"))
        return mask.unflatten(0, (-1, self.heads)) if mask.dim() == 3 else mask


def _is_plain(attention: nn.MultiheadAttention) -> bool:
    return attention.batch_first and attention.bias_k is None and not attention.add_zero_attn


def _of_torch(attention: nn.MultiheadAttention) -> PlainAttention:
    if attention.in_proj_weight is not None:
        weights = attention.in_proj_weight.chunk(3)
    else:  # key and value of another width than the query
        weights = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
    bias = attention.in_proj_bias
    biases = (None, None, None) if bias is None else bias.chunk(3)
    query, key, value = (_linear(weight, b) for weight, b in zip(weights, biases, strict=True))
    _scale(query, attention.head_dim**-0.5)
    return PlainAttention(query, key, value, attention.out_proj, attention.num_heads, in_pair=True)


def _is_fused(attention: Any) -> bool:
    norms = (attention.q_norm, attention.k_norm, attention.norm)
    return all(type(norm) is nn.Identity for norm in norms) and getattr(attention, "gate", None) is None


def _of_timm(attention: Any) -> PlainAttention:
    bias = attention.qkv.bias
    biases = (None, None, None) if bias is None else bias.chunk(3)
    query, key, value = (
        _linear(weight, b) for weight, b in zip(attention.qkv.weight.chunk(3), biases, strict=True)
    )
    _scale(query, attention.scale)
    return PlainAttention(query, key, value, attention.proj, attention.num_heads, in_pair=False)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return layer


def _scale(layer: nn.Linear, factor: float) -> None:
    layer.weight *= factor
    if layer.bias is not None:
        layer.bias *= factor
