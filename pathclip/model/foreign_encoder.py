"""The Encoder protocol on folders that open_clip or transformers saved, by the library that saved them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pathclip.errors import ConfigError, ModelFolderError
from pathclip.model.convert.sentencepiece_json import siglip_tokenizer_json
from pathclip.model.convert.weights import load_into_open_clip, read_weights
from pathclip.model.foreign_checks import brief
from pathclip.model.foreign_folder import ForeignFolder, TextRules
from pathclip.model.foreign_transformers import SENTENCEPIECE
from pathclip.model.modules import custom_module, module_for, open_clip_module
from pathclip.model.tokenizer_files import clip_tokenizer_json
from pathclip.model.towers import refuse_foreign_code
from pathclip.model_folder import MAX_JSON_BYTES, ModelFolder, read_json
from pathclip.runtime.encoder import normalise
from pathclip.runtime.tokenizer import Tokenizer


class ForeignEncoder:
    """Encodes with torch in fp32 on the CPU; see `pathclip.runtime.encoder.Encoder`.

    The numbers are those of the library: of open_clip with its evaluation transform and tokenizer, of
    transformers with `CLIPProcessor` where that resizes with Pillow.
    """

    precision = "fp32"
    runtime = "torch"

    def __init__(self, described: ForeignFolder, threads: int | None = None):
        """Loads the folder.

        Args:
            described: by `pathclip.model.foreign_folder.open_foreign_folder`.
            threads: for torch as a whole; its own choice if None.

        Raises:
            ModelFolderError: weights or tokenizer that do not fit the config; names the file.
        """
        if threads:
            torch.set_num_threads(threads)
        self.name = described.path.resolve().name
        self.preprocess = described.preprocess
        self.dim = described.embed_dim
        text = described.text
        content, pad_id = tokenizer_content(described.path, text)
        self._tokenizer = Tokenizer(content.encode(), text.context_length, pad_id, text.cleaning)
        self._model: Any = load_foreign_model(described)
        self._is_open_clip = described.kind == "open_clip"
        self.logit_scale = self._model.logit_scale.exp().mean().item()
        self.folder = ModelFolder(
            described.path,
            {
                "name": self.name,
                "embed_dim": self.dim,
                "context_length": text.context_length,
                "pad_id": pad_id,
                "logit_scale": self.logit_scale,
                "preprocess": dict(described.preprocess_cfg),
                **({"text_cleaning": text.cleaning} if text.cleaning else {}),
                "prompts": {},
                "training": {},
                "files": described.hashes(),
            },
        )

    @torch.inference_mode()
    def encode_images(self, images: Any, batch_size: int = 32) -> NDArray[np.float32]:
        """Embeds PIL images or a uint8 array [n, h, w, 3]; returns L2-normalised float32 [n, d]."""
        parts = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(images), batch_size):
            pixels = torch.from_numpy(self.preprocess.batch(images[start : start + batch_size]))
            if self._is_open_clip:
                found = self._model.encode_image(pixels)
            else:
                found = self._model.get_image_features(pixel_values=pixels).pooler_output
            parts.append(normalise(found.numpy()))
        return np.concatenate(parts)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], batch_size: int = 64) -> NDArray[np.float32]:
        """Embeds texts; returns L2-normalised float32 [n, d]."""
        parts = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(texts), batch_size):
            tokens = torch.from_numpy(self._tokenizer(texts[start : start + batch_size]))
            if self._is_open_clip:
                found = self._model.encode_text(tokens)
            else:
                found = self._model.get_text_features(input_ids=tokens).pooler_output
            parts.append(normalise(found.numpy()))
        return np.concatenate(parts)


def load_foreign_model(described: ForeignFolder) -> nn.Module:
    """The library's module with the folder's weights in fp32, in eval mode on the CPU.

    Raises:
        ModelFolderError: a config that the library does not take, or weights that do not fit it.
    """
    if described.text_config is not None:
        refuse_foreign_code(described.text_config, described.path / "text/config.json")
    try:
        model = _open_clip(described) if described.kind == "open_clip" else _of_transformers(described)
    except ModelFolderError:
        raise
    except Exception as error:  # as many kinds as a config can be wrong in ways, ConfigError among them
        reason = f"{described.kind} cannot build it: {brief(error)}"
        raise ModelFolderError(f"{described.path}: {reason}") from error
    return model.float().eval()


def tokenizer_content(path: Path, text: TextRules) -> tuple[str, int]:
    """Content of a `tokenizer.json`, and the id that fills short texts.

    Raises:
        ModelFolderError: no tokenizer, or it does not know the token that fills texts, or has tokens that the
            model has not.
    """
    if not text.files:
        content = clip_tokenizer_json()
        _check_vocabulary(path, "CLIP's own tokenizer", content, text)
        return content, 0
    file = path / text.files[0]
    if file.stat().st_size > MAX_JSON_BYTES:
        raise ModelFolderError(f"{file}: larger than {MAX_JSON_BYTES >> 20} MiB, refused")
    try:
        content = _tokenizer_json(path, text)
        from tokenizers import Tokenizer as HuggingFaceTokenizer

        pad_id = HuggingFaceTokenizer.from_str(content).token_to_id(text.pad_token or "")
    except ModelFolderError:
        raise
    except Exception as error:  # the Rust side raises plain Exception
        raise ModelFolderError(f"{file}: not a tokenizer ({brief(error)})") from error
    _check_vocabulary(path, text.files[0], content, text)
    if pad_id is None:
        raise ModelFolderError(f"{file}: has no token {text.pad_token!r} to fill short texts with")
    return content, int(pad_id)


def _check_vocabulary(path: Path, name: str, content: str, text: TextRules) -> None:
    """Refuses ids for which the text tower has no embedding: torch's own words for it name no folder."""
    from tokenizers import Tokenizer as HuggingFaceTokenizer

    tokens = HuggingFaceTokenizer.from_str(content).get_vocab(with_added_tokens=True)
    needed = max(tokens.values(), default=-1) + 1
    if text.vocabulary is not None and needed > text.vocabulary:
        raise ModelFolderError(
            f"{path}: {name} has {needed} tokens, but the model has embeddings for {text.vocabulary}; "
            "the two are not of one model"
        )


def _tokenizer_json(path: Path, text: TextRules) -> str:
    if len(text.files) > 1:
        return _of_vocabulary(path, text)
    file = path / text.files[0]
    return siglip_tokenizer_json(file) if file.name == SENTENCEPIECE else file.read_text(encoding="utf-8")


def _of_vocabulary(path: Path, text: TextRules) -> str:
    """The tokenizer that transformers builds of `vocab.json` and `merges.txt`."""
    from transformers import CLIPTokenizer

    vocabulary, merges = (path / name for name in text.files)
    lines = merges.read_text(encoding="utf-8").split("\n")
    pairs = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    return str(CLIPTokenizer(vocab=read_json(vocabulary), merges=pairs).backend_tokenizer.to_str())


def _open_clip(described: ForeignFolder) -> nn.Module:
    tensors, config, text_config = described_weights(described), described.config, described.text_config

    def build() -> nn.Module:
        return open_clip_module(config) if text_config is None else custom_module(config, text_config)

    model = module_for(build, tensors)
    load_into_open_clip(model, tensors)
    return model


def _of_transformers(described: ForeignFolder) -> nn.Module:
    from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

    clip = described.architecture == "clip"
    config: Any = (CLIPConfig if clip else SiglipConfig)(**described.config)
    tensors = described_weights(described)
    model: Any = module_for(lambda: (CLIPModel if clip else SiglipModel)(config), tensors)
    missing = model.load_state_dict(tensors, strict=False)
    unknown = [name for name in missing.unexpected_keys if not name.endswith("position_ids")]
    if missing.missing_keys or unknown:
        lacking = f"lack {missing.missing_keys[0]}" if missing.missing_keys else f"have {unknown[0]} besides"
        raise ConfigError(f"the weights {lacking}")
    return model


def described_weights(described: ForeignFolder) -> dict[str, Tensor]:
    """The tensors of a folder by the library's names, in the precision that they are stored in."""
    return read_weights([described.path / name for name in described.weights])
