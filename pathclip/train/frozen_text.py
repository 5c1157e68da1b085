"""A locked text trunk gives the same output every epoch: compute it once per caption."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pathclip.model.towers import Towers

# 200,000 captions at 384 floats are 300 MB.
MAX_HELD = 200_000


class FrozenText:
    """Text features of a Hugging Face tower whose trunk is locked; the projection stays trainable.

    Args:
        model: open_clip's `CustomTextCLIP`.
        max_held: pooled outputs kept; beyond that they are computed anew.
    """

    def __init__(self, model: Any, max_held: int = MAX_HELD):
        # Not a submodule: the towers belong to the task, and held rows are no weights.
        self._text = model.text
        self._held: dict[bytes, Tensor] = {}
        self._max_held = max_held

    @staticmethod
    def serves(towers: Towers) -> bool:
        """Whether the text trunk is a Hugging Face one of which nothing at all is trained."""
        if towers.text_config is None:
            return False
        trunk: Any = towers.model.text
        return not any(parameter.requires_grad for parameter in trunk.transformer.parameters())

    def __call__(self, tokens: Tensor) -> Tensor:
        """Unnormalised text features [n, d] for tokens int64 [n, length], padding included."""
        rows = [row.tobytes() for row in tokens.cpu().numpy()]
        # One by one: in company, the last bits of a row depend on who else is there, and a run that goes on
        # meets its captions in other company than the run that was not interrupted.
        fresh: dict[bytes, Tensor] = {}
        for index, row in enumerate(rows):
            if row not in self._held and row not in fresh:
                fresh[row] = self._pool(tokens[index : index + 1])[0]
        pooled = torch.stack([fresh[row] if row in fresh else self._held[row] for row in rows])
        if len(self._held) + len(fresh) <= self._max_held:
            self._held.update(fresh)
        return self._text.proj(pooled)

    @torch.no_grad()
    def _pool(self, tokens: Tensor) -> Tensor:
        # Padding is masked, so columns that hold nothing else only cost time.
        used = int((tokens != self._text.config.pad_token_id).any(dim=0).nonzero().max()) + 1
        tokens = tokens[:, :used]
        mask = (tokens != self._text.config.pad_token_id).long()
        output = self._text.transformer(input_ids=tokens, attention_mask=mask)
        return self._text.pooler(output, mask)
