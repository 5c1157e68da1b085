import copy
import math
from functools import partial
from pathlib import Path

import open_clip
import pytest
import torch

from pathclip.errors import ConfigError, ModelFolderError
from pathclip.model.build import from_folder, from_open_clip, from_towers
from pathclip.model.towers import checkpoint_gradients, refuse_foreign_code
from pathclip.train.frozen_text import FrozenText
from tests.model.each_kind import KINDS, TINY, towers_of, write_bert


def example(towers, n=4):
    generator = torch.Generator().manual_seed(0)
    size = towers.preprocess_cfg["size"]
    tokens = torch.randint(1, 90, (n, 16), generator=generator)
    tokens[:, 9:] = 0
    return torch.randn(n, 3, size, size, generator=generator), tokens


def gradients(towers, pixels, tokens):
    model = towers.model.train()
    towers.still()
    model.zero_grad()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if hasattr(model, "text_decoder"):
            out = model(pixels, tokens)
            out["logits"].logsumexp(-1).mean().backward(retain_graph=True)
            image, text = out["image_features"], out["text_features"]
        else:
            image, text = model.encode_image(pixels), model.encode_text(tokens)
        (image @ text.T).square().mean().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def recomputed(towers):
    """How many blocks run again on the way back."""
    calls = []
    forward = torch.nn.Linear.forward

    def counted(self, *arguments):
        calls.append(torch._C._current_graph_task_id() != -1)
        return forward(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Linear, "forward", counted)
        gradients(towers, *example(towers))
    return sum(calls)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "resnet"])
@pytest.mark.parametrize("lock", [None, {"text": 0}, {"text": 1}])
def test_gradients_and_statistics_are_the_same_with_checkpoints(kind, lock, bert):
    plain = towers_of(kind, bert, lock=lock)
    thrifty = copy.deepcopy(plain)
    checkpoint_gradients(thrifty)
    pixels, tokens = example(plain)
    expected, found = gradients(plain, pixels, tokens), gradients(thrifty, pixels, tokens)
    assert expected.keys() == found.keys() and expected
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=1e-5)
    for (name, mine), (_, theirs) in zip(
        thrifty.model.named_buffers(), plain.model.named_buffers(), strict=True
    ):
        if "running" in name:
            assert torch.equal(mine, theirs), name


def test_checkpointed_blocks_are_computed_again_on_the_way_back(bert):
    for kind in ("open_clip", "coca", "timm vit and bert"):
        towers = towers_of(kind, bert)
        assert recomputed(towers) == 0
        checkpoint_gradients(towers)
        assert recomputed(towers) > 0


def test_a_tower_that_cannot_be_checkpointed_is_named(bert):
    with pytest.raises(ConfigError, match="the image tower of RN50 cannot"):
        checkpoint_gradients(towers_of("resnet", bert))
    checkpoint_gradients(towers_of("resnet", bert, lock=["image"]))


@pytest.mark.parametrize(
    "build",
    [
        partial(from_open_clip, "ViT-B-32", image_size=32, context_length=16, overrides=TINY),
        partial(from_towers, "test_efficientnet", image_size=64, pretrained=False, text_layers=1),
    ],
)
def test_logit_scale_and_bias_start_as_given_and_survive_the_folder(build, tmp_path):
    build(logit_scale=10.0, logit_bias=-10.0).save(tmp_path / "model")
    again = from_folder(str(tmp_path / "model"))
    assert again.model.logit_scale.item() == pytest.approx(math.log(10))
    assert again.model.logit_bias.item() == -10
    assert again.card()["logit_scale"] == pytest.approx(10) and again.card()["logit_bias"] == -10
    again.model.logit_bias.data.fill_(-3.0)
    again.save(tmp_path / "trained")
    assert from_folder(str(tmp_path / "trained")).model.logit_bias.item() == -3


def test_open_clip_loads_a_folder_with_a_bias(bert, tmp_path):
    towers_of("open_clip", bert, logit_bias=-10.0).save(tmp_path / "model")
    assert open_clip.create_model(f"local-dir:{tmp_path / 'model'}").logit_bias.item() == -10


def test_a_bias_is_added_to_weights_that_have_none(bert, tmp_path):
    towers = towers_of("open_clip", bert)
    assert towers.model.logit_bias is None
    towers.save(tmp_path / "model")
    file = str(tmp_path / "model" / "open_clip_model.safetensors")
    again = towers_of("open_clip", bert, pretrained=file, logit_scale=10.0, logit_bias=-10.0)
    assert again.model.logit_bias.item() == -10 and again.model.logit_scale.exp().item() == pytest.approx(10)
    torch.testing.assert_close(again.model.visual.proj, towers.model.visual.proj)
    assert from_folder(str(tmp_path / "model"), logit_bias=-5.0).model.logit_bias.requires_grad


