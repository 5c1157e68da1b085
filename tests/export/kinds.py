"""Small random towers of every kind that can be exported: a few layers, the parts of the real ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pathclip.model.modules import custom_module, open_clip_module

CONTEXT_LENGTH = 16
WORDS = 1000
WIDTH = 32
VIT = {"image_size": 48, "layers": 2, "width": 64, "head_width": 16, "patch_size": 16}
TEXT = {"layers": 2, "width": 32, "heads": 2, "context_length": CONTEXT_LENGTH, "vocab_size": WORDS}
POOLER = {"attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 4}
HUGGING_FACE = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    **{"vocab_size": WORDS, "max_position_embeddings": 40},
}


def _open_clip(vision: dict[str, Any], text: dict[str, Any] | None = None, **entries: Any) -> Any:
    config = {"embed_dim": WIDTH, "vision_cfg": vision, "text_cfg": {**TEXT, **(text or {})}, **entries}
    return lambda: open_clip_module(config)


def _timm(name: str, size: int, pool: str = "avg", projection: str = "linear") -> Any:
    vision = {"timm_model_name": name, "timm_pool": pool, "timm_proj": projection, "image_size": size}
    return _open_clip(vision, custom_text=True)


def _coca() -> Any:
    text = {"embed_cls": True, "output_tokens": True}
    decoder = {"layers": 1, "width": 32, "heads": 2, "context_length": CONTEXT_LENGTH, "vocab_size": WORDS}
    return _open_clip({**VIT, **POOLER, "output_tokens": True}, text, multimodal_cfg=decoder)


def _hugging_face(kind: str, pooler: str, **entries: Any) -> Any:
    text = {"hf_model_name": kind, "hf_proj_type": "linear", "hf_pooler_type": pooler}
    config = {"embed_dim": WIDTH, "vision_cfg": VIT, "text_cfg": {**text, "context_length": CONTEXT_LENGTH}}
    return lambda: custom_module(config, {"model_type": kind, **HUGGING_FACE, **entries})


# kind → what builds the model, and the size of its pictures
IMAGE_KINDS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "vit": (_open_clip({**VIT, "patch_size": 8}), 48),
    "vit with QuickGELU": (_open_clip({**VIT, "image_size": 56, "patch_size": 14}, quick_gelu=True), 56),
    "vit with patch dropout": (_open_clip({**VIT, "patch_dropout": 0.5}), 48),
    "vit with attentional pooling": (_open_clip({**VIT, **POOLER}), 48),
    "coca": (_coca(), 48),
    "open_clip resnet": (_open_clip({"layers": [1, 1, 1, 1], "width": 8, "image_size": 64}), 64),
    "timm vit": (_timm("test_vit", 160, "token"), 160),
    "timm vit with map pooling": (_timm("test_vit3", 160, "map", "none"), 160),
    "convnext": (_timm("test_convnext", 64), 64),
    "timm resnet": (_timm("test_resnet", 64), 64),
    "efficientnet": (_timm("test_efficientnet", 64), 64),
}
LARGE_IMAGE_KINDS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "vit_tiny": (_timm("vit_tiny_patch16_224", 224, "token"), 224),
    "convnext_tiny": (_timm("convnext_tiny", 224), 224),
    "convnextv2_atto": (_timm("convnextv2_atto", 96), 96),
    "resnet50": (_timm("resnet50", 128), 128),
    "efficientnet_b0": (_timm("efficientnet_b0", 128), 128),
    "efficientnet_lite0": (_timm("tf_efficientnet_lite0", 128), 128),
    "siglip": (_timm("vit_base_patch16_siglip_224", 224, "map", "none"), 224),
    "swin_tiny": (_timm("swin_tiny_patch4_window7_224", 224), 224),
}
TEXT_KINDS: dict[str, Callable[[], nn.Module]] = {
    "clip": _open_clip(VIT),
    "siglip": _open_clip(
        VIT,
        {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}},
        custom_text=True,
    ),
    "coca": _coca(),
    "bert, mean": _hugging_face("bert", "mean_pooler"),
    "bert, first token": _hugging_face("bert", "cls_last_hidden_state_pooler"),
    "bert, its own pooler": _hugging_face("bert", "cls_pooler"),
    "roberta, mean": _hugging_face("roberta", "mean_pooler", pad_token_id=1, bos_token_id=0, eos_token_id=2),
}


def build(make: Callable[[], nn.Module], size: int = 48) -> nn.Module:
    """The model in eval mode, the same in every run, with weights by which its inputs tell themselves apart.

    Libraries start so small that a tower gives nearly one embedding for all inputs, of which rounding would
    be the larger part; and with statistics of norms that are 0 and 1, which any folding of them would pass.
    """
    torch.manual_seed(0)
    model: Any = make().eval()
    norms = []
    for part in model.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            part.weight.data.normal_(std=part.weight[0].numel() ** -0.5)
        elif isinstance(part, nn.MultiheadAttention) and part.in_proj_weight is not None:
            part.in_proj_weight.data.normal_(std=part.embed_dim**-0.5)
        elif isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # of one batch, all of it
            norms.append(part.train())
        if isinstance(part, nn.BatchNorm2d | nn.LayerNorm) and part.weight is not None:
            part.weight.data.uniform_(0.7, 1.3)
            part.bias.data.uniform_(-0.1, 0.1)
    if norms:
        with torch.no_grad():
            model.encode_image(nn.functional.interpolate(torch.randn(16, 3, 8, 8), size=(size, size)))
        for norm in norms:
            norm.eval()
    return model
