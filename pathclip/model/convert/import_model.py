"""Turns weights that others saved into a model folder."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pathclip import atomic
from pathclip.errors import ConfigError, ModelFolderError, PathclipError, escaped
from pathclip.model.convert.clip_model import clip_model_cfg, clip_tensors
from pathclip.model.convert.model_card import Origin, readme, stated_licence
from pathclip.model.convert.openai import (
    is_openais_own,
    looks_like_openai,
    only_parameters,
    openai_model_cfg,
)
from pathclip.model.convert.siglip_model import siglip_model_cfg, siglip_tensors
from pathclip.model.convert.source import Source
from pathclip.model.convert.weights import load_into_open_clip, read_weights
from pathclip.model.foreign_checks import brief
from pathclip.model.foreign_encoder import described_weights, load_foreign_model, tokenizer_content
from pathclip.model.foreign_folder import ForeignFolder, open_foreign_folder, weight_files
from pathclip.model.modules import module_for, open_clip_module
from pathclip.model.tokenizer_files import clip_tokenizer_json
from pathclip.model.towers import Towers
from pathclip.model_folder import CARD
from pathclip.runtime.classify import TEMPLATES

_LAYOUTS = {
    ("open_clip", "clip"): "as open_clip saved it",
    ("transformers", "clip"): "as `CLIPModel` of transformers",
    ("transformers", "siglip"): "as `SiglipModel` of transformers",
}


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the user says of the weights.

    Attributes:
        sha256: of the file of weights, in hex; not compared if None.
        licence: of the weights; what the source says if None.
        name: for cards and reports; by default that of the source.
        model: open_clip's name of the architecture, for a file without a config.
    """

    sha256: str | None = None
    licence: str | None = None
    name: str | None = None
    model: str | None = None


def import_model(source: Source, out: Path, options: ImportOptions | None = None) -> Path:
    """Writes a model folder with weights that others saved. Atomic.

    Args:
        source: from `pathclip.model.convert.source.located`: a file of weights, or a folder that open_clip or
            transformers saved.
        out: the model folder; an earlier one there is replaced.
        options: what the user says of the weights.

    Returns:
        The model folder.

    Raises:
        ModelFolderError: a source that cannot be read or expressed, or another SHA-256.
        ConfigError: an option that does not go with the source, or `out` is something else.
    """
    options = options or ImportOptions()
    _refuse_another_folder(out)
    of_kind = _of_folder if source.path.is_dir() else _of_file
    with _in_one_line(source.path):
        towers, origin, licence = of_kind(source, options)
    return _write(towers, origin, escaped(options.licence or licence), out)


@contextlib.contextmanager
def _in_one_line(path: Path) -> Iterator[None]:
    """What a stranger wrote can be wrong in more ways than are asked for one by one."""
    try:
        yield
    except PathclipError:
        raise
    except Exception as error:
        raise ModelFolderError(f"{path}: cannot be read as a model: {brief(error)}") from error


def _refuse_another_folder(out: Path) -> None:
    """Only a model folder, or nothing, is replaced."""
    if out.exists() and not (out / CARD).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out}: exists and is no model folder; name another")


def _of_folder(source: Source, options: ImportOptions) -> tuple[Towers, Origin, str]:
    path = source.path
    if (path / CARD).is_file():
        raise ModelFolderError(f"{path}: is a model folder of pathclip already; use it as it is")
    if options.model:
        raise ConfigError("--model goes with a file of weights; a folder says its architecture itself")
    if options.sha256:
        weights = weight_files(path, pickles=True)
        if len(weights) > 1:
            raise ConfigError(
                f"--sha256 is that of one file, but {source.name} has {len(weights)} of weights"
            )
        _check_sha256(path / weights[0], options.sha256)
    described = open_foreign_folder(path, pickles=True)
    name = escaped(options.name or source.name.rsplit("/", 1)[-1])
    towers = _converted(described, name)
    layout = _LAYOUTS[described.kind, described.architecture]
    origin = Origin(escaped(source.name), layout, source.revision, described.hashes())
    return towers, origin, stated_licence(path)


def _converted(described: ForeignFolder, name: str) -> Towers:
    content, pad_id = tokenizer_content(described.path, described.text)
    if described.kind == "open_clip":
        config: dict[str, Any] = dict(described.config)
        model = load_foreign_model(described)
    else:
        clip = described.architecture == "clip"
        config = clip_model_cfg(described) if clip else siglip_model_cfg(described)
        by_theirs = described_weights(described)
        try:
            model = module_for(lambda: open_clip_module(config), by_theirs)
            tensors = clip_tensors(by_theirs, config) if clip else siglip_tensors(by_theirs, config)
            model.load_state_dict(tensors, strict=True)
        except (KeyError, RuntimeError, ConfigError) as error:
            reason = f"weights and config do not fit: {brief(error)}"
            raise ModelFolderError(f"{described.path}: {reason}") from error
    return Towers(
        model=model.float().eval(),
        model_cfg=config,
        preprocess_cfg=dict(described.preprocess_cfg),
        tokenizer_json=_plain(content),
        context_length=described.text.context_length,
        text_config=None if described.text_config is None else dict(described.text_config),
        name=name,
        padding=pad_id,
        text_cleaning=described.text.cleaning,
    )


