"""transformers' `SiglipModel` as open_clip has SigLIP: a timm trunk beside a text tower of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pathclip.errors import ModelFolderError
from pathclip.model.convert.blocks import OPEN_CLIP, TIMM, norm_settings, rename_blocks, tower_shape
from pathclip.model.foreign_folder import ForeignFolder

_ACT = "gelu_pytorch_tanh"
_TRUNK_EPS = 1e-6


def siglip_model_cfg(described: ForeignFolder) -> dict[str, Any]:
    """open_clip's `model_cfg` of a folder of `SiglipModel`.

    Its `act_kwargs` of the image tower make the trunk as exact as transformers' here; open_clip itself
    overlooks them and runs the trunk with another GELU, as it does with its own SigLIP weights.

    Raises:
        ModelFolderError: what open_clip and timm cannot express; names the entry.
    """
    from transformers import SiglipConfig

    name = str(described.path / "config.json")
    config: Any = SiglipConfig(**described.config)
    text, vision = config.text_config, config.vision_config
    for tower in (text, vision):
        if tower.hidden_act != _ACT:
            raise ModelFolderError(
                f"{name}: hidden_act {tower.hidden_act!r} cannot be expressed, only {_ACT}"
            )
    if vision.num_channels != 3 or not vision.vision_use_head or vision.layer_norm_eps != _TRUNK_EPS:
        raise ModelFolderError(
            f"{name}: vision_config must have num_channels 3, vision_use_head, layer_norm_eps {_TRUNK_EPS}"
        )
    if vision.hidden_size != described.embed_dim:
        raise ModelFolderError(
            f"{name}: embeddings of {vision.hidden_size} for pictures but {described.embed_dim} for texts"
        )
    tanh = {"act_kwargs": {"approximate": "tanh"}}
    return {
        "embed_dim": described.embed_dim,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": vision.image_size,
            "timm_model_name": _trunk(vision, name),
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
            **tanh,
        },
        "text_cfg": {
            **tower_shape(text, f"{name}: text_config"),
            "heads": text.num_attention_heads,
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "hf_tokenizer_name": "tokenizer",
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            **norm_settings(text),
            **tanh,
        },
    }


def siglip_tensors(tensors: Mapping[str, Tensor], model_cfg: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of `SiglipModel` by open_clip's and timm's names.

    Raises:
        KeyError: one that is missing.
    """
    trunk, head = "visual.trunk.", "vision_model.head."
    width = model_cfg["embed_dim"]
    found = {
        "logit_scale": tensors["logit_scale"].reshape(()),
        "logit_bias": tensors["logit_bias"].reshape(()),
        f"{trunk}pos_embed": tensors["vision_model.embeddings.position_embedding.weight"][None],
        f"{trunk}attn_pool.latent": tensors[f"{head}probe"],
        "text.token_embedding.weight": tensors["text_model.embeddings.token_embedding.weight"],
        "text.positional_embedding": tensors["text_model.embeddings.position_embedding.weight"],
    }
    for kind in ("weight", "bias"):
        found[f"{trunk}patch_embed.proj.{kind}"] = tensors[f"vision_model.embeddings.patch_embedding.{kind}"]
        found[f"{trunk}norm.{kind}"] = tensors[f"vision_model.post_layernorm.{kind}"]
        joined = tensors[f"{head}attention.in_proj_{kind}"]
        found[f"{trunk}attn_pool.q.{kind}"] = joined[:width]
        found[f"{trunk}attn_pool.kv.{kind}"] = joined[width:]
        found[f"{trunk}attn_pool.proj.{kind}"] = tensors[f"{head}attention.out_proj.{kind}"]
        found[f"{trunk}attn_pool.norm.{kind}"] = tensors[f"{head}layernorm.{kind}"]
        for layer in ("fc1", "fc2"):
            found[f"{trunk}attn_pool.mlp.{layer}.{kind}"] = tensors[f"{head}mlp.{layer}.{kind}"]
        found[f"text.ln_final.{kind}"] = tensors[f"text_model.final_layer_norm.{kind}"]
        found[f"text.text_projection.{kind}"] = tensors[f"text_model.head.{kind}"]
    blocks = len({name.split(".")[3] for name in tensors if name.startswith("vision_model.encoder.layers.")})
    found |= rename_blocks(tensors, "vision_model", blocks, f"{trunk}blocks", TIMM)
    layers = model_cfg["text_cfg"]["layers"]
    found |= rename_blocks(tensors, "text_model", layers, "text.transformer.resblocks", OPEN_CLIP)
    return found


def _trunk(vision: Any, name: str) -> str:
    """Timm's name of the trunk with these sizes."""
    import timm
    import torch

    side, patch = vision.image_size, vision.patch_size
    wanted = (vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads)
    for candidate in timm.list_models(f"vit_*_patch{patch}_siglip_{side}"):
        with torch.device("meta"):
            trunk: Any = timm.create_model(candidate, num_classes=0)
        block = trunk.blocks[0]
        found = (trunk.embed_dim, len(trunk.blocks), block.attn.num_heads)
        if found == wanted and block.mlp.fc1.out_features == vision.intermediate_size:
            return str(candidate)
    raise ModelFolderError(
        f"{name}: timm has no SigLIP tower of {vision.num_hidden_layers} layers of {vision.hidden_size} for "
        f"pictures of {side} in patches of {patch}"
    )
