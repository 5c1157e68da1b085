"""Builds dual encoders: open_clip's own, or a timm image tower beside a Hugging Face text tower.

Every builder returns `Towers`: the module and what a model folder needs to describe it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from pathclip import atomic
from pathclip.config import nearest
from pathclip.errors import ConfigError
from pathclip.model.starting_weights import (
    load_image_trunk,
    load_pretrained,
    load_text_trunk,
    plain_tokenizer,
    text_folder,
)
from pathclip.model.tokenizer_files import clip_tokenizer_json
from pathclip.model_folder import ModelFolder, open_model_folder, read_json, write_model_folder

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
TOKENIZER = "tokenizer.json"
TEXT_CONFIG = "text/config.json"
Tower = Literal["image", "text"]


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


def from_open_clip(
    name: str,
    pretrained: str | None = None,
    image_size: int | None = None,
    context_length: int | None = None,
    lock: Sequence[Tower] = (),
    overrides: Mapping[str, Any] | None = None,
) -> Towers:
    """One of open_clip's architectures, as 'ViT-B-32'.

    Args:
        name: open_clip's name.
        pretrained: a tag such as 'openai' (needs the hub), a local weights file, or None for random.
        image_size: pixels; the architecture's own if None.
        context_length: tokens; the architecture's own if None.
        lock: towers whose weights stay as they are.
        overrides: entries of open_clip's model config to replace, merged one level deep.

    Raises:
        ConfigError: unknown name, or weights that are neither a known tag nor a file.
    """
    import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        raise ConfigError(f"model.name: open_clip has no '{name}'.{nearest(name, open_clip.list_models())}")
    config = deepcopy(config)
    for key, value in (overrides or {}).items():
        if isinstance(value, Mapping):
            config[key] = {**config.get(key, {}), **value}
        else:
            config[key] = value
    if image_size:
        config["vision_cfg"]["image_size"] = image_size
    if context_length:
        config["text_cfg"]["context_length"] = context_length
    model = _open_clip_module(config)
    if pretrained:
        load_pretrained(model, name, pretrained)
    towers = Towers(
        model=model,
        model_cfg=config,
        preprocess_cfg=_preprocess_cfg(config["vision_cfg"]["image_size"]),
        tokenizer_json=clip_tokenizer_json(),
        context_length=config["text_cfg"].get("context_length", 77),
        locked=tuple(lock),
        source=f"open_clip {name} {pretrained}" if pretrained else "random",
        name=name,
    )
    return _lock(towers)


def from_towers(
    image: str = "tf_efficientnet_lite0",
    text: str = "all-MiniLM-L6-v2",
    image_size: int = 160,
    context_length: int = 64,
    embed_dim: int = 256,
    pretrained: bool = True,
    lock: Sequence[Tower] = (),
    text_layers: int | None = None,
) -> Towers:
    """A timm image tower beside a sentence encoder, each with a linear projection.

    With the defaults both start from weights that ordinary packages bring, so no hub is needed:
    EfficientNet-Lite0 (ImageNet) and all-MiniLM-L6-v2.

    Args:
        image: timm's name; starting weights are known for 'tf_efficientnet_lite0'.
        text: 'all-MiniLM-L6-v2', or a folder with a Hugging Face text model and `tokenizer.json`.
        image_size: pixels.
        context_length: tokens.
        embed_dim: length of an embedding.
        pretrained: start from the packaged weights; otherwise at random.
        lock: towers whose trunks stay as they are; the projections are always trained.
        text_layers: keep only that many layers of the text tower (for tests).

    Raises:
        ConfigError: an unknown tower, or weights that this installation does not have.
    """
    import timm
    from transformers import AutoConfig

    if image not in timm.list_models():
        raise ConfigError(f"model.image: timm has no '{image}'.{nearest(image, timm.list_models())}")
    folder = text_folder(text)
    text_config = AutoConfig.from_pretrained(str(folder)).to_dict()
    if text_layers:
        text_config["num_hidden_layers"] = text_layers
    config: dict[str, Any] = {
        "embed_dim": embed_dim,
        "vision_cfg": {
            "timm_model_name": image,
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": image_size,
        },
        "text_cfg": {
            "hf_model_name": f"sentence-transformers/{folder.name if text != 'all-MiniLM-L6-v2' else text}",
            "hf_tokenizer_name": f"sentence-transformers/{text}" if "/" not in text else text,
            "hf_model_pretrained": False,
            "hf_proj_type": "linear",
            "hf_pooler_type": "mean_pooler",
            "context_length": context_length,
        },
    }
    model = _custom_module(config, text_config)
    if pretrained:
        load_image_trunk(model, image)
        load_text_trunk(model, folder, text_layers)
    towers = Towers(
        model=model,
        model_cfg=config,
        preprocess_cfg=_preprocess_cfg(image_size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        tokenizer_json=plain_tokenizer(folder / TOKENIZER),
        context_length=context_length,
        text_config=text_config,
        locked=tuple(lock),
        source=f"{image} (ImageNet) + {text}" if pretrained else "random",
        name=f"{image}+{text.rstrip('/').rsplit('/', 1)[-1]}",
    )
    return _lock(towers)


def from_folder(path: str, lock: Sequence[Tower] = ()) -> Towers:
    """A model folder that `pathclip train` wrote, to go on from or to fine-tune.

    Raises:
        ModelFolderError: the folder is incomplete, changed, or holds no torch weights.
    """
    folder = open_model_folder(path)
    towers = load_towers(folder)
    towers.locked = tuple(lock)
    towers.source = f"{folder.card.get('name')} {folder.hash[:12]}"
    return _lock(towers)


def load_towers(folder: ModelFolder) -> Towers:
    """Builds the module of a verified folder and loads its safetensors; no hub, no pickle."""
    from safetensors.torch import load_file

    described = read_json(folder.file(CONFIG))
    config = described["model_cfg"]
    text_config = read_json(folder.file(TEXT_CONFIG)) if folder.has(TEXT_CONFIG) else None
    _refuse_remote_names(config, folder)
    weights = load_file(folder.file(WEIGHTS))
    model = _custom_module(config, text_config) if text_config else _open_clip_module(config)
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


def _preprocess_cfg(
    size: int | Sequence[int],
    mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073),
    std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711),
) -> dict[str, Any]:
    # The default mean and deviation are those of OpenAI's CLIP.
    return {
        "size": size if isinstance(size, int) else list(size),
        "mode": "RGB",
        "mean": list(mean),
        "std": list(std),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "fill_color": 0,
    }


def _open_clip_module(config: Mapping[str, Any]) -> nn.Module:
    from open_clip.model import CLIP, CustomTextCLIP

    arguments = deepcopy(dict(config))
    custom = arguments.pop("custom_text", False)
    arguments.pop("multimodal_cfg", None)
    return (CustomTextCLIP if custom else CLIP)(**arguments)


def _custom_module(config: Mapping[str, Any], text_config: Mapping[str, Any]) -> nn.Module:
    """open_clip builds a Hugging Face tower from a name; a folder with the config is such a name."""
    import tempfile

    from open_clip.model import CustomTextCLIP

    arguments = deepcopy(dict(config))
    arguments.pop("custom_text", None)
    with tempfile.TemporaryDirectory(prefix="pathclip-text-") as folder:
        (Path(folder) / "config.json").write_text(json.dumps(dict(text_config)))
        arguments["text_cfg"] |= {"hf_model_name": folder, "hf_model_pretrained": False}
        if "timm_model_name" in arguments["vision_cfg"]:
            arguments["vision_cfg"]["timm_model_pretrained"] = False
        return CustomTextCLIP(**arguments)


def _refuse_remote_names(config: Mapping[str, Any], folder: ModelFolder) -> None:
    from pathclip.errors import ModelFolderError

    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    if ":" in str(vision.get("timm_model_name", "")) or "tokenizer_kwargs" in text:
        raise ModelFolderError(
            f"{folder.path / CONFIG}: refers to code or weights outside the folder; refused"
        )
    if "hf_model_name" in text and not folder.has(TEXT_CONFIG):
        raise ModelFolderError(f"{folder.path}: a Hugging Face text tower needs {TEXT_CONFIG} in the folder")


def _lock(towers: Towers) -> Towers:
    model: Any = towers.model
    for tower in towers.locked:
        if tower == "image":
            model.lock_image_tower(unlocked_groups=0, freeze_bn_stats=True)
        elif tower == "text":
            model.lock_text_tower(unlocked_layers=0, freeze_layer_norm=True)
        else:
            raise ConfigError(f"model.lock: '{tower}' is neither 'image' nor 'text'")
    return towers
