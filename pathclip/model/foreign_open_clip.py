"""Describes a folder that open_clip saved: `open_clip_config.json`, weights, and files of a tokenizer."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pathclip.errors import ModelFolderError
from pathclip.model.foreign_checks import (
    HUB_ID,
    count_of,
    json_object,
    no_weights,
    pad_token,
    refuse_code,
    tokenizer_files,
    vocabulary_size,
)
from pathclip.model.foreign_types import ForeignFolder, TextRules
from pathclip.runtime.preprocess import Preprocess
from pathclip.runtime.text_cleaning import CLEANINGS

OPEN_CLIP = "open_clip_config.json"
TEXT_CONFIG = "text/config.json"
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
)
# Of tensors only they carry nothing that runs, if they are read so: `pathclip import` does.
PICKLES = ("open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth", "pytorch_model.bin")
_TOWERS = ("vision_cfg", "text_cfg")
_OLD_ID = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)  # as 'roberta-base', from before there were owners


def describe_open_clip(path: Path, pickles: bool) -> ForeignFolder:
    """See `pathclip.model.foreign_folder.open_foreign_folder`."""
    file = path / OPEN_CLIP
    described = json_object(file)
    config = described.get("model_cfg")
    if not isinstance(config, dict) or not all(isinstance(config.get(k), dict) for k in _TOWERS):
        raise ModelFolderError(f"{file}: no model_cfg with {' and '.join(_TOWERS)} in it")
    refuse_code(file, config)
    vision, text = (config[key] for key in _TOWERS)
    if ":" in str(vision.get("timm_model_name", "")):
        raise ModelFolderError(f"{file}: timm_model_name names a model outside the folder; refused")
    own = bool(text.get("hf_tokenizer_name"))
    cleaning = _open_clip_cleaning(file, text, "whitespace" if own else "lower")
    weights = open_clip_weights(path, pickles)
    text_config, files = None, [OPEN_CLIP, weights]
    if text.get("hf_model_name"):
        text_config = _open_clip_text_config(path, str(text["hf_model_name"]))
        files.append(TEXT_CONFIG)
    context_length = count_of(file, "text_cfg.context_length", text.get("context_length", 77), 4096)
    vocabulary = vocabulary_size(text if text_config is None else text_config)
    rules = TextRules(cleaning, (), context_length, None, vocabulary)
    if own:
        rules = TextRules(cleaning, tokenizer_files(path), context_length, pad_token(path), vocabulary)
    preprocess_cfg = described.get("preprocess_cfg") or {}
    try:
        # open_clip too takes the size from the tower and not from the preprocess.
        preprocess_cfg = {**preprocess_cfg, "size": vision.get("image_size", 224), "draft": 0}
        preprocess = Preprocess.from_card(preprocess_cfg)
    except (ModelFolderError, TypeError) as error:
        raise ModelFolderError(f"{file}: {error}") from None
    return ForeignFolder(
        path,
        "open_clip",
        "clip",
        config,
        text_config,
        (weights,),
        rules,
        preprocess,
        preprocess_cfg,
        count_of(file, "model_cfg.embed_dim", config.get("embed_dim"), 65_536),
        (*files, *rules.files),
    )


def _open_clip_cleaning(file: Path, text: Mapping[str, Any], default: str) -> str:
    """How open_clip's tokenizer cleans texts; other arguments of it would go on to AutoTokenizer."""
    if text.get("tokenizer_mode"):
        raise ModelFolderError(f"{file}: text_cfg.tokenizer_mode is not known here; refused")
    given = text.get("tokenizer_kwargs") or {}
    cleaning = given.get("clean", default) if isinstance(given, dict) else None
    if not isinstance(cleaning, str) or cleaning not in CLEANINGS or set(given) - {"clean"}:
        raise ModelFolderError(f"{file}: text_cfg.tokenizer_kwargs is not known here; refused")
    return cleaning


def open_clip_weights(path: Path, pickles: bool) -> str:
    """The file of weights, found by its name."""
    for name in (*WEIGHTS, *(PICKLES if pickles else ())):
        if (path / name).is_file():
            return name
    raise no_weights(path, WEIGHTS[0], PICKLES)


def _open_clip_text_config(path: Path, name: str) -> dict[str, Any]:
    if not (path / TEXT_CONFIG).is_file():
        lacking = f"{path}: its text tower is {name!r} of transformers, whose config is not in the folder; "
        if not (HUB_ID.fullmatch(name) or _OLD_ID.fullmatch(name)):
            raise ModelFolderError(f"{lacking}put it there as {TEXT_CONFIG}")
        # What a stranger wrote is pasted into a shell.
        words = f"{shlex.quote(name)} {shlex.quote(str(path / 'text'))}"
        raise ModelFolderError(
            f'{lacking}where there is a network: python -c "import sys; from transformers import AutoConfig; '
            f'AutoConfig.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])" {words}'
        )
    config = json_object(path / TEXT_CONFIG)
    refuse_code(path / TEXT_CONFIG, config)
    return config
