"""A model folder with random weights in the shape of a real one, to time and to export what cannot be had.

python scripts/random_model.py vit_b_32 --out outputs/vit_b_32
python scripts/random_model.py clip_transformers --out outputs/clip
pathclip export model=outputs/vit_b_32 out=outputs/vit_b_32-int8 calibration.shards=outputs/demo/shards/train

Weights as libraries draw them give nearly one embedding for every picture: all cosines are near 1, and a
gate on them says nothing. So weights are drawn with variance 1 / fan-in, batch norms take their statistics
from pictures, and the direction that all embeddings share is taken out of the last projection. Cosines then
spread about 0, and rounding shows. What a gate says of such a model still holds for its arithmetic alone:
trained towers have outlier channels that random ones lack, and there is no truth that answers could hit.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}
SMALL_TEXT = {**TEXT, "width": 256, "heads": 4, "layers": 4}
CLASSES = ["lung adenocarcinoma", "benign colon mucosa", "lymphoma", "adipose tissue"]


def vit(patch: int, width: int, layers: int, embed: int, text: dict[str, int]) -> dict[str, Any]:
    vision = {"image_size": 224, "layers": layers, "width": width, "patch_size": patch}
    return {"embed_dim": embed, "vision_cfg": vision, "text_cfg": text}


def timm(name: str, size: int = 224, pool: str = "avg", projection: str = "linear") -> dict[str, Any]:
    vision = {"timm_model_name": name, "timm_pool": pool, "timm_proj": projection, "image_size": size}
    return {
        **{"embed_dim": 768 if projection == "none" else 256, "custom_text": True},
        **{"vision_cfg": vision, "text_cfg": SMALL_TEXT},
    }


MODELS = {
    "vit_b_32": vit(32, 768, 12, 512, TEXT),
    "vit_b_16": vit(16, 768, 12, 512, TEXT),
    "vit_l_14": vit(14, 1024, 24, 768, {**TEXT, "width": 768, "heads": 12}),
    "vit_tiny": timm("vit_tiny_patch16_224", pool="token"),
    "siglip_b_16": timm("vit_base_patch16_siglip_224", pool="map", projection="none"),
    "convnext_tiny": timm("convnext_tiny"),
    "swin_tiny": timm("swin_tiny_patch4_window7_224"),
    "resnet50": timm("resnet50"),
    "efficientnet_b0": timm("efficientnet_b0"),
    "efficientnet_lite0": timm("tf_efficientnet_lite0", size=160),
    "tiny": {
        **vit(
            8, 64, 2, 32, {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
        ),
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=[*MODELS, "clip_transformers"])
    parser.add_argument("--out", type=Path, required=True, help="folder that is written")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.out.exists():
        parser.error(f"{given.out} exists; name another folder")
    torch.manual_seed(given.seed)
    if given.model == "clip_transformers":
        write_transformers(given.out)
    else:
        write_folder(given.model, given.out)
    print(f"model folder: {given.out}")


def write_folder(name: str, out: Path) -> None:
    """As `pathclip train` leaves one."""
    from pathclip.model.modules import open_clip_module
    from pathclip.model.tokenizer_files import clip_tokenizer_json
    from pathclip.model.towers import Towers
    from pathclip.runtime.classify import TEMPLATES

    config = MODELS[name]
    model: Any = open_clip_module(config).eval()
    size, length = config["vision_cfg"]["image_size"], config["text_cfg"]["context_length"]
    draw_weights(model)
    measure_batch_norms(model, lambda: model.encode_image(pictures(size)))
    with torch.no_grad():
        take_out(model.encode_image(pictures(size)), *last_of_image(model.visual))
        take_out(model.encode_text(texts(length)), *last_of_text(model))
    preprocess = {
        **{"size": size, "mode": "RGB", "interpolation": "bicubic", "resize_mode": "shortest"},
        **{"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]},
        "fill_color": 0,
    }
    towers = Towers(
        model, config, preprocess, clip_tokenizer_json(), length, source="random", name=f"random {name}"
    )
    towers.save(out, {"prompts": {"templates": list(TEMPLATES), "classes": CLASSES}})


def write_transformers(out: Path) -> None:
    """A `CLIPModel` of ViT-B/32 with tokenizer and processor, as transformers saves it."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    text = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 0}
    model: Any = CLIPModel(CLIPConfig(text_config=text)).eval()
    draw_weights(model)
    with torch.no_grad():
        image = model.get_image_features(pixel_values=pictures(224)).pooler_output
        take_out(image, model.visual_projection.weight, 0)
        text_features = model.get_text_features(input_ids=texts(77)).pooler_output
        take_out(text_features, model.text_projection.weight, 0)
    model.save_pretrained(out)
    source = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    CLIPTokenizer(
        vocab={names.get(word, word): number for word, number in source.encoder.items()},
        merges=list(source.bpe_ranks),
        model_max_length=77,
    ).save_pretrained(out)
    CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size=224).save_pretrained(out)