def test_a_logit_scale_that_is_no_factor_is_refused(bert):
    with pytest.raises(ConfigError, match=r"model\.logit_scale: a factor above 0"):
        towers_of("open_clip", bert, logit_scale=0.0)


@pytest.mark.parametrize("kind", ["open_clip", "coca", "timm vit and bert"])
def test_patches_are_dropped_in_training_only(kind, bert, tmp_path):
    towers = towers_of(kind, bert, patch_dropout=0.5)
    pixels, _ = example(towers)
    with torch.no_grad():
        towers.model.train()
        assert not torch.equal(towers.model.encode_image(pixels), towers.model.encode_image(pixels))
        towers.model.eval()
        expected = towers.model.encode_image(pixels)
        towers.save(tmp_path / "model")
        again = from_folder(str(tmp_path / "model"))
        assert torch.equal(again.model.train().encode_image(pixels), expected)
    assert "patch_dropout" not in again.model_cfg["vision_cfg"]


@pytest.mark.parametrize("kind", ["resnet", "timm efficientnet and bert"])
def test_patch_dropout_without_patches_is_one_line(kind, bert):
    with pytest.raises(ConfigError, match="no patches to drop"):
        towers_of(kind, bert, patch_dropout=0.5)


@pytest.mark.parametrize("kind", ["open_clip", "timm vit and bert"])
def test_a_share_of_patches_is_below_1(kind, bert):
    with pytest.raises(ConfigError, match=r"patch_dropout: a share"):
        towers_of(kind, bert, patch_dropout=1.0)


@pytest.mark.parametrize(
    ("kind", "options", "serves"),
    [
        ("timm vit and bert", {"lock": ["text"]}, True),
        ("timm vit and bert", {"lock": {"text": 1}}, False),
        ("timm vit and bert", {"lock": ["text"], "lock_norms": False}, False),
        ("timm vit and bert", {}, False),
        ("open_clip", {"lock": ["text"]}, False),
    ],
)
def test_text_features_are_kept_only_where_nothing_of_the_trunk_is_trained(kind, options, serves, bert):
    assert FrozenText.serves(towers_of(kind, bert, **options)) is serves


def test_coca_trains_its_decoder_and_open_clip_loads_its_folder(bert, tmp_path):
    towers = towers_of("coca", bert)
    pixels, tokens = example(towers)
    found = gradients(towers, pixels, tokens)
    assert found["text_decoder.text_projection"].abs().sum() > 0
    towers.save(tmp_path / "model")
    theirs = open_clip.create_model(f"local-dir:{tmp_path / 'model'}").eval()
    ours = from_folder(str(tmp_path / "model")).model
    with torch.no_grad():
        assert torch.equal(theirs.encode_image(pixels), ours.encode_image(pixels))
        assert torch.equal(theirs.encode_text(tokens), ours.encode_text(tokens))
        assert torch.equal(theirs(pixels, tokens)["logits"], ours(pixels, tokens)["logits"])


def test_a_random_coca_is_the_same_for_the_same_seed(bert):
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(towers_of("coca", bert).model.state_dict())
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())
    assert models[0]["text_decoder.text_projection"].std() == pytest.approx(32**-0.5, rel=0.1)


@pytest.mark.slow
def test_the_towers_of_coca_are_exported_with_their_numbers(bert, tmp_path):
    from pathclip.export.graphs.onnx import export_towers

    files = export_towers(towers_of("coca", bert).model.eval(), tmp_path, (32, 32), 16)
    assert all(file.is_file() for file in files.values())


def test_a_text_tower_starts_from_the_weights_of_its_folder(tmp_path):
    from safetensors.torch import load_file

    for head in (False, True):
        folder = write_bert(tmp_path / f"bert-{head}", head=head)
        towers = from_towers(
            "test_vit", str(folder), None, 16, image_pool=None, pretrained=["text"], text_pool="cls"
        )
        saved = load_file(folder / "model.safetensors")
        name = "encoder.layer.1.output.dense.weight"
        given = saved[f"bert.{name}" if head else name]
        assert torch.equal(towers.model.text.transformer.state_dict()[name], given)
        assert towers.source == folder.name


