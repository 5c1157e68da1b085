"""What is known of a dual encoder that another library saved, before its weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pathclip import atomic
from pathclip.runtime.preprocess import Preprocess


@dataclass(frozen=True, slots=True)
class TextRules:
    """How texts become tokens.

    Attributes:
        cleaning: what happens to a text first, by open_clip's name for it; nothing if None.
        files: those of the folder that hold the tokenizer; none for CLIP's own, which open_clip brings.
        context_length: tokens per text.
        pad_token: fills short texts; None for the id 0.
        vocabulary: tokens that the model has embeddings for; None if its config does not say.
    """

    cleaning: str | None
    files: tuple[str, ...]
    context_length: int
    pad_token: str | None
    vocabulary: int | None = None


@dataclass(frozen=True, slots=True)
class ForeignFolder:
    """A dual encoder that another library saved.

    Attributes:
        path: the folder.
        kind: the library.
        architecture: 'clip' for `CLIPModel`, 'siglip' for `SiglipModel`; of open_clip the config tells more.
        config: of the towers, checked: open_clip's `model_cfg`, or that of transformers' model.
        text_config: of a text tower of transformers in open_clip's folder; None for other text towers.
        preprocess_cfg: open_clip's, as it stands in its folder; of transformers the same as `preprocess`.
        weights: safetensors within the folder, or pickles where these were allowed.
        text: how texts become tokens.
        preprocess: how pictures become inputs.
        embed_dim: length of an embedding.
        files: everything that is read, within the folder.
    """

    path: Path
    kind: Literal["open_clip", "transformers"]
    architecture: Literal["clip", "siglip"]
    config: Mapping[str, Any]
    text_config: Mapping[str, Any] | None
    weights: tuple[str, ...]
    text: TextRules
    preprocess: Preprocess
    preprocess_cfg: Mapping[str, Any]
    embed_dim: int
    files: tuple[str, ...]

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file that is read."""
        return {name: atomic.sha256_file(self.path / name) for name in self.files}