def _of_file(source: Source, options: ImportOptions) -> tuple[Towers, Origin, str]:
    file = source.path
    digest = _check_sha256(file, options.sha256)
    name = options.name or options.model or file.stem
    towers = _of_name(file, options.model) if options.model else _of_shapes(file)
    towers.name = escaped(name)
    layout = f"open_clip's {options.model}" if options.model else "in OpenAI's form, with QuickGELU"
    own = escaped(file.name)
    return towers, Origin(own, layout, None, {own: digest}), stated_licence(file.parent)


def _of_shapes(file: Path) -> Towers:
    """A file of OpenAI's, whose architecture its shapes tell."""
    how = (
        f"say which architecture of open_clip it is: pathclip import {shlex.quote(str(file))} --out … "
        "--model ViT-B-32-quickgelu if it was tuned from OpenAI's weights (as PLIP), --model ViT-B-32 if "
        "open_clip trained it from others"
    )
    tensors = read_weights([file])
    if not looks_like_openai(tensors):
        raise ModelFolderError(f"{file}: not in OpenAI's form; {how}")
    # Of the activation the shapes say nothing, and with the wrong one a model is quietly worse.
    if not is_openais_own(tensors):
        raise ConfigError(
            f"{file}: its tensors do not tell whether it has QuickGELU, as OpenAI's have; {how}"
        )
    config = openai_model_cfg(tensors, str(file))
    try:
        model = module_for(lambda: open_clip_module(config), tensors)
    except ConfigError as error:
        raise ModelFolderError(f"{file}: {error}") from error
    _load(model, only_parameters(tensors, model), file)
    return _with_clips_tokenizer(model, config)


def _of_name(file: Path, name: str) -> Towers:
    from pathclip.model.build import from_open_clip

    towers = from_open_clip(name)
    _load(towers.model, only_parameters(read_weights([file]), towers.model), file)
    return _with_clips_tokenizer(towers.model, towers.model_cfg, towers.preprocess_cfg)


def _load(model: nn.Module, tensors: dict[str, Any], file: Path) -> None:
    try:
        load_into_open_clip(model, tensors)
    except (RuntimeError, AssertionError, KeyError, ValueError, AttributeError) as error:
        reason = f"its weights do not fit the architecture: {brief(error)}"
        raise ModelFolderError(f"{file}: {reason}") from error


def _with_clips_tokenizer(
    model: nn.Module, config: dict[str, Any], preprocess: dict[str, Any] | None = None
) -> Towers:
    from pathclip.model.build import clip_preprocess_cfg

    return Towers(
        model=model.float().eval(),
        model_cfg=config,
        preprocess_cfg={
            **(preprocess or clip_preprocess_cfg(config["vision_cfg"]["image_size"])),
            "draft": 0,  # as OpenAI's and open_clip's own transforms decode
        },
        tokenizer_json=clip_tokenizer_json(),
        context_length=int(config["text_cfg"].get("context_length", 77)),
        # CLIP's own tokenizer does so.
        text_cleaning="lower",
    )


def _write(towers: Towers, origin: Origin, licence: str, out: Path) -> Path:
    at = f"@{origin.revision[:12]}" if origin.revision else ""
    towers.source = f"{origin.source}{at}, imported"
    card = {"licence": licence, "source": origin.card(), "prompts": {"templates": list(TEMPLATES)}}
    files = {"README.md": readme({**towers.card(), **card}, origin).encode()}
    text = towers.model_cfg["text_cfg"]
    if text.get("hf_tokenizer_name"):
        # By which open_clip finds the tokenizer of a folder.
        files["tokenizer_config.json"] = _tokenizer_config(towers).encode()
    return towers.save(out, card, files=files)


def _tokenizer_config(towers: Towers) -> str:
    from tokenizers import Tokenizer

    pad = Tokenizer.from_str(towers.tokenizer_json).id_to_token(towers.pad_id)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": towers.context_length}
    return json.dumps({**settings, "pad_token": pad}, indent=2, ensure_ascii=False)


def _plain(content: str) -> str:
    """A tokenizer without padding and truncation of its own; the card's come later."""
    return json.dumps({**json.loads(content), "padding": None, "truncation": None}, ensure_ascii=False)


def _check_sha256(file: Path, wanted: str | None) -> str:
    """SHA-256 of the file; before a byte of it is understood, compared with the one that the user gave."""
    found = atomic.sha256_file(file)
    if wanted is not None and wanted.strip().lower() != found:
        raise ModelFolderError(f"{file}: its SHA-256 is {found}, not {wanted}; fetch it again")
    return found
