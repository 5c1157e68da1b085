"""Builds dual encoders: open_clip's own, a timm tower beside a Hugging Face one, or those of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from pathclip.config import nearest
from pathclip.errors import ConfigError
from pathclip.model.modules import open_clip_module
from pathclip.model.starting_weights import load_pretrained, tag_config
from pathclip.model.tokenizer_files import clip_tokenizer_json
from pathclip.model.towers import Towers, load_towers, prepare
from pathclip.model.trunks import from_towers
from pathclip.model_folder import open_model_folder

__all__ = ["from_folder", "from_open_clip", "from_towers"]


def from_open_clip(
    name: str,
    pretrained: str | None = None,
    image_size: int | None = None,
    context_length: int | None = None,
    lock: Sequence[str] | Mapping[str, int] | None = None,
    lock_norms: bool = True,
    patch_dropout: float = 0.0,
    logit_scale: float | None = None,
    logit_bias: float | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Towers:
    """One of open_clip's architectures with CLIP's vocabulary, as 'ViT-B-32' or 'coca_ViT-B-32'.

    Args:
        name: open_clip's name. Weights of OpenAI, and those tuned from them such as PLIP's, use QuickGELU:
            a file of them wants 'ViT-B-32-quickgelu'. A tag says so itself.
        pretrained: a tag such as 'openai' (needs the hub), a local weights file, or None for random.
        image_size: pixels; the architecture's own if None.
        context_length: tokens; the architecture's own if None.
        lock: towers whose weights stay as they are, or tower → number of layers at the top that are
            trained; see `pathclip.model.freeze.lock_layers`.
        lock_norms: lock the norms of those layers too.
        patch_dropout: share of the patches that a training step leaves out (Li et al. 2023).
        logit_scale: the factor to start with; that of the weights, or CLIP's 1 / 0.07, if None. SigLIP
            starts at 10.
        logit_bias: to start with; none if None. SigLIP starts at -10.
        overrides: entries of open_clip's model config to replace, merged one level deep.

    Raises:
        ConfigError: unknown name, one with another vocabulary, weights that are neither a known tag nor a
            fitting file, or an option that the architecture does not have.
    """
    import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        raise ConfigError(f"model.name: open_clip has no '{name}'.{nearest(name, open_clip.list_models())}")
    if not 0 <= patch_dropout < 1:
        raise ConfigError(f"model.patch_dropout: a share from 0 up to, not including, 1; not {patch_dropout}")
    _refuse_other_vocabularies(name, config)
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
    if patch_dropout:
        config["vision_cfg"]["patch_dropout"] = patch_dropout
    if context_length:
        for part in ("text_cfg", "multimodal_cfg"):
            if part in config:
                config[part]["context_length"] = context_length
    model = open_clip_module(config)
    if pretrained:
        load_pretrained(model, name, pretrained)
    towers = Towers(
        model=model,
        model_cfg=config,
        preprocess_cfg=clip_preprocess_cfg(config["vision_cfg"]["image_size"])
        | {key: tag[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in tag},
        tokenizer_json=clip_tokenizer_json(),
        context_length=config["text_cfg"].get("context_length", 77),
        source=f"open_clip {name} {pretrained}" if pretrained else "random",
        name=name,
    )
    return prepare(towers, lock, lock_norms, logit_scale, logit_bias)


def from_folder(
    path: str,
    lock: Sequence[str] | Mapping[str, int] | None = None,
    lock_norms: bool = True,
    logit_scale: float | None = None,
    logit_bias: float | None = None,
) -> Towers:
    """A model folder that `pathclip train` wrote, to go on from or to fine-tune.

    Args:
        path: the folder.
        lock: as in `from_open_clip`, and for a folder of `from_towers` as there.
        lock_norms: lock the norms of those layers too.
        logit_scale: the factor to start with; the folder's if None.
        logit_bias: to start with; the folder's if None.

    Raises:
        ModelFolderError: the folder is incomplete, changed, or holds no torch weights.
        ConfigError: an unknown tower, or too many layers of it.
    """
    folder = open_model_folder(path)
    towers = load_towers(folder)
    towers.source = f"{folder.card.get('name')} {folder.hash[:12]}"
    return prepare(towers, lock, lock_norms, logit_scale, logit_bias)


def _refuse_other_vocabularies(name: str, config: Mapping[str, Any]) -> None:
    text = config.get("text_cfg", {})
    if any(key in text for key in ("hf_model_name", "hf_tokenizer_name")):
        raise ConfigError(
            f"model.name: '{name}' needs a tokenizer of its own from the hub; only models with CLIP's "
            "vocabulary can be built here"
        )


def clip_preprocess_cfg(size: int | Sequence[int]) -> dict[str, Any]:
    """open_clip's `preprocess_cfg` as OpenAI's CLIP learnt, for pictures of a size in pixels."""
    return {
        "size": size if isinstance(size, int) else list(size),
        "mode": "RGB",
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "fill_color": 0,
    }
