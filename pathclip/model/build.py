"""Builds dual encoders: open_clip's own, a timm tower beside a Hugging Face one, or those of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal

from pathclip.config import nearest
from pathclip.errors import ConfigError
from pathclip.model.starting_weights import (
    load_image_trunk,
    load_pretrained,
    load_text_trunk,
    plain_tokenizer,
    tag_config,
    text_folder,
)
from pathclip.model.tokenizer_files import clip_tokenizer_json
from pathclip.model.towers import (
    TOKENIZER,
    Towers,
    custom_module,
    load_towers,
    open_clip_module,
    refuse_foreign_code,
)
from pathclip.model_folder import open_model_folder, read_json

Tower = Literal["image", "text"]


def from_open_clip(
    name: str,
    pretrained: str | None = None,
    image_size: int | None = None,
    context_length: int | None = None,
    lock: Sequence[Tower] = (),
    overrides: Mapping[str, Any] | None = None,
) -> Towers:
    """One of open_clip's architectures with CLIP's vocabulary, as 'ViT-B-32'.

    Args:
        name: open_clip's name. Weights of OpenAI, and those tuned from them such as PLIP's, use QuickGELU:
            a file of them wants 'ViT-B-32-quickgelu'. A tag says so itself.
        pretrained: a tag such as 'openai' (needs the hub), a local weights file, or None for random.
        image_size: pixels; the architecture's own if None.
        context_length: tokens; the architecture's own if None.
        lock: towers whose weights stay as they are.
        overrides: entries of open_clip's model config to replace, merged one level deep.

    Raises:
        ConfigError: unknown name, one with another vocabulary or a third tower, or weights that are neither
            a known tag nor a fitting file.
    """
    import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        raise ConfigError(f"model.name: open_clip has no '{name}'.{nearest(name, open_clip.list_models())}")
    _refuse_other_kinds(name, config)
    config = deepcopy(config)
    tag = tag_config(name, pretrained)
    if tag:
        config["quick_gelu"] = bool(tag.get("quick_gelu", False))
    for key, value in (overrides or {}).items():
        if isinstance(value, Mapping):
            config[key] = {**config.get(key, {}), **value}
        else:
            config[key] = value
    if image_size:
        config["vision_cfg"]["image_size"] = image_size
    if context_length:
        config["text_cfg"]["context_length"] = context_length
    model = open_clip_module(config)
    if pretrained:
        load_pretrained(model, name, pretrained)
    towers = Towers(
        model=model,
        model_cfg=config,
        preprocess_cfg=_preprocess_cfg(config["vision_cfg"]["image_size"])
        | {key: tag[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in tag},
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
    name: str | None = None,
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
        name: of the model in cards and reports; by default the names of the towers.

    Raises:
        ConfigError: an unknown tower, or weights that this installation does not have.
    """
    import timm
    from transformers import AutoConfig

    if image not in timm.list_models():
        raise ConfigError(f"model.image: timm has no '{image}'.{nearest(image, timm.list_models())}")
    folder = text_folder(text)
    refuse_foreign_code(read_json(folder / "config.json"), folder / "config.json")
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
    model = custom_module(config, text_config)
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
        name=name or f"{image}+{text.rstrip('/').rsplit('/', 1)[-1]}",
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


def _refuse_other_kinds(name: str, config: Mapping[str, Any]) -> None:
    text = config.get("text_cfg", {})
    own = [key for key in ("hf_model_name", "hf_tokenizer_name") if key in text]
    if own or "multimodal_cfg" in config:
        what = (
            "has a decoder besides the two towers" if not own else "needs a tokenizer of its own from the hub"
        )
        raise ConfigError(
            f"model.name: '{name}' {what}; only models with CLIP's vocabulary can be built here"
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