def test_an_image_tower_starts_from_a_file_of_timm(bert, tmp_path):
    import timm
    from safetensors.torch import save_file

    trunk = timm.create_model("test_vit")
    save_file(trunk.state_dict(), tmp_path / "test_vit.safetensors")
    build = partial(towers_of, "timm vit and bert", bert)
    towers = build(image_weights=str(tmp_path / "test_vit.safetensors"))
    name = "blocks.0.attn.qkv.weight"
    assert torch.equal(towers.model.visual.trunk.state_dict()[name], trunk.state_dict()[name])
    config = timm.models.get_pretrained_cfg("test_vit")
    assert towers.preprocess_cfg["mean"] == list(config.mean)
    assert towers.preprocess_cfg["size"] == config.input_size[-1]
    save_file({"blocks.0.attn.qkv.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="no weights of test_vit"):
        build(image_weights=str(tmp_path / "other.safetensors"))
    with pytest.raises(ConfigError, match="no such file"):
        build(image_weights=str(tmp_path / "nowhere.pth"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 80}, "pictures of 160 pixels only"),
        ({"pretrained": ["picture"]}, "neither 'image' nor 'text'"),
        ({"pretrained": ["image"]}, r"model\.image_weights"),
    ],
)
def test_what_a_trunk_cannot_do_is_one_line(options, message, bert):
    with pytest.raises(ConfigError, match=message):
        towers_of("timm vit and bert", bert, **options)


def test_a_text_tower_takes_no_more_tokens_than_it_has_positions(bert):
    with pytest.raises(ConfigError, match="at most 40 tokens"):
        from_towers("test_vit", str(bert), None, 41, image_pool=None, pretrained=[])


def test_weights_of_openai_without_a_network_say_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError) as error:
        from_open_clip("ViT-B-32", pretrained="openai")
    message = str(error.value)
    assert "hf download timm/vit_base_patch32_clip_224.openai open_clip_model.safetensors" in message
    assert "model.name=ViT-B-32-quickgelu model.pretrained=weights/open_clip_model.safetensors" in message
    assert "\n" not in message


def test_a_torchscript_archive_is_not_run(tmp_path):
    script = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    script.save(str(tmp_path / "ViT-B-32.pt"))
    with pytest.raises(ConfigError, match=r"holds a program.*torch\.save\(w, 'weights\.bin'\)"):
        from_open_clip("ViT-B-32-quickgelu", pretrained=str(tmp_path / "ViT-B-32.pt"))


def test_weights_of_openai_come_from_a_local_file(bert, tmp_path):
    towers = towers_of("open_clip", bert)
    halves = {name: value.half() for name, value in towers.model.state_dict().items()}
    torch.save(halves, tmp_path / "weights.bin")
    again = towers_of("open_clip", bert, pretrained=str(tmp_path / "weights.bin"))
    assert again.model.visual.proj.dtype == torch.float32
    torch.testing.assert_close(again.model.visual.proj, towers.model.visual.proj, atol=1e-3, rtol=1e-3)


def test_the_generic_config_builds_from_local_files(bert, tmp_path):
    from pathclip.config import build
    from pathclip.launch import compose

    overrides = [
        "model=timm_huggingface",
        "model.image=test_vit",
        f"model.text={bert}",
        "model.context_length=16",
    ]
    towers = build(compose("train", [*overrides, "model.lock=[text:1]", "data.train=x"]).model, "model")
    assert towers.locked == {"text": 1} and towers.name == f"test_vit+{bert.name}"
    towers.save(tmp_path / "model")
    again = from_folder(str(tmp_path / "model"), lock={"text": 2})
    pixels, tokens = example(again)
    with torch.no_grad():
        assert torch.equal(again.model.eval().encode_image(pixels), towers.model.eval().encode_image(pixels))
        assert torch.equal(again.model.encode_text(tokens), towers.model.encode_text(tokens))


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({"model_type": "llama"}, "'llama' is none of open_clip's"),
        ({"_attn_implementation": "org/kernel"}, "_attn_implementation 'org/kernel' may be code of the hub"),
        ({"sub": {"attn_implementation": "org/kernel"}}, "attn_implementation 'org/kernel' may be code"),
        ({"sub": [{"auto_map": {}}]}, "'auto_map' asks for code"),
    ],
)
def test_a_text_config_that_may_name_code_is_refused_at_any_depth(entries, match):
    with pytest.raises(ModelFolderError, match=match):
        refuse_foreign_code({"model_type": "bert", **entries}, Path("text/config.json"))