def draw_weights(model: nn.Module) -> None:
    """Every product keeps the variance of what comes in."""
    for part in model.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            part.weight.data.normal_(std=part.weight[0].numel() ** -0.5)
        elif isinstance(part, nn.MultiheadAttention) and part.in_proj_weight is not None:
            part.in_proj_weight.data.normal_(std=part.embed_dim**-0.5)


def measure_batch_norms(model: nn.Module, run: Any) -> None:
    """Statistics of one batch, as training would leave those of many."""
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
    with torch.no_grad():
        run()
    for norm in norms:
        norm.eval()


def take_out(embeddings: Tensor, weight: Tensor, axis: int) -> None:
    """Changes the last projection so that it no longer gives what all embeddings share.

    Args:
        embeddings: float [n, d].
        weight: of the projection, changed in place.
        axis: that of its d outputs.
    """
    shared = nn.functional.normalize(embeddings.mean(dim=0), dim=0)
    along = torch.tensordot(weight, shared, dims=([axis], [0]))
    weight -= torch.stack([along * part for part in shared], dim=axis)


def last_of_image(visual: Any) -> tuple[Tensor, int]:
    """Weight of the last projection, and the axis of its outputs."""
    if getattr(visual, "proj", None) is not None:
        return visual.proj.data, 1
    if hasattr(visual, "attnpool"):
        return visual.attnpool.c_proj.weight.data, 0
    linear = [part for part in visual.modules() if isinstance(part, nn.Linear)]
    return linear[-1].weight.data, 0


def last_of_text(model: Any) -> tuple[Tensor, int]:
    """As `last_of_image`."""
    projection = getattr(model, "text", model).text_projection
    return (projection.weight.data, 0) if isinstance(projection, nn.Linear) else (projection.data, 1)


def pictures(size: int, n: int = 16) -> Tensor:
    """Coarse pictures in the colours of a stain, normalised, [n, 3, size, size]."""
    rng = np.random.default_rng(0)
    colours = rng.normal((200, 140, 180), (30, 40, 30), (n, 1, 1, 3))
    blocks = (colours + rng.normal(0, 35, (n, 12, 12, 3))).clip(0, 255) / 255
    coarse = torch.from_numpy(((blocks - 0.45) / 0.27).astype(np.float32)).permute(0, 3, 1, 2)
    return nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")


def texts(length: int, n: int = 16) -> Tensor:
    """Captions of tissue by CLIP's own tokenizer, int64 [n, length]."""
    from open_clip.tokenizer import SimpleTokenizer

    parts = ["lung", "colon", "breast", "skin", "lymph node", "prostate", "liver", "kidney"]
    captions = [
        f"{stain} of {part}" for stain in ("an H&E image", "immunohistochemistry, CK7,") for part in parts
    ]
    return SimpleTokenizer()(captions[:n], context_length=length)


if __name__ == "__main__":
    main()
