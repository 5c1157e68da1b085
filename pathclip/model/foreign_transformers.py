"""Describes a folder of transformers: `CLIPModel` or `SiglipModel` with its processor and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pathclip.errors import ModelFolderError
from pathclip.model.foreign_checks import (
    CLIP_VOCABULARY,
    MOST_LAYERS,
    count_of,
    json_object,
    no_weights,
    pad_token,
    refuse_code,
    tokenizer_files,
    vocabulary_size,
)
from pathclip.model.foreign_preprocess import clip_preprocess, siglip_preprocess
from pathclip.model.foreign_types import ForeignFolder, TextRules
from pathclip.runtime.preprocess import Preprocess

TRANSFORMERS = "config.json"
WEIGHTS = ("model.safetensors",)
PICKLES = ("pytorch_model.bin",)
SENTENCEPIECE = "spiece.model"
_VOCABULARY = {"clip": CLIP_VOCABULARY, "siglip": 32_000}
_LENGTH = {"clip": 77, "siglip": 64}


def describe_transformers(path: Path, pickles: bool) -> ForeignFolder:
    """See `pathclip.model.foreign_folder.open_foreign_folder`."""
    file = path / TRANSFORMERS
    config = json_object(file)
    kind = config.get("model_type")
    if kind not in ("clip", "siglip"):
        raise ModelFolderError(
            f"{file}: model_type {kind!r}; of transformers' models only 'clip' and 'siglip' are read"
        )
    refuse_code(file, config)
    towers: dict[str, Any] = {}
    for key in ("text_config", "vision_config"):
        # Folders of 2022 have the values under a second name, which then counts, an empty one too.
        given = (config.get(f"{key}_dict"), config.get(key))
        found: Any = next((values for values in given if values is not None), {})
        if not isinstance(found, dict):
            raise ModelFolderError(f"{file}: {key} is not an object")
        towers[key] = {name: found[name] for name in _KEYS if name in found}
        for name in _COUNTS.keys() & towers[key].keys():
            count_of(file, f"{key}.{name}", found[name], _COUNTS[name])
    text = towers["text_config"]
    if kind == "clip":
        embed_dim = count_of(file, "projection_dim", config.get("projection_dim", 512), 65_536)
        towers["projection_dim"] = embed_dim
    else:
        width = text.get("projection_size") or text.get("hidden_size", 768)
        embed_dim = count_of(file, "text_config.projection_size", width, 65_536)
    length = count_of(
        file,
        "text_config.max_position_embeddings",
        text.get("max_position_embeddings", _LENGTH[kind]),
        4096,
    )
    vocabulary = vocabulary_size(text, _VOCABULARY[kind])
    weights = transformers_weights(path, pickles)
    if kind == "clip":
        files = tokenizer_files(path, also=("vocab.json", "merges.txt"))
        rules = TextRules(None, files, length, pad_token(path, "<|endoftext|>"), vocabulary)
    else:
        files = (_sentencepiece(path),)
        rules = TextRules(None, files, length, pad_token(path, "</s>"), vocabulary)
    preprocessor, values = _preprocessor(path)
    of_kind = clip_preprocess if kind == "clip" else siglip_preprocess
    preprocess = of_kind(values, str(path / preprocessor))
    side = towers["vision_config"].get("image_size", 224)
    sides = tuple(side) if isinstance(side, list) else (side, side)
    if sides != preprocess.size:
        raise ModelFolderError(
            f"{path / preprocessor}: pictures of {list(preprocess.size)}, but the tower takes {list(sides)}"
        )
    return ForeignFolder(
        path,
        "transformers",
        kind,
        towers,
        None,
        weights,
        rules,
        preprocess,
        _card_entry(preprocess),
        embed_dim,
        (TRANSFORMERS, preprocessor, *weights, *rules.files),
    )


def _card_entry(preprocess: Preprocess) -> dict[str, Any]:
    """The entry `preprocess` of a card, open_clip's `preprocess_cfg`."""
    return {
        "size": list(preprocess.size),
        "mode": "RGB",
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "interpolation": preprocess.interpolation,
        "resize_mode": preprocess.resize_mode,
        "fill_color": 0,
        "crop_offset": preprocess.crop_offset,
        "draft": preprocess.draft,
    }


def _sentencepiece(path: Path) -> str:
    """The file of SigLIP's tokenizer; SigLIP 2 has another."""
    name = "tokenizer_config.json"
    kind = json_object(path / name).get("tokenizer_class") if (path / name).is_file() else None
    if kind not in (None, "SiglipTokenizer"):
        raise ModelFolderError(
            f"{path / name}: of SigLIP's tokenizers only SiglipTokenizer is read here, not {kind!r}; take "
            "the same weights in open_clip's form, as 'timm/ViT-B-16-SigLIP2' on the hub"
        )
    if not (path / SENTENCEPIECE).is_file():
        raise ModelFolderError(f"{path}: no {SENTENCEPIECE}, which holds SigLIP's tokenizer")
    return SENTENCEPIECE


# What decides the numbers of these models; all else in their configs is of no interest here.
_KEYS = (
    *("hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads"),
    *("hidden_act", "layer_norm_eps", "vocab_size", "max_position_embeddings"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "num_channels", "image_size", "patch_size"),
    *("projection_size", "vision_use_head"),
)
# Of those, what is counted, and the most of it.
_COUNTS = {
    **{"hidden_size": 65_536, "intermediate_size": 1 << 20, "vocab_size": 1 << 24, "patch_size": 4096},
    **{"num_hidden_layers": MOST_LAYERS, "num_attention_heads": 65_536, "num_channels": 64},
}


def _preprocessor(path: Path) -> tuple[str, dict[str, Any]]:
    if (path / (name := "preprocessor_config.json")).is_file():
        return name, json_object(path / name)
    if (path / (name := "processor_config.json")).is_file():
        values = json_object(path / name).get("image_processor")
        if isinstance(values, dict):
            return name, values
    raise ModelFolderError(f"{path}: no preprocessor_config.json, which says how pictures are prepared")


def transformers_weights(path: Path, pickles: bool) -> tuple[str, ...]:
    """The file of weights, or those that an index names."""
    for name in (*WEIGHTS, *(PICKLES if pickles else ())):
        if (path / name).is_file():
            return (name,)
        index = path / f"{name}.index.json"
        if index.is_file():
            return _of_index(path, index, Path(name).suffix)
    raise no_weights(path, WEIGHTS[0], PICKLES)


def _of_index(path: Path, index: Path, suffix: str) -> tuple[str, ...]:
    listed = json_object(index).get("weight_map")
    names = sorted(set(map(str, listed.values()))) if isinstance(listed, dict) else []
    for name in names:
        if Path(name).name != name or not name.endswith(suffix) or not (path / name).is_file():
            raise ModelFolderError(f"{index}: names {name!r}, which is no {suffix[1:]} file of the folder")
    if not names:
        raise ModelFolderError(f"{index}: names no weights")
    return tuple(names)
