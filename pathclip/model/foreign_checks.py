"""What is asked of every folder that another library saved; each refusal is one line with the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pathclip.errors import ModelFolderError
from pathclip.model_folder import read_json

_MOST = 1 << 24  # above any width, vocabulary or number of layers of a real model
CLIP_VOCABULARY = 49_408
MAX_WEIGHTS = 1 << 35  # bytes of a model's weights: 32 GiB


def no_weights(path: Path, wanted: str, known: Sequence[str]) -> ModelFolderError:
    """The refusal of a folder without weights that can be read; `known` are names of pickles."""
    pickle = next((name for name in known if (path / name).is_file()), None)
    if pickle is None:
        return ModelFolderError(f"{path}: no weights in it; expected {wanted}")
    return ModelFolderError(
        f"{path}: its weights are a pickle ({pickle}), which can hold a program and is not read here. To "
        f"take out the weights alone: pathclip import {path} --out {path.name}-safe"
    )


def tokenizer_files(path: Path, also: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Files that hold the tokenizer: `tokenizer.json`, or `also` where all of these are there."""
    if (path / "tokenizer.json").is_file():
        return ("tokenizer.json",)
    if also and all((path / name).is_file() for name in also):
        return also
    raise ModelFolderError(
        f"{path}: no tokenizer.json{' nor ' + ' and '.join(also) if also else ''}. To make one: "
        'python -c "from transformers import AutoTokenizer; '
        f"AutoTokenizer.from_pretrained('{path}').save_pretrained('{path}')\""
    )


def pad_token(path: Path, default: str | None = None) -> str:
    """The token that fills short texts, as transformers finds it."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (path / name).is_file():
            values = json_object(path / name)
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


def vocabulary_size(config: Mapping[str, Any], default: int = CLIP_VOCABULARY) -> int | None:
    """Tokens of a text tower; `default` where a config of open_clip or CLIPModel has none."""
    found = config.get("vocab_size", None if "model_type" in config else default)
    return found if isinstance(found, int) else None


def json_object(file: Path) -> dict[str, Any]:
    """Reads a JSON file that holds an object."""
    found = read_json(file)
    if not isinstance(found, dict):
        raise ModelFolderError(f"{file}: expected a JSON object")
    return found


def refuse_code(file: Path, value: Any) -> None:
    """No key that makes a library load code, at any depth, and no number that asks for all memory."""
    if isinstance(value, dict):
        for key in ("auto_map", "_target_", "trust_remote_code", "custom_pipelines"):
            if key in value:
                raise ModelFolderError(f"{file}: '{key}' asks for code that is not in the library; refused")
        for one in value.values():
            refuse_code(file, one)
    elif isinstance(value, list):
        for one in value:
            refuse_code(file, one)
    elif isinstance(value, int) and abs(value) > _MOST:
        raise ModelFolderError(f"{file}: {value} is more than any model has; refused")


def count_of(file: Path, key: str, value: Any, most: int) -> int:
    """The value, if it is a whole number from 1 to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ModelFolderError(f"{file}: {key} must be a whole number in 1–{most}, not {value!r}")
    return value
