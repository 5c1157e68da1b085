"""What is asked of every folder that another library saved; each refusal is one line with the file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pathclip.errors import ModelFolderError, escaped
from pathclip.model_folder import read_json

_MOST = 1 << 24  # above any width or vocabulary of a real model
MOST_LAYERS = 1024
CLIP_VOCABULARY = 49_408
MAX_WEIGHTS = 1 << 35  # bytes of a model's weights: 32 GiB
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
# Any other name of these entries may be a kernel of the hub, which is a program.
_IMPLEMENTATIONS = (None, "eager", "sdpa")


def brief(error: Exception, most: int = 300) -> str:
    """What a library says of a mistake, in one line of at most so many characters."""
    return escaped(" ".join(str(error).split()))[:most] or type(error).__name__


def no_weights(path: Path, wanted: str, known: Sequence[str]) -> ModelFolderError:
    """The refusal of a folder without weights that can be read; `known` are names of pickles."""
    pickle = next((name for name in known if (path / name).is_file()), None)
    if pickle is None:
        return ModelFolderError(f"{path}: no weights in it; expected {wanted}")
    return ModelFolderError(
        f"{path}: its weights are a pickle ({pickle}), which can hold a program and is not read here. To "
        f"take out the weights alone: pathclip import {shlex.quote(str(path))} "
        f"--out {shlex.quote(path.resolve().name + '-safe')}"
    )


def tokenizer_files(path: Path, also: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Files that hold the tokenizer: `tokenizer.json`, or `also` where all of these are there."""
    if (path / "tokenizer.json").is_file():
        return ("tokenizer.json",)
    if also and all((path / name).is_file() for name in also):
        return also
    raise ModelFolderError(
        f"{path}: no tokenizer.json{' nor ' + ' and '.join(also) if also else ''}. To make one: "
        'python -c "import sys; from transformers import AutoTokenizer; '
        f'AutoTokenizer.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1])" {shlex.quote(str(path))}'
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
    """No key that makes a library load code, at any depth, and no number that asks for all memory.

    Raises:
        ModelFolderError: names the file and the entry.
    """
    if isinstance(value, dict):
        for key in ("auto_map", "_target_", "trust_remote_code", "custom_pipelines"):
            if key in value:
                raise ModelFolderError(f"{file}: '{key}' asks for code that is not in the library; refused")
        for key, one in value.items():
            if "_implementation" in key and one not in _IMPLEMENTATIONS:
                raise ModelFolderError(f"{file}: {key} {one!r} may be code of the hub; refused")
            if "layers" in key and _more_than(one, MOST_LAYERS):
                raise ModelFolderError(f"{file}: {key} {one!r} is more than any model has; refused")
            refuse_code(file, one)
    elif isinstance(value, list):
        for one in value:
            refuse_code(file, one)
    elif isinstance(value, int) and abs(value) > _MOST:
        raise ModelFolderError(f"{file}: {value} is more than any model has; refused")


def _more_than(value: Any, most: int) -> bool:
    values = value if isinstance(value, list) else [value]
    return any(isinstance(one, int) and one > most for one in values)


def count_of(file: Path, key: str, value: Any, most: int) -> int:
    """The value, if it is a whole number from 1 to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ModelFolderError(f"{file}: {key} must be a whole number in 1–{most}, not {value!r}")
    return value
