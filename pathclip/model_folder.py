"""Reads, writes and verifies a model folder. See `docs/formats.md` for the layout.

Only files that the card lists are loaded, and it may list safetensors, ONNX, JSON and text only: kinds that
carry no code. What else lies in the folder is not looked at.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathclip import atomic
from pathclip.errors import ModelFolderError

SCHEMA_VERSION = 1
CARD = "pathclip.json"
ALLOWED_SUFFIXES = frozenset({".json", ".safetensors", ".onnx", ".md", ".txt"})
MAX_JSON_BYTES = 64 * 1024 * 1024
WEIGHTS = "open_clip_model.safetensors"
TRAINING_PICTURES = "training_pictures.safetensors"
# Made of the text tower, and so not decisive itself.
PROMPT_EMBEDDINGS = "prompt_embeddings.safetensors"
# What an embedding depends on: these files and every ONNX graph and safetensors but the two above …
_DECISIVE_FILES = frozenset({"tokenizer.json", "open_clip_config.json", "text/config.json"}) | {
    *("config.json", "vocab.json", "merges.txt", "spiece.model"),  # of a folder of transformers
}
# … and these entries of the card.
_DECISIVE_ENTRIES = ("preprocess", "context_length", "pad_id")
# … and this one, where the card has it.
_TEXT_CLEANING = "text_cleaning"
# Bounds of what a real model has: a card with more would ask for gigabytes before its fault shows.
_LIMITS = {"embed_dim": (1, 65_536), "context_length": (1, 4096), "pad_id": (0, (1 << 31) - 1)}
LARGEST_SCALE = 1e6
# `pathclip.runtime.text_cleaning` has them; a test compares the two.
_CLEANINGS = ("lower", "whitespace", "canonicalize")
_MOST_PROMPTS, _MOST_LETTERS = 1000, 1000  # of templates and of classes; of each


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """An open model folder.

    Attributes:
        path: the folder.
        card: content of `pathclip.json`: schema_version, name, embed_dim, context_length, pad_id,
            logit_scale (the factor itself, not its logarithm), logit_bias (or None), preprocess (see
            `pathclip.runtime.preprocess.Preprocess`), prompts, calibration, training, scores, licence,
            files (path within the folder → SHA-256), and text_cleaning where texts are cleaned before they
            become tokens (see `pathclip.runtime.tokenizer`).
    """

    path: Path
    card: Mapping[str, Any]

    @property
    def hash(self) -> str:
        """Names what the model computes: in one precision, folders of one hash give the same embeddings.

        SHA-256, in hex, over the listed hashes of all ONNX and safetensors files, of the configs and the
        tokenizer, and over the card's preprocess, context_length, pad_id and text_cleaning. Scores, prompts,
        `gate.json` and `README.md` do not count: they hold measured speeds and so differ between two exports
        of one model. Nor do the hashes of the pictures that it was trained on, or stored embeddings.
        """
        import hashlib

        decisive = {
            "files": {name: digest for name, digest in self.card["files"].items() if _is_decisive(name)},
            **{key: self.card.get(key) for key in _DECISIVE_ENTRIES},
        }
        if self.card.get(_TEXT_CLEANING):
            decisive[_TEXT_CLEANING] = self.card[_TEXT_CLEANING]
        canonical = json.dumps(decisive, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def file(self, name: str) -> Path:
        """Path of a file that the card lists.

        Raises:
            ModelFolderError: the folder does not have it.
        """
        if name not in self.card["files"]:
            raise ModelFolderError(
                f"{self.path}: the folder has no '{name}'. It has: {', '.join(sorted(self.card['files']))}"
            )
        return self.path / name

    def verified(self, name: str) -> Path:
        """Path of a file whose content has just been compared with the card: for what is about to be loaded.

        Raises:
            ModelFolderError: the folder does not have it, or it was changed.
        """
        file = self.file(name)
        _verify_file(self.path, name, self.card["files"][name], verify=True)
        return file

    def has(self, name: str) -> bool:
        """Whether the card lists the file."""
        return name in self.card["files"]


def open_model_folder(path: str | Path, verify: bool = True) -> ModelFolder:
    """Opens a model folder and checks the files that its card lists.

    Args:
        path: the folder.
        verify: compare every listed file's SHA-256; about 0.1 s per 200 MB.

    Raises:
        ModelFolderError: no folder, no or malformed card, an unknown schema, a number out of bounds, a
            missing, changed or truncated file, or a file of a kind that must not be loaded.
    """
    path = Path(path)
    if not os.path.isdir(path):  # noqa: PTH112 — `Path.is_dir` raises for a name that is too long
        raise ModelFolderError(f"{path}: no such folder; a model is a folder with a {CARD} in it")
    card = _read_card(path)
    for name, digest in card["files"].items():
        _verify_file(path, name, digest, verify)
    return ModelFolder(path, card)


@contextlib.contextmanager
def write_model_folder(path: str | Path, card: Mapping[str, Any]) -> Iterator[Path]:
    """Yields a staging folder to put files into; on success adds the card and renames it to `path`.

    Args:
        path: where the finished folder stands; an earlier one is replaced whole.
        card: the card without `schema_version` and `files`, which are filled in here. It may be a
            mutable mapping that the block still completes.
    """
    with atomic.staged_folder(Path(path)) as staging:
        yield staging
        for file in staging.rglob("*"):
            # Some writers of weights make files for the owner alone; a model is for the group too.
            file.chmod(0o755 if file.is_dir() else 0o644)
        files = {
            file.relative_to(staging).as_posix(): atomic.sha256_file(file)
            for file in sorted(staging.rglob("*"))
            if file.is_file() and file.name != CARD
        }
        for name in files:
            if Path(name).suffix not in ALLOWED_SUFFIXES:
                raise ModelFolderError(f"{path}: '{name}' may not be part of a model folder")
        atomic.write_json(staging / CARD, {**card, "schema_version": SCHEMA_VERSION, "files": files})


def update_card(path: str | Path, **changes: Any) -> None:
    """Replaces entries of the card (scores, calibration, prompts) without touching the weights."""
    folder = open_model_folder(path, verify=False)
    atomic.write_json(folder.path / CARD, {**folder.card, **changes})


def read_json(path: Path) -> Any:
    """Reads a JSON file of bounded size.

    Raises:
        ModelFolderError: missing, larger than 64 MiB, malformed, or it cannot be read; names the file and,
            where known, the line.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ModelFolderError(f"{path}: larger than {MAX_JSON_BYTES >> 20} MiB, refused")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFolderError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise ModelFolderError(f"{path}: not UTF-8 text") from None
    except RecursionError:
        raise ModelFolderError(f"{path}: nested too deeply, refused") from None
    except json.JSONDecodeError as error:
        raise ModelFolderError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from None
    except OSError as error:
        raise ModelFolderError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # a number of more than 4,300 digits, or a NUL byte in the file's name
        raise ModelFolderError(f"{path}: cannot be read ({error})") from None


