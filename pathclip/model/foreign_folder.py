"""Describes dual encoders that other libraries saved: folders of open_clip, and of transformers' CLIPModel.

Read are JSON, text and safetensors; a folder that has its weights as a pickle only is refused, and so is a
config that asks for code or for files from elsewhere. No hub is asked, and torch is not needed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pathclip import atomic
from pathclip.errors import ModelFolderError
from pathclip.model.foreign_preprocess import clip_preprocess
from pathclip.model_folder import CARD, hint_of_model, read_json
from pathclip.runtime.preprocess import Preprocess

OPEN_CLIP = "open_clip_config.json"
TRANSFORMERS = "config.json"
TEXT_CONFIG = "text/config.json"
_OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
)
_TRANSFORMERS_WEIGHTS = "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_CLIP_VOCABULARY = 49_408
_MOST = 1 << 24  # above any width, vocabulary or number of layers of a real model

# How a text is put before it is split into tokens: by open_clip's functions of these names, or as it is.
Cleaning = Literal["lower", "whitespace", "none"]


@dataclass(frozen=True, slots=True)
class TextRules:
    """How texts become tokens.

    Attributes:
        cleaning: what happens to a text first.
        files: those of the folder that hold the tokenizer; none for CLIP's own, which open_clip brings.
        context_length: tokens per text.
        pad_token: fills short texts; None for the id 0.
        vocabulary: tokens that the model has embeddings for; None if its config does not say.
    """

    cleaning: Cleaning
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
        config: of the towers, checked: open_clip's `model_cfg`, or that of `CLIPModel`.
        text_config: of a text tower of transformers in open_clip's folder; None for other text towers.
        weights: safetensors within the folder.
        text: how texts become tokens.
        preprocess: how pictures become inputs.
        embed_dim: length of an embedding.
        files: everything that is read, within the folder.
    """

    path: Path
    kind: Literal["open_clip", "transformers"]
    config: Mapping[str, Any]
    text_config: Mapping[str, Any] | None
    weights: tuple[str, ...]
    text: TextRules
    preprocess: Preprocess
    embed_dim: int
    files: tuple[str, ...]

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file that is read."""
        return {name: atomic.sha256_file(self.path / name) for name in self.files}


def open_foreign_folder(path: str | Path) -> ForeignFolder:
    """Describes a folder of open_clip or of transformers' CLIPModel.

    Raises:
        ModelFolderError: no such folder, neither of the two, weights as a pickle only, a missing file, or a
            config that is malformed, asks for code, or cannot be expressed; in one line, with the file.
    """
    path = Path(path)
    if not path.is_dir():
        raise ModelFolderError(f"{path}: no such folder; a model is a folder with a {CARD} in it")
    if (path / OPEN_CLIP).is_file():
        return _of_open_clip(path)
    if (path / TRANSFORMERS).is_file():
        return _of_transformers(path)
    raise ModelFolderError(
        f"{path}: no model folder: neither {CARD} (pathclip) nor {OPEN_CLIP} (open_clip) nor {TRANSFORMERS} "
        f"(transformers' CLIPModel) is in it.{hint_of_model(path)}"
    )


def _of_open_clip(path: Path) -> ForeignFolder:
    file = path / OPEN_CLIP
    described = _object(file)
    config = described.get("model_cfg")
    if not isinstance(config, dict) or not all(isinstance(config.get(k), dict) for k in _TOWERS):
        raise ModelFolderError(f"{file}: no model_cfg with {' and '.join(_TOWERS)} in it")
    _refuse_code(file, config)
    vision, text = (config[key] for key in _TOWERS)
    if ":" in str(vision.get("timm_model_name", "")):
        raise ModelFolderError(f"{file}: timm_model_name names a model outside the folder; refused")
    # These go on to AutoTokenizer as they are.
    for key in ("tokenizer_kwargs", "tokenizer_mode"):
        if text.get(key):
            raise ModelFolderError(f"{file}: text_cfg.{key} is not known here; refused")
    weights = next((name for name in _OPEN_CLIP_WEIGHTS if (path / name).is_file()), None)
    if weights is None:
        raise _no_weights(path, _OPEN_CLIP_WEIGHTS[0])
    text_config, files = None, [OPEN_CLIP, weights]
    if text.get("hf_model_name"):
        text_config = _open_clip_text_config(path, str(text["hf_model_name"]))
        files.append(TEXT_CONFIG)
    context_length = _count(file, "text_cfg.context_length", text.get("context_length", 77), 4096)
    vocabulary = _vocabulary(text if text_config is None else text_config)
    rules = TextRules("lower", (), context_length, None, vocabulary)
    if text.get("hf_tokenizer_name"):
        rules = TextRules("whitespace", _tokenizer_files(path), context_length, _pad_token(path), vocabulary)
    try:
        # open_clip too takes the size from the tower and not from the preprocess.
        preprocess = Preprocess.from_card(
            {**(described.get("preprocess_cfg") or {}), "size": vision.get("image_size", 224)}
        )
    except (ModelFolderError, TypeError) as error:
        raise ModelFolderError(f"{file}: {error}") from None
    return ForeignFolder(
        path,
        "open_clip",
        config,
        text_config,
        (weights,),
        rules,
        preprocess,
        _count(file, "model_cfg.embed_dim", config.get("embed_dim"), 65_536),
        (*files, *rules.files),
    )


_TOWERS = ("vision_cfg", "text_cfg")


def _open_clip_text_config(path: Path, name: str) -> dict[str, Any]:
    if not (path / TEXT_CONFIG).is_file():
        raise ModelFolderError(
            f"{path}: its text tower is '{name}' of transformers, whose config is not in the folder; where "
            'there is a network: python -c "from transformers import AutoConfig; '
            f"AutoConfig.from_pretrained('{name}').save_pretrained('{path / 'text'}')\""
        )
    config = _object(path / TEXT_CONFIG)
    _refuse_code(path / TEXT_CONFIG, config)
    return config


def _of_transformers(path: Path) -> ForeignFolder:
    file = path / TRANSFORMERS
    config = _object(file)
    kind = config.get("model_type")
    if kind != "clip":
        raise ModelFolderError(f"{file}: model_type {kind!r}; of transformers' models only 'clip' is read")
    _refuse_code(file, config)
    towers: dict[str, dict[str, Any]] = {}
    for key in ("text_config", "vision_config"):
        # Folders of 2022 have the values under a second name, which then counts, an empty one too.
        given = (config.get(f"{key}_dict"), config.get(key))
        found: Any = next((values for values in given if values is not None), {})
        if not isinstance(found, dict):
            raise ModelFolderError(f"{file}: {key} is not an object")
        towers[key] = {name: found[name] for name in _KEYS if name in found}
    embed_dim = _count(file, "projection_dim", config.get("projection_dim", 512), 65_536)
    length = towers["text_config"].get("max_position_embeddings", 77)
    preprocessor, values = _preprocessor(path)
    weights = _sharded(path)
    rules = TextRules(
        "none",
        _tokenizer_files(path, also=("vocab.json", "merges.txt")),
        _count(file, "text_config.max_position_embeddings", length, 4096),
        _pad_token(path, "<|endoftext|>"),
        _vocabulary(towers["text_config"]),
    )
    preprocess = clip_preprocess(values, str(path / preprocessor))
    side = towers["vision_config"].get("image_size", 224)
    sides = tuple(side) if isinstance(side, list) else (side, side)
    if sides != preprocess.size:
        raise ModelFolderError(
            f"{path / preprocessor}: pictures of {list(preprocess.size)}, but the tower takes {list(sides)}"
        )
    return ForeignFolder(
        path,
        "transformers",
        {**towers, "projection_dim": embed_dim},
        None,
        weights,
        rules,
        preprocess,
        embed_dim,
        (TRANSFORMERS, preprocessor, *weights, *rules.files),
    )


# What decides the numbers of `CLIPModel`; all else in its config is of no interest here.
_KEYS = (
    *("hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads"),
    *("hidden_act", "layer_norm_eps", "vocab_size", "max_position_embeddings"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "num_channels", "image_size", "patch_size"),
)


def _preprocessor(path: Path) -> tuple[str, dict[str, Any]]:
    if (path / (name := "preprocessor_config.json")).is_file():
        return name, _object(path / name)
    if (path / (name := "processor_config.json")).is_file():
        values = _object(path / name).get("image_processor")
        if isinstance(values, dict):
            return name, values
    raise ModelFolderError(f"{path}: no preprocessor_config.json, which says how pictures are prepared")


def _sharded(path: Path) -> tuple[str, ...]:
    """The file of weights, or those that an index names."""
    if (path / _TRANSFORMERS_WEIGHTS).is_file():
        return (_TRANSFORMERS_WEIGHTS,)
    index = path / f"{_TRANSFORMERS_WEIGHTS}.index.json"
    if not index.is_file():
        raise _no_weights(path, _TRANSFORMERS_WEIGHTS)
    listed = _object(index).get("weight_map")
    names = sorted(set(map(str, listed.values()))) if isinstance(listed, dict) else []
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors") or not (path / name).is_file():
            raise ModelFolderError(f"{index}: names '{name}', which is no safetensors file of the folder")
    if not names:
        raise ModelFolderError(f"{index}: names no weights")
    return tuple(names)


def _no_weights(path: Path, wanted: str) -> ModelFolderError:
    pickles = sorted(file.name for pattern in _PICKLES for file in path.glob(pattern))
    if not pickles:
        return ModelFolderError(f"{path}: no weights in it; expected {wanted}")
    return ModelFolderError(
        f"{path}: its weights are a pickle ({pickles[0]}), which can hold a program and is not read. To "
        'write them as safetensors: python -c "import torch; from safetensors.torch import save_file; '
        f"w = torch.load('{path / pickles[0]}', map_location='cpu', weights_only=True); save_file("
        "{k: v.clone().contiguous() for k, v in w.get('state_dict', w).items()}, "
        f"'{path / wanted}', {{'format': 'pt'}})\""
    )


def _tokenizer_files(path: Path, also: tuple[str, ...] = ()) -> tuple[str, ...]:
    if (path / "tokenizer.json").is_file():
        return ("tokenizer.json",)
    if also and all((path / name).is_file() for name in also):
        return also
    raise ModelFolderError(
        f"{path}: no tokenizer.json{' nor ' + ' and '.join(also) if also else ''}. To make one: "
        'python -c "from transformers import AutoTokenizer; '
        f"AutoTokenizer.from_pretrained('{path}').save_pretrained('{path}')\""
    )


def _pad_token(path: Path, default: str | None = None) -> str:
    """The token that fills short texts, as transformers finds it."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (path / name).is_file():
            values = _object(path / name)
            if (
                values.get("padding_side", "right") != "right"
                or values.get("truncation_side", "right") != "right"
            ):
                raise ModelFolderError(f"{path / name}: texts are filled and cut on the right only")
            found = values.get("pad_token")
            found = found.get("content") if isinstance(found, dict) else found
            if isinstance(found, str):
                return found
    if default is None:
        raise ModelFolderError(f"{path}: no pad_token in tokenizer_config.json, so texts cannot be filled up")
    return default


