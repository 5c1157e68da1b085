"""A dual encoder with its description, and its way into a model folder and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pathclip import atomic
from pathclip.errors import ModelFolderError
from pathclip.model_folder import WEIGHTS, ModelFolder, read_json, write_model_folder

CONFIG = "open_clip_config.json"
TOKENIZER = "tokenizer.json"
TEXT_CONFIG = "text/config.json"


@dataclass(slots=True)
class Towers:
    """A dual encoder with its description.

    Attributes:
        model: open_clip's `CLIP` or `CustomTextCLIP`.
        model_cfg: open_clip's model config.
        preprocess_cfg: open_clip's preprocess config.
        tokenizer_json: content of `tokenizer.json`.
        context_length: tokens per text.
        text_config: the Hugging Face config of the text tower; None for open_clip's own.
        locked: towers that are not trained.
        source: where the starting weights came from, for the card.
    """

    model: nn.Module
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    tokenizer_json: str
    context_length: int
    text_config: dict[str, Any] | None = None
    locked: tuple[str, ...] = ()
    source: str = "random"
    name: str = "model"

    @property
    def embed_dim(self) -> int:
        """Length of an embedding."""
        return int(self.model_cfg["embed_dim"])

    def save(self, path: Path | str, card: Mapping[str, Any] | None = None) -> Path:
        """Writes the model folder; `card` adds training data, prompts and scores. Atomic."""
        from safetensors.torch import save_file

        full = {**self.card(), **(card or {})}
        with write_model_folder(path, full) as staging:
            atomic.write_json(
                staging / CONFIG, {"model_cfg": self.model_cfg, "preprocess_cfg": self.preprocess_cfg}
            )
            weights = {name: value.detach().contiguous() for name, value in self.model.state_dict().items()}
            save_file(weights, staging / WEIGHTS, metadata={"format": "pt"})
            atomic.write_text(staging / TOKENIZER, self.tokenizer_json)
            if self.text_config is not None:
                atomic.write_json(staging / TEXT_CONFIG, self.text_config)
        return Path(path)

    def card(self) -> dict[str, Any]:
        """What the card says of the model itself."""
        scale = self.model.logit_scale.exp().mean().item()
        bias = getattr(self.model, "logit_bias", None)
        return {
            "name": self.name,
            "embed_dim": self.embed_dim,
            "context_length": self.context_length,
            "pad_id": 0,
            "logit_scale": round(float(scale), 6),
            "logit_bias": None if bias is None else round(float(bias.mean().item()), 6),
            "preprocess": self.preprocess_cfg,
            "starting_weights": self.source,
            "licence": None,
            "prompts": {},
            "calibration": {},
            "training": {},
            "scores": [],
        }


def load_towers(folder: ModelFolder) -> Towers:
    """Builds the module of a verified folder and loads its safetensors; no hub, no pickle."""
    from safetensors.torch import load_file

    described = read_json(folder.file(CONFIG))
    config = described["model_cfg"]
    text_config = read_json(folder.file(TEXT_CONFIG)) if folder.has(TEXT_CONFIG) else None
    _refuse_remote_names(config, text_config, folder)
    weights = load_file(folder.file(WEIGHTS))
    model = custom_module(config, text_config) if text_config else open_clip_module(config)
    model.load_state_dict(weights, strict=True)
    return Towers(
        model=model.eval(),
        model_cfg=config,
        preprocess_cfg=described["preprocess_cfg"],
        tokenizer_json=folder.file(TOKENIZER).read_text(encoding="utf-8"),
        context_length=int(folder.card["context_length"]),
        text_config=text_config,
        source=str(folder.card.get("starting_weights", "")),
        name=str(folder.card.get("name", "model")),
    )


def open_clip_module(config: Mapping[str, Any]) -> nn.Module:
    """A dual encoder of open_clip's own parts (or a timm image tower), with random weights."""
    from open_clip.model import CLIP, CustomTextCLIP

    arguments = deepcopy(dict(config))
    custom = arguments.pop("custom_text", False)
    _never_download(arguments)
    return (CustomTextCLIP if custom else CLIP)(**arguments)


def custom_module(config: Mapping[str, Any], text_config: Mapping[str, Any]) -> nn.Module:
    """A dual encoder with a Hugging Face text tower, with random weights."""
    import tempfile

    from open_clip.model import CustomTextCLIP

    arguments = deepcopy(dict(config))
    arguments.pop("custom_text", None)
    # open_clip builds a Hugging Face tower from a name; a folder with its config is such a name.
    with tempfile.TemporaryDirectory(prefix="pathclip-text-") as folder:
        (Path(folder) / "config.json").write_text(json.dumps(dict(text_config)))
        arguments["text_cfg"] |= {"hf_model_name": folder, "hf_model_pretrained": False}
        _never_download(arguments)
        return CustomTextCLIP(**arguments)


def _never_download(arguments: dict[str, Any]) -> None:
    if "timm_model_name" in arguments["vision_cfg"]:
        arguments["vision_cfg"]["timm_model_pretrained"] = False


def _refuse_remote_names(config: Mapping[str, Any], text_config: Any, folder: ModelFolder) -> None:
    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    if ":" in str(vision.get("timm_model_name", "")) or "tokenizer_kwargs" in text:
        raise ModelFolderError(
            f"{folder.path / CONFIG}: refers to code or weights outside the folder; refused"
        )
    if "hf_model_name" in text and text_config is None:
        raise ModelFolderError(f"{folder.path}: a Hugging Face text tower needs {TEXT_CONFIG} in the folder")
    if text_config is not None:
        refuse_foreign_code(text_config, folder.path / TEXT_CONFIG)


def refuse_foreign_code(text_config: Any, file: Path) -> None:
    """Refuses a Hugging Face config for whose tower transformers would run code that it does not bring.

    Raises:
        ModelFolderError: names the file.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = text_config.get("model_type") if isinstance(text_config, dict) else None
    if kind not in CONFIG_MAPPING or "auto_map" in text_config:
        raise ModelFolderError(
            f"{file}: model_type {kind!r} needs code that transformers does not bring; refused"
        )
