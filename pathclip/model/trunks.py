"""A timm image trunk beside a Hugging Face text trunk, each with a linear projection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pathclip.config import nearest
from pathclip.errors import ConfigError
from pathclip.model.modules import custom_module
from pathclip.model.starting_weights import (
    load_image_file,
    load_image_trunk,
    load_text_trunk,
    plain_tokenizer,
    text_folder,
)
from pathclip.model.towers import TOKENIZER, Towers, prepare, refuse_foreign_code
from pathclip.model_folder import read_json

PACKAGED_TEXT = "all-MiniLM-L6-v2"
_POOLERS = {"mean": "mean_pooler", "cls": "cls_last_hidden_state_pooler"}


def from_towers(
    image: str = "tf_efficientnet_lite0",
    text: str = PACKAGED_TEXT,
    image_size: int | None = 160,
    context_length: int = 64,
    embed_dim: int = 256,
    pretrained: bool | Sequence[Literal["image", "text"]] = True,
    image_weights: str | None = None,
    image_pool: str | None = "avg",
    text_pool: Literal["mean", "cls"] = "mean",
    lock: Sequence[str] | Mapping[str, int] | None = None,
    lock_norms: bool = True,
    patch_dropout: float = 0.0,
    logit_scale: float | None = None,
    logit_bias: float | None = None,
    text_layers: int | None = None,
    name: str | None = None,
) -> Towers:
    """A timm image tower beside a sentence encoder, each with a linear projection.

    With the defaults both start from weights that ordinary packages bring, so no hub is needed:
    EfficientNet-Lite0 (ImageNet) and all-MiniLM-L6-v2.

    Args:
        image: timm's name; packaged weights are known for 'tf_efficientnet_lite0'.
        text: 'all-MiniLM-L6-v2', or a folder with a Hugging Face text model and `tokenizer.json`.
        image_size: pixels; timm's own for this trunk if None.
        context_length: tokens.
        embed_dim: length of an embedding.
        pretrained: towers that start from the packaged weights or from those in the text model's folder;
            True is both, False starts at random.
        image_weights: a file of timm's weights for the trunk (.safetensors, or .bin or .pth of tensors).
        image_pool: how timm pools: 'avg', 'token' …; the trunk's own way if None.
        text_pool: mean over the tokens, or the first one.
        lock: towers whose trunks stay as they are, or tower → number of layers at the top that are
            trained; the projections always are. See `pathclip.model.freeze.lock_layers`.
        lock_norms: lock the norms of those layers too.
        patch_dropout: share of the patches that a training step leaves out (Li et al. 2023).
        logit_scale: the factor to start with; CLIP's 1 / 0.07 if None. SigLIP starts at 10.
        logit_bias: to start with; none if None. SigLIP starts at -10.
        text_layers: keep only that many layers of the text tower (for tests).
        name: of the model in cards and reports; by default the names of the towers.

    Raises:
        ConfigError: an unknown tower, weights that this installation does not have or that do not fit, or a
            size that a trunk cannot take.
    """
    import timm

    if image not in timm.list_models():
        raise ConfigError(f"model.image: timm has no '{image}'.{nearest(image, timm.list_models())}")
    if not 0 <= patch_dropout < 1:
        raise ConfigError(f"model.patch_dropout: a share from 0 up to, not including, 1; not {patch_dropout}")
    start = _towers_with_weights(pretrained)
    folder = text_folder(text)
    text_config = _text_config(folder, text, text_layers, context_length)
    timm_config: Any = timm.models.get_pretrained_cfg(image)
    size = _image_size(image, image_size, timm_config)
    text_name = text if text == PACKAGED_TEXT else folder.name
    config: dict[str, Any] = {
        "embed_dim": embed_dim,
        "vision_cfg": {
            "timm_model_name": image,
            "timm_model_pretrained": False,
            "timm_pool": image_pool or "",
            "timm_proj": "linear",
            "image_size": size,
        },
        "text_cfg": {
            "hf_model_name": f"sentence-transformers/{text_name}",
            "hf_tokenizer_name": f"sentence-transformers/{text_name}",
            "hf_model_pretrained": False,
            "hf_proj_type": "linear",
            "hf_pooler_type": _POOLERS[text_pool],
            "context_length": context_length,
        },
    }
    if patch_dropout:
        config["vision_cfg"]["patch_dropout"] = patch_dropout
    model = custom_module(config, text_config)
    if image_weights:
        load_image_file(model, image, Path(image_weights))
    elif "image" in start:
        load_image_trunk(model, image)
    if "text" in start:
        load_text_trunk(model, folder, text_layers)
    sources = [
        f"{image} ({Path(image_weights).name if image_weights else 'ImageNet'})"
        if image_weights or "image" in start
        else "",
        text_name if "text" in start else "",
    ]
    towers = Towers(
        model=model,
        model_cfg=config,
        preprocess_cfg={
            "size": size,
            "mode": "RGB",
            "mean": list(timm_config.mean),
            "std": list(timm_config.std),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
            "fill_color": 0,
        },
        tokenizer_json=plain_tokenizer(folder / TOKENIZER),
        context_length=context_length,
        text_config=text_config,
        source=" + ".join(filter(None, sources)) or "random",
        name=name or f"{image}+{text_name}",
    )
    return prepare(towers, lock, lock_norms, logit_scale, logit_bias)


def _towers_with_weights(pretrained: bool | Sequence[str]) -> set[str]:
    if isinstance(pretrained, bool):
        return {"image", "text"} if pretrained else set()
    for tower in pretrained:
        if tower not in ("image", "text"):
            raise ConfigError(f"model.pretrained: '{tower}' is neither 'image' nor 'text'")
    return set(pretrained)


def _text_config(folder: Path, text: str, layers: int | None, context_length: int) -> dict[str, Any]:
    from open_clip.hf_configs import arch_dict
    from transformers import AutoConfig

    refuse_foreign_code(read_json(folder / "config.json"), folder / "config.json")
    config = dict(AutoConfig.from_pretrained(str(folder)).to_dict())
    kind, longest = config.get("model_type"), config.get("max_position_embeddings")
    if kind not in arch_dict:
        raise ConfigError(
            f"model.text={text}: open_clip has no text tower of type '{kind}'; it has {', '.join(arch_dict)}"
        )
    # RoBERTa counts positions from the one after its padding id.
    offset = config.get("pad_token_id", 0) + 1 if "roberta" in str(kind) else 0
    if longest and context_length > longest - offset:
        raise ConfigError(
            f"model.context_length={context_length}: the text tower takes at most {longest - offset} tokens"
        )
    if layers:
        config["num_hidden_layers"] = layers
    return config


def _image_size(image: str, asked: int | None, timm_config: Any) -> int:
    own = int(timm_config.input_size[-1])
    if timm_config.fixed_input_size and asked not in (None, own):
        raise ConfigError(f"model.image_size={asked}: {image} takes pictures of {own} pixels only")
    return asked or own