def _vocabulary(config: Mapping[str, Any]) -> int | None:
    """Tokens of a text tower; CLIP's own number where a config of open_clip's or CLIPModel's has none."""
    found = config.get("vocab_size", None if "model_type" in config else _CLIP_VOCABULARY)
    return found if isinstance(found, int) else None


def _object(file: Path) -> dict[str, Any]:
    found = read_json(file)
    if not isinstance(found, dict):
        raise ModelFolderError(f"{file}: expected a JSON object")
    return found


def _refuse_code(file: Path, value: Any) -> None:
    """No key that makes a library load code, at any depth, and no number that asks for all memory."""
    if isinstance(value, dict):
        for key in ("auto_map", "_target_", "trust_remote_code", "custom_pipelines"):
            if key in value:
                raise ModelFolderError(f"{file}: '{key}' asks for code that is not in the library; refused")
        for one in value.values():
            _refuse_code(file, one)
    elif isinstance(value, list):
        for one in value:
            _refuse_code(file, one)
    elif isinstance(value, int) and abs(value) > _MOST:
        raise ModelFolderError(f"{file}: {value} is more than any model has; refused")


def _count(file: Path, key: str, value: Any, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ModelFolderError(f"{file}: {key} must be a whole number in 1–{most}, not {value!r}")
    return value