def shown(value: Any) -> str:
    """A value for a message of one line, however long it is."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def hint_of_model(path: Path) -> str:
    """For somebody who named the folder of a run, the model folder in it; '' where there is none."""
    inner = sorted(file.parent for file in path.glob(f"*/{CARD}"))
    # A run also leaves `best` and, where asked, `untrained`.
    inner.sort(key=lambda folder: folder.name != "model")
    return f" Did you mean {inner[0]}?" if inner else ""


def _is_decisive(name: str) -> bool:
    if name in (TRAINING_PICTURES, PROMPT_EMBEDDINGS):
        return False
    return name in _DECISIVE_FILES or Path(name).suffix in (".onnx", ".safetensors")


def _read_card(path: Path) -> dict[str, Any]:
    if not os.path.isfile(path / CARD):  # noqa: PTH113 — see above
        raise ModelFolderError(f"{path}: no {CARD} in it, so it is no model folder.{hint_of_model(path)}")
    card = read_json(path / CARD)
    if not isinstance(card, dict) or not isinstance(card.get("files"), dict):
        raise ModelFolderError(f"{path / CARD}: not a model card (it has no 'files')")
    if card.get("schema_version") != SCHEMA_VERSION:
        raise ModelFolderError(
            f"{path / CARD}: schema_version {shown(card.get('schema_version'))}, but this pathclip reads "
            f"{SCHEMA_VERSION}; use the version that wrote the folder, or export it again"
        )
    for key, (low, high) in _LIMITS.items():
        value = card.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ModelFolderError(
                f"{path / CARD}: {key} must be a whole number in {low}–{high}, not {shown(value)}"
            )
    _check_scale(path, card)
    _check_texts(path, card)
    return card


def _check_scale(path: Path, card: Mapping[str, Any]) -> None:
    bounds = {"logit_scale": (0.0, LARGEST_SCALE), "logit_bias": (-LARGEST_SCALE, LARGEST_SCALE)}
    for key, (low, high) in bounds.items():
        value: Any = card.get(key)
        if key == "logit_bias" and value is None:
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:  # NaN is in no range
            raise ModelFolderError(
                f"{path / CARD}: the card's {key} must be a number, not {shown(value)}; "
                f"from {low:g} to {high:g}"
            )


def _check_texts(path: Path, card: Mapping[str, Any]) -> None:
    cleaning = card.get(_TEXT_CLEANING)
    if cleaning is not None and cleaning not in _CLEANINGS:
        raise ModelFolderError(
            f"{path / CARD}: text_cleaning must be one of {', '.join(_CLEANINGS)}, not {shown(cleaning)}"
        )
    prompts = card.get("prompts")
    if prompts is None:
        return
    if not isinstance(prompts, Mapping):
        raise ModelFolderError(f"{path / CARD}: prompts must be keys with values, not {shown(prompts)}")
    for key in ("templates", "classes"):
        texts = prompts.get(key)
        if texts is not None and not _are_texts(texts):
            raise ModelFolderError(
                f"{path / CARD}: prompts.{key} must be a list of at most {_MOST_PROMPTS} texts of 1 to "
                f"{_MOST_LETTERS} letters, not {shown(texts)}"
            )


def _are_texts(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= _MOST_PROMPTS
        and all(isinstance(text, str) and 1 <= len(text) <= _MOST_LETTERS for text in value)
    )


def _verify_file(path: Path, name: str, digest: str, verify: bool) -> None:
    file = path / name
    if file.suffix not in ALLOWED_SUFFIXES or ".." in Path(name).parts or Path(name).is_absolute():
        raise ModelFolderError(f"{path}: '{name}' may not be part of a model folder")
    if not os.path.isfile(file):  # noqa: PTH113 — see above
        raise ModelFolderError(f"{file}: listed in {CARD} but missing; copy the folder again")
    try:
        changed = verify and atomic.sha256_file(file) != digest
    except OSError as error:
        raise ModelFolderError(f"{file}: cannot be read ({error.strerror})") from None
    if changed:
        raise ModelFolderError(
            f"{file}: its content differs from the SHA-256 in {CARD}; it was changed or cut off. "
            "Copy or export the folder again"
        )
