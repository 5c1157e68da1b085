"""Text towers on rows shorter than the context length: columns that hold nothing but padding cost time.

A post of twenty words fills a third of CLIP's 77 columns. Where no token that counts looks at what stands to
its right, or where padding is masked, the columns after the longest text of a batch change nothing but the
last bits of the result.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.model import CLIP
from open_clip.transformer import text_global_pool
from torch import Tensor

# Lengths are rounded up to whole multiples, so that memory is used again and little is compiled anew.
COLUMNS = 16
# A token found by its own id; every other pooling looks at a place, or at all of them.
_POOLED_BY_TOKEN = ("argmax", "eos")


def ignores_padding(model: Any) -> bool:
    """Whether the columns after a text's last token leave its embedding as it is.

    True of CLIP's causal tower that reads the embedding at the closing token, and of Hugging Face towers,
    which mask the padding. Not of SigLIP's, where every token sees every other, nor of CoCa's, which appends
    one.
    """
    if isinstance(model, CLIP):
        return model.attn_mask is not None and model.text_pool_type in _POOLED_BY_TOKEN
    return isinstance(getattr(model, "text", None), HFTextEncoder)


def without_padding(tokens: Tensor, columns: int | None) -> Tensor:
    """The first `columns` of tokens int64 [n, length], rounded up; all of them where None."""
    return tokens if columns is None else tokens[:, : -(-columns // COLUMNS) * COLUMNS]


def encode_text(model: Any, tokens: Tensor) -> Tensor:
    """`model.encode_text(tokens)` for rows of any length up to the context length, where padding is ignored.

    Args:
        model: one of which `ignores_padding` is true.
        tokens: int64 [n, length].

    Returns:
        Unnormalised [n, d].
    """
    length = tokens.shape[1]
    # open_clip's CLIP holds the parts of its text tower itself and adds all positions, whatever the length.
    if not isinstance(model, CLIP) or length == len(model.positional_embedding):
        encoded: Tensor = model.encode_text(tokens)
        return encoded
    dtype = model.transformer.get_cast_dtype()
    x = model.token_embedding(tokens).to(dtype) + model.positional_embedding[:length].to(dtype)
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    pooled = text_global_pool(x, tokens, model.text_pool_type, eos_token_id=model.text_eos_id)
    projection = model.text_projection
    if projection is None:
        return pooled
    return projection(pooled) if isinstance(projection, torch.nn.Linear) else pooled @ projection
