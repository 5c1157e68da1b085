"""A tiny model of each kind of tower that can be trained, with random weights."""

from __future__ import annotations

import json
from pathlib import Path

from pathclip.model.build import from_open_clip, from_towers
from pathclip.model.towers import Towers

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"layers": 3, "width": 64, "patch_size": 8},
    "text_cfg": {"layers": 3, "width": 32, "heads": 2},
}
RESNET = {
    "embed_dim": 32,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64},
    "text_cfg": {"layers": 2, "width": 32, "heads": 2},
}
COCA = {
    "embed_dim": 32,
    "vision_cfg": {"layers": 2, "width": 64, "patch_size": 8, "attn_pooler_heads": 2},
    "text_cfg": {"layers": 2, "width": 32, "heads": 2},
    "multimodal_cfg": {"layers": 2, "width": 32, "heads": 2},
}
KINDS = ("open_clip", "custom text", "resnet", "coca", "timm vit and bert", "timm efficientnet and bert")


def towers_of(kind: str, bert: Path, **options) -> Towers:
    """The model; `bert` is a folder of `write_bert`, `options` are those of the builder."""
    if kind == "timm vit and bert":
        options = {"image_size": None, "image_pool": None, "pretrained": [], **options}
        return from_towers("test_vit", str(bert), embed_dim=16, context_length=16, **options)
    if kind == "timm efficientnet and bert":
        options = {"image_size": 64, "pretrained": [], **options}
        return from_towers("test_efficientnet", str(bert), embed_dim=16, context_length=16, **options)
    name, overrides = {
        "open_clip": ("ViT-B-32", TINY),
        "custom text": ("ViT-B-32", {**TINY, "custom_text": True}),
        "resnet": ("RN50", RESNET),
        "coca": ("coca_ViT-B-32", COCA),
    }[kind]
    size = 64 if kind == "resnet" else 32
    return from_open_clip(name, image_size=size, context_length=16, overrides=overrides, **options)


def write_bert(folder: Path, head: bool = False) -> Path:
    """A random BERT of three layers as transformers saves it, with a tokenizer of a few words."""
    from transformers import BertConfig, BertForMaskedLM, BertModel

    config = BertConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=40,
    )
    (BertForMaskedLM if head else BertModel)(config).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "benign", "naevus", "colon", "adenocarcinoma"]
    ids = {word: number for number, word in enumerate(words)}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": ids,
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder
