"""transformers' `CLIPModel` (CLIP of OpenAI, PLIP …) as open_clip's `CLIP`: config and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pathclip.errors import ModelFolderError
from pathclip.model.convert.blocks import OPEN_CLIP, norm_settings, rename_blocks, tower_shape
from pathclip.model.foreign_folder import ForeignFolder

_GELUS: dict[str, dict[str, Any]] = {
    "quick_gelu": {},
    "gelu": {},
    "gelu_pytorch_tanh": {"act_kwargs": {"approximate": "tanh"}},
    "gelu_new": {"act_kwargs": {"approximate": "tanh"}},
}
# With this id of the end, as in folders before 2023, transformers takes the highest id of a text for its end.
_END_IS_THE_HIGHEST = 2


def clip_model_cfg(described: ForeignFolder) -> dict[str, Any]:
    """open_clip's `model_cfg` of a folder of `CLIPModel`.

    Raises:
        ModelFolderError: what open_clip cannot express; names the entry.
    """
    from transformers import CLIPConfig

    name = str(described.path / "config.json")
    config: Any = CLIPConfig(**described.config)
    text, vision = config.text_config, config.vision_config
    acts = {text.hidden_act, vision.hidden_act}
    if len(acts) != 1 or not acts <= set(_GELUS):
        raise ModelFolderError(
            f"{name}: hidden_act {' and '.join(sorted(map(repr, acts)))} cannot be expressed; both towers "
            f"must have one of {', '.join(_GELUS)}"
        )
    if vision.num_channels != 3:
        raise ModelFolderError(f"{name}: pictures of {vision.num_channels} channels cannot be expressed")
    (act,) = acts
    return {
        "embed_dim": described.embed_dim,
        "quick_gelu": act == "quick_gelu",
        "vision_cfg": {
            **tower_shape(vision, f"{name}: vision_config"),
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "patch_size": vision.patch_size,
            "image_size": vision.image_size,
            **norm_settings(vision),
            **_GELUS[act],
        },
        "text_cfg": {
            **tower_shape(text, f"{name}: text_config"),
            "heads": text.num_attention_heads,
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            **norm_settings(text),
            **_GELUS[act],
            **_end_of_text(text),
        },
    }


def clip_tensors(tensors: Mapping[str, Tensor], model_cfg: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of `CLIPModel` by open_clip's names.

    Raises:
        KeyError: one that is missing.
    """
    found = {
        "logit_scale": tensors["logit_scale"],
        "visual.class_embedding": tensors["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": tensors["vision_model.embeddings.position_embedding.weight"],
        "visual.conv1.weight": tensors["vision_model.embeddings.patch_embedding.weight"],
        "visual.proj": tensors["visual_projection.weight"].T,
        "token_embedding.weight": tensors["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": tensors["text_model.embeddings.position_embedding.weight"],
        "text_projection": tensors["text_projection.weight"].T,
    }
    for kind in ("weight", "bias"):
        # The library's own spelling.
        found[f"visual.ln_pre.{kind}"] = tensors[f"vision_model.pre_layrnorm.{kind}"]
        found[f"visual.ln_post.{kind}"] = tensors[f"vision_model.post_layernorm.{kind}"]
        found[f"ln_final.{kind}"] = tensors[f"text_model.final_layer_norm.{kind}"]
    for tower, part, into in (
        ("vision_model", "vision_cfg", "visual.transformer.resblocks"),
        ("text_model", "text_cfg", "transformer.resblocks"),
    ):
        found |= rename_blocks(tensors, tower, model_cfg[part]["layers"], into, OPEN_CLIP)
    return found


def _end_of_text(text: Any) -> dict[str, Any]:
    """How the text tower finds the end of a text."""
    end = text.eos_token_id
    if end in (_END_IS_THE_HIGHEST, text.vocab_size - 1):
        return {}
    return {"pool_type": "eos", "eos_id": end}
