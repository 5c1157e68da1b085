"""Small random dual encoders, saved as open_clip and transformers save theirs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

SIZE = 32
TEXTS = [
    "an H&E image of lung adenocarcinoma",
    "SIGNET ring cells;  in a\tgastric biopsy",
    "",
    "Crohn&amp;s disease, naïve – ‘quoted’ 50 µm 🔬",
    "word " * 60,
]
MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": SIZE, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
BERT = {
    **{"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"intermediate_size": 64, "vocab_size": 30, "max_position_embeddings": 40, "pad_token_id": 0},
}


def pictures() -> list[Image.Image]:
    """Of noise, in sizes that leave even and odd borders."""
    rng = np.random.default_rng(0)
    sizes = [(32, 32), (40, 30), (31, 57), (100, 97), (33, 35), (200, 50), (64, 71), (35, 32), (16, 23)]
    coarse = [rng.integers(0, 256, (max(2, h // 4), max(2, w // 4), 3), np.uint8) for w, h in sizes]
    return [
        Image.fromarray(a).resize(size, Image.Resampling.BILINEAR)
        for a, size in zip(coarse, sizes, strict=True)
    ]


def write_open_clip(
    folder: Path, model_cfg: Mapping[str, Any] = MODEL, preprocess: Mapping[str, Any] | None = None
) -> Path:
    """As `open_clip.push_to_hf_hub.save_for_hf` writes it, without files of a tokenizer."""
    from open_clip.coca_model import CoCa
    from open_clip.model import CLIP, CustomTextCLIP

    torch.manual_seed(0)
    folder.mkdir(parents=True)
    arguments = json.loads(json.dumps(model_cfg))
    custom = arguments.pop("custom_text", False) or "hf_model_name" in arguments["text_cfg"]
    kind = CoCa if "multimodal_cfg" in arguments else CustomTextCLIP if custom else CLIP
    model: Any = kind(**arguments)
    model.logit_scale.data.fill_(3.0)
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    described = {"model_cfg": model_cfg, "preprocess_cfg": preprocess or {"size": SIZE}}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    return folder


def write_bert_tokenizer(folder: Path) -> None:
    """A word list as transformers saves one."""
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "an", "h", "&", "e", "image", "of", "lung", "word"]
    vocabulary = {word: number for number, word in enumerate(words)}
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)


def write_transformers(folder: Path, eos_token_id: int = 49407, **preprocessor: Any) -> Path:
    """As `CLIPModel` and `CLIPProcessor` save themselves."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    CLIPModel(
        CLIPConfig(
            text_config={**shape, "max_position_embeddings": 20, "eos_token_id": eos_token_id},
            vision_config={**shape, "image_size": SIZE, "patch_size": 8},
            projection_dim=16,
        )
    ).save_pretrained(folder)
    source = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    CLIPTokenizer(
        vocab={names.get(word, word): number for word, number in source.encoder.items()},
        merges=list(source.bpe_ranks),
        model_max_length=20,
    ).save_pretrained(folder)
    given = {"size": {"shortest_edge": SIZE}, "crop_size": SIZE, **preprocessor}
    CLIPImageProcessorPil(**given).save_pretrained(folder)
    return folder


def write_siglip(folder: Path) -> Path:
    """As `SiglipModel` and `SiglipProcessor` save themselves, with a tokenizer of its own training."""
    from transformers import SiglipConfig, SiglipModel, SiglipTokenizer
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    register_siglip_trunk()
    torch.manual_seed(0)
    write_sentencepiece(folder / "spiece.model")
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = SiglipModel(
        SiglipConfig(
            text_config={**shape, "vocab_size": VOCABULARY, "max_position_embeddings": 16},
            vision_config={**shape, "image_size": SIZE, "patch_size": 8},
        )
    )
    model.logit_scale.data.fill_(2.0)
    model.logit_bias.data.fill_(-7.0)
    with torch.no_grad():  # biases too, which begin at 0
        for parameter in model.parameters():
            if parameter.ndim == 1 and len(parameter) > 1:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    SiglipTokenizer(str(folder / "spiece.model"), model_max_length=16).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder


VOCABULARY = 150


def write_sentencepiece(file: Path) -> None:
    """A small unigram model of T5's kind: padding 0, end 1, unknown 2."""
    import sentencepiece

    from tests.model.captions import captions

    file.parent.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text.lower() for text in captions() if text.strip()]),
        model_prefix=str(file.with_suffix("")),
        vocab_size=VOCABULARY,
        character_coverage=0.98,
        **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "minloglevel": 2, "num_threads": 1},
    )
    file.with_suffix(".vocab").unlink()


def register_siglip_trunk() -> None:
    """A tower of timm like its 'vit_base_patch16_siglip_224', but small."""
    import timm
    from timm.models.vision_transformer import VisionTransformer

    if "vit_tiny_patch8_siglip_32" in timm.list_models():
        return

    def vit_tiny_patch8_siglip_32(pretrained: bool = False, **options: Any) -> Any:
        for key in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
            options.pop(key, None)
        shape = {
            "img_size": SIZE,
            "patch_size": 8,
            "embed_dim": 32,
            "depth": 2,
            "num_heads": 2,
            "mlp_ratio": 2,
        }
        options = {"class_token": False, "global_pool": "map", **options}
        model = VisionTransformer(**shape, **options)
        model.default_cfg = model.pretrained_cfg = {"input_size": (3, SIZE, SIZE)}
        return model

    timm.models.register_model(vit_tiny_patch8_siglip_32)


def write_openai(file: Path, **vision: Any) -> Any:
    """A state dict as OpenAI's `clip` package has it, in half precision; returns the model in fp32."""
    from open_clip.model import CLIP

    torch.manual_seed(0)
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": SIZE, "layers": 2, "width": 128, "patch_size": 8, **vision},
        "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 2},
        "quick_gelu": True,
    }
    model: Any = CLIP(**config)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half().float())
    model.logit_scale.data.fill_(3.0)
    numbers = {"input_resolution": SIZE, "context_length": 20, "vocab_size": 49408}
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**state, **{name: torch.tensor(value) for name, value in numbers.items()}}, file)
    return model.eval()
