"""Folders of other libraries give the numbers of the library that saved them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import open_clip
import pytest
import torch

from pathclip.errors import ModelFolderError
from pathclip.model.foreign_encoder import ForeignEncoder
from pathclip.model.foreign_folder import open_foreign_folder
from pathclip.runtime.encoder import Encoder
from pathclip.runtime.preprocess import Preprocess
from tests.model.foreign_models import (
    BERT,
    MODEL,
    SIZE,
    TEXTS,
    pictures,
    write_bert_tokenizer,
    write_open_clip,
    write_transformers,
)

TOLERANCE = 1e-5
PREPROCESSES = {
    "as open_clip's default": {"size": SIZE},
    "longest side, padded": {"resize_mode": "longest", "fill_color": 120, "interpolation": "bilinear"},
    "squashed, own colours": {"resize_mode": "squash", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25]},
    "training's random choice": {"interpolation": "random", "mean": None},
    "another size than the tower's": {"size": 224},
}
MODELS = {
    "custom_text": {**MODEL, "custom_text": True, "init_logit_bias": -10},
    "quick_gelu": {**MODEL, "quick_gelu": True},
    "timm": {**MODEL, "vision_cfg": {"timm_model_name": "test_vit", "image_size": 160, "timm_pool": "avg"}},
    "resnet": {**MODEL, "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16}},
    "not square": {**MODEL, "vision_cfg": {**MODEL["vision_cfg"], "image_size": [24, SIZE]}},
    "coca": {
        **{**MODEL, "custom_text": True, "multimodal_cfg": {**MODEL["text_cfg"], "attn_pooler_heads": 2}},
        "text_cfg": {**MODEL["text_cfg"], "embed_cls": True, "output_tokens": True},
        "vision_cfg": {**MODEL["vision_cfg"], "attentional_pool": True, "output_tokens": True},
    },
}


@pytest.fixture(scope="module")
def transformers_folder(tmp_path_factory):
    return write_transformers(tmp_path_factory.mktemp("transformers") / "plip")


def encode(folder):
    encoder = ForeignEncoder(open_foreign_folder(folder))
    assert isinstance(encoder, Encoder)
    return encoder, encoder.encode_images(pictures(), batch_size=4), encode_each(encoder)


def encode_each(encoder):
    return encoder.encode_texts(TEXTS, batch_size=2)


def assert_same_as_open_clip(folder):
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    encoder, images, texts = encode(folder)
    with torch.no_grad():
        expected = model.encode_image(torch.stack([*map(transform, pictures())]), normalize=True)
        of_texts = model.encode_text(tokenizer(TEXTS), normalize=True)
    assert np.abs(images - expected.numpy()).max() < TOLERANCE
    assert np.abs(texts - of_texts.numpy()).max() < TOLERANCE
    assert encoder.logit_scale == pytest.approx(np.exp(3.0), rel=1e-5)


@pytest.mark.parametrize("name", PREPROCESSES)
def test_an_open_clip_folder_gives_open_clips_numbers_with_every_preprocess(name, tmp_path):
    assert_same_as_open_clip(write_open_clip(tmp_path / "m", preprocess=PREPROCESSES[name]))


@pytest.mark.parametrize("name", MODELS)
def test_an_open_clip_folder_gives_open_clips_numbers_with_every_kind_of_tower(name, tmp_path):
    assert_same_as_open_clip(write_open_clip(tmp_path / "m", MODELS[name]))


def test_a_text_tower_of_transformers_in_an_open_clip_folder_needs_no_hub(tmp_path):
    bert = tmp_path / "m" / "text"
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(json.dumps(BERT))
    text = {"hf_model_name": str(tmp_path / "bert"), "hf_tokenizer_name": "bert", "context_length": 20}
    more = {"hf_model_pretrained": False, "hf_proj_type": "mlp", "hf_pooler_type": "cls_pooler"}
    folder = write_open_clip(tmp_path / "m", {**MODEL, "text_cfg": {**text, **more}})
    write_bert_tokenizer(folder)
    bert.mkdir()
    shutil.copy(tmp_path / "bert" / "config.json", bert)
    assert_same_as_open_clip(folder)


@pytest.mark.parametrize(
    "preprocessor",
    [
        {},
        {"resample": 2, "image_mean": [0.5] * 3, "image_std": [0.25, 0.5, 0.5]},
        {"size": {"height": SIZE, "width": SIZE}, "do_center_crop": False},
    ],
)
def test_a_transformers_folder_gives_the_numbers_of_clip_model_and_its_processor(preprocessor, tmp_path):
    folder = write_transformers(tmp_path / "m", **preprocessor)
    encoder, images, texts = encode(folder)
    of_images, of_texts = by_transformers(folder)
    assert np.abs(images - of_images).max() < TOLERANCE
    assert np.abs(texts - of_texts).max() < TOLERANCE
    assert encoder.logit_scale == pytest.approx(np.exp(2.6592), rel=1e-4)


def test_the_end_of_a_text_is_found_as_old_configs_ask_for(tmp_path):
    folder = write_transformers(tmp_path / "m", eos_token_id=2)
    assert np.abs(encode(folder)[2] - by_transformers(folder)[1]).max() < TOLERANCE


def test_a_vocabulary_and_merges_do_for_a_tokenizer(transformers_folder, tmp_path):
    folder = shutil.copytree(transformers_folder, tmp_path / "m")
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, model["merges"])))
    (folder / "tokenizer.json").unlink()
    encoder = ForeignEncoder(open_foreign_folder(folder))
    assert np.array_equal(encode_each(encoder), encode(transformers_folder)[2])
    assert set(encoder.folder.card["files"]) >= {"vocab.json", "merges.txt"}


def test_half_precision_weights_run_in_fp32(transformers_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(transformers_folder, tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    save_file({name: value.half() for name, value in weights.items()}, folder / "model.safetensors")
    encoder, images, _ = encode(folder)
    assert images.dtype == np.float32 and encoder.precision == "fp32"
    assert 0 < np.abs(images - encode(transformers_folder)[1]).max() < 0.01


def test_the_card_in_memory_holds_what_decides_the_embeddings(transformers_folder, tmp_path):
    encoder = ForeignEncoder(open_foreign_folder(transformers_folder))
    card = encoder.folder.card
    assert Preprocess.from_card(card["preprocess"]) == encoder.preprocess
    assert (encoder.name, card["context_length"], card["embed_dim"]) == ("plip", 20, 16)
    assert encoder.folder.hash == ForeignEncoder(open_foreign_folder(transformers_folder)).folder.hash
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        changed = shutil.copytree(transformers_folder, tmp_path / name / "plip")
        content = (changed / name).read_bytes()
        # A space at the end of JSON, a bit of a weight: as little as can change.
        (changed / name).write_bytes(content + b" " if name.endswith("json") else content[:-1] + b"\x01")
        assert ForeignEncoder(open_foreign_folder(changed)).folder.hash != encoder.folder.hash, name


@pytest.mark.parametrize("kind", ["open_clip", "transformers"])
def test_weights_that_do_not_fit_the_config_get_one_line(kind, transformers_folder, tmp_path):
    if kind == "open_clip":
        folder, file = write_open_clip(tmp_path / "m"), "open_clip_config.json"
        config = json.loads((folder / file).read_text())
        config["model_cfg"]["vision_cfg"]["width"] = 64
    else:
        folder, file = shutil.copytree(transformers_folder, tmp_path / "m"), "config.json"
        config = json.loads((folder / file).read_text())
        config["vision_config"]["num_hidden_layers"] = 3
    (folder / file).write_text(json.dumps(config))
    with pytest.raises(ModelFolderError, match=f"m: {kind} cannot build it: ") as caught:
        ForeignEncoder(open_foreign_folder(folder))
    assert "\n" not in str(caught.value)


def by_transformers(folder):
    from transformers import CLIPModel, CLIPProcessor, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    processor = CLIPProcessor(
        CLIPImageProcessorPil.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
    )
    given = processor(text=TEXTS, images=pictures(), padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        images = model.get_image_features(given["pixel_values"]).pooler_output
        texts = model.get_text_features(given["input_ids"], given["attention_mask"]).pooler_output
    return [torch.nn.functional.normalize(one, dim=-1).numpy() for one in (images, texts)]
