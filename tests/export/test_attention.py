"""Attention written plainly gives what torch and timm give, and leaves a short graph."""

from __future__ import annotations

from collections import Counter

import onnx
import pytest
import torch
from timm.layers import Attention
from torch import nn

from pathclip.export.graphs.attention import PlainAttention, plain_attention
from pathclip.export.graphs.onnx import export_tower
from tests.export.kinds import CONTEXT_LENGTH, TEXT_KINDS, build

WIDTH, HEADS, BATCH, TOKENS = 24, 3, 2, 5
GENERATOR = torch.Generator().manual_seed(0)


def values(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR)


def in_holder(attention: nn.Module) -> nn.Module:
    for parameter in attention.parameters():
        parameter.data.normal_(std=WIDTH**-0.5, generator=GENERATOR)
    return nn.Sequential(attention).eval()


@pytest.mark.parametrize(
    "mask",
    [
        None,
        torch.full((TOKENS, TOKENS), float("-inf")).triu(1),
        torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1),
        values(BATCH * HEADS, TOKENS, TOKENS),
    ],
    ids=["no mask", "added", "boolean", "of each head"],
)
@pytest.mark.parametrize("bias", [True, False])
def test_attention_of_torch_keeps_its_numbers(mask, bias):
    holder = in_holder(nn.MultiheadAttention(WIDTH, HEADS, bias=bias, batch_first=True))
    x = values(BATCH, TOKENS, WIDTH)
    with torch.no_grad():
        exact = holder[0](x, x, x, need_weights=False, attn_mask=mask)[0]
        assert plain_attention(holder) == 1 and type(holder[0]) is PlainAttention
        torch.testing.assert_close(holder[0](x, x, x, need_weights=False, attn_mask=mask)[0], exact)


def test_attention_over_something_of_another_width_keeps_its_numbers():
    holder = in_holder(nn.MultiheadAttention(WIDTH, HEADS, kdim=10, vdim=14, batch_first=True))
    given = values(BATCH, 4, WIDTH), values(BATCH, TOKENS, 10), values(BATCH, TOKENS, 14)
    with torch.no_grad():
        exact = holder[0](*given, need_weights=False)[0]
        plain_attention(holder)
        torch.testing.assert_close(holder[0](*given, need_weights=False)[0], exact)


@pytest.mark.parametrize(
    "mask", [None, torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()], ids=["no mask", "boolean"]
)
@pytest.mark.parametrize("bias", [True, False])
def test_attention_of_timm_keeps_its_numbers(mask, bias):
    holder = in_holder(Attention(WIDTH, HEADS, qkv_bias=bias))
    x = values(BATCH, TOKENS, WIDTH)
    with torch.no_grad():
        exact = holder[0](x, attn_mask=mask)
        assert plain_attention(holder) == 1
        torch.testing.assert_close(holder[0](x, attn_mask=mask), exact)


@pytest.mark.parametrize(
    "attention",
    [
        nn.MultiheadAttention(WIDTH, HEADS),
        nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, add_bias_kv=True),
        Attention(WIDTH, HEADS, qk_norm=True, norm_layer=nn.LayerNorm),
    ],
    ids=["tokens first", "a bias as key", "norms of query and key"],
)
def test_attention_of_another_form_is_left_as_it_is(attention):
    assert plain_attention(nn.Sequential(attention)) == 0


def test_a_block_turns_its_tokens_four_times(tmp_path):
    export_tower(build(TEXT_KINDS["clip"]), "text", tmp_path / "text.onnx", (48, 48), CONTEXT_LENGTH)
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "text.onnx").graph.node)
    layers = 2
    assert kinds["Transpose"] <= 4 * layers and kinds["Slice"] + kinds["Split"] == 0
    assert kinds["MatMul"] + kinds["Gemm"] == layers * (4 + 2 + 2) + 1
