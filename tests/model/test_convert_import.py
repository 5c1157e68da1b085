"""Imported folders give the numbers of the library that saved the weights."""

from __future__ import annotations

import json
import shutil

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors.torch import load_file

import pathclip
from pathclip import cli
from pathclip.errors import ConfigError, ModelFolderError
from pathclip.evaluate.evaluate import evaluate
from pathclip.evaluate.subjects import load_subjects
from pathclip.launch import compose
from pathclip.model.build import from_folder
from pathclip.model.convert.import_model import ImportOptions, import_model
from pathclip.model.convert.model_card import stated_licence
from pathclip.model.convert.source import located
from pathclip.model.teacher import Teacher
from pathclip.model_folder import open_model_folder
from tests import tiny_shards
from tests.model.foreign_models import (
    BERT,
    MODEL,
    TEXTS,
    pictures,
    write_bert_tokenizer,
    write_open_clip,
    write_openai,
    write_siglip,
    write_transformers,
)
from tests.model.test_foreign_encoder import MODELS, by_transformers

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    top = tmp_path_factory.mktemp("saved")
    return {
        "open_clip": write_open_clip(top / "open_clip"),
        "transformers": write_transformers(top / "transformers"),
        "siglip": write_siglip(top / "siglip"),
    }


@pytest.fixture
def copy(saved, tmp_path):
    return lambda kind: shutil.copytree(saved[kind], tmp_path / "source")


def import_from(source, out, **options):
    with located(str(source)) as found:
        return import_model(found, out, ImportOptions(**options))


def imported(source, out, **options):
    folder = import_from(source, out, **options)
    encoder = pathclip.load(folder, runtime="torch")
    return encoder, encoder.encode_images(pictures(), batch_size=4), encoder.encode_texts(TEXTS)


def assert_equal(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert np.abs(ours - np.asarray(theirs)).max() < TOLERANCE


def by_open_clip(folder):
    """Of a folder: embeddings, logit scale and bias, by open_clip's own model, transform and tokenizer."""
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    with torch.no_grad():
        images = model.eval().encode_image(torch.stack([*map(transform, pictures())]), normalize=True)
        texts = model.encode_text(tokenizer(TEXTS), normalize=True)
    return images.numpy(), texts.numpy(), model


@pytest.mark.parametrize(
    ("preprocessor", "eos"),
    [
        ({}, 49407),
        ({"resample": 2, "image_mean": [0.5] * 3, "image_std": [0.25, 0.5, 0.5]}, 2),
        ({"size": {"height": 32, "width": 32}, "do_center_crop": False}, 100),
    ],
)
def test_a_clip_model_gives_the_numbers_of_transformers(preprocessor, eos, tmp_path):
    folder = write_transformers(tmp_path / "plip", eos_token_id=eos, **preprocessor)
    encoder, *ours = imported(folder, tmp_path / "out")
    assert_equal(ours, by_transformers(folder))
    scale = float(np.exp(load_file(folder / "model.safetensors")["logit_scale"].item()))
    assert (encoder.logit_scale, encoder.folder.card["logit_bias"]) == (pytest.approx(scale), None)


@pytest.mark.parametrize(("act", "eps"), [("gelu", 1e-5), ("gelu_pytorch_tanh", 1e-3), ("quick_gelu", 1e-2)])
def test_activation_and_epsilon_are_those_of_the_config(act, eps, copy, tmp_path):
    folder = copy("transformers")
    config = json.loads((folder / "config.json").read_text())
    for tower in ("text_config", "vision_config"):
        config[tower] |= {"hidden_act": act, "layer_norm_eps": eps}
    (folder / "config.json").write_text(json.dumps(config))
    assert_equal(imported(folder, tmp_path / "out")[1:], by_transformers(folder))


def test_pickled_tensors_of_a_clip_model_are_read_as_its_safetensors(saved, copy, tmp_path):
    folder = copy("transformers")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    _, *ours = imported(folder, tmp_path / "out")
    assert_equal(ours, imported(saved["transformers"], tmp_path / "safe")[1:])


@pytest.mark.parametrize("name", ["plain", "custom_text", "quick_gelu", "timm", "resnet", "coca"])
def test_an_open_clip_folder_gives_the_numbers_of_open_clip(name, tmp_path):
    folder = write_open_clip(tmp_path / "m", {"plain": MODEL, **MODELS}[name])
    weights = folder / "open_clip_model.safetensors"
    torch.save(load_file(weights), folder / "open_clip_pytorch_model.bin")  # as QuiltNet has them
    weights.unlink()
    encoder, *ours = imported(folder, tmp_path / "out")
    images, texts, model = by_open_clip(folder)
    assert_equal(ours, (images, texts))
    assert encoder.logit_scale == pytest.approx(model.logit_scale.exp().item(), rel=1e-6)
    bias = getattr(model, "logit_bias", None)
    assert encoder.folder.card["logit_bias"] == (None if bias is None else pytest.approx(bias.item()))


def test_the_imported_folder_is_one_of_open_clips_own(saved, tmp_path):
    for kind in ("open_clip", "transformers"):
        _, *ours = imported(saved[kind], tmp_path / kind)
        if kind == "open_clip":
            assert_equal(ours, by_open_clip(tmp_path / kind)[:2])
        else:
            # It cleans texts, which transformers does not: the pictures, and a text of plain words.
            images, texts, _ = by_open_clip(tmp_path / kind)
            assert_equal((ours[1][:1],), (texts[:1],))
            assert np.abs(ours[0] - images).mean() < 0.01  # its cut may lie a pixel beside


def test_a_text_tower_of_transformers_comes_with_its_config(tmp_path):
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(json.dumps(BERT))
    text = {"hf_model_name": str(tmp_path / "bert"), "hf_tokenizer_name": "bert", "context_length": 20}
    more = {"hf_model_pretrained": False, "hf_proj_type": "mlp", "hf_pooler_type": "cls_pooler"}
    folder = write_open_clip(tmp_path / "m", {**MODEL, "text_cfg": {**text, **more}})
    write_bert_tokenizer(folder)
    with pytest.raises(ModelFolderError, match="whose config is not in the folder"):
        import_from(folder, tmp_path / "out")
    (folder / "text").mkdir()
    shutil.copy(tmp_path / "bert" / "config.json", folder / "text")
    encoder, *ours = imported(folder, tmp_path / "out")
    assert_equal(ours, by_open_clip(folder)[:2])
    assert encoder.folder.card["text_cleaning"] == "whitespace"


def test_siglip_gives_the_numbers_of_transformers(saved, tmp_path):
    from transformers import SiglipModel, SiglipTokenizer
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    encoder, *ours = imported(saved["siglip"], tmp_path / "out")
    model = SiglipModel.from_pretrained(saved["siglip"], dtype=torch.float32).eval()
    tokenizer = SiglipTokenizer.from_pretrained(saved["siglip"])
    tokens = tokenizer(TEXTS, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
    pixels = SiglipImageProcessorPil.from_pretrained(saved["siglip"])(pictures(), return_tensors="pt")
    with torch.no_grad():
        images = model.get_image_features(pixels["pixel_values"]).pooler_output
        texts = model.get_text_features(tokens).pooler_output
    theirs = [torch.nn.functional.normalize(one, dim=-1).numpy() for one in (images, texts)]
    assert_equal(ours, theirs)
    assert encoder.logit_scale == pytest.approx(np.exp(2.0), rel=1e-6)
    assert encoder.folder.card["logit_bias"] == pytest.approx(-7.0)
    (direct,) = load_subjects(str(saved["siglip"]))
    assert_equal((direct.encoder.encode_images(pictures()), direct.encoder.encode_texts(TEXTS)), theirs)


def test_siglip_as_open_clip_has_it_keeps_its_cleaning(saved, tmp_path):
    import_from(saved["siglip"], tmp_path / "first")
    # The folder of the first import is one of open_clip; its tokenizer gets a cleaning, as timm's have.
    folder = tmp_path / "first"
    (folder / "pathclip.json").unlink()
    described = json.loads((folder / "open_clip_config.json").read_text())
    described["model_cfg"]["vision_cfg"].pop("act_kwargs")
    described["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"clean": "canonicalize"}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    encoder, *ours = imported(folder, tmp_path / "out")
    assert_equal(ours, by_open_clip(folder)[:2])
    assert encoder.folder.card["text_cleaning"] == "canonicalize"
    assert_equal(ours, by_open_clip(tmp_path / "out")[:2])


RESNET = {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64}


@pytest.mark.parametrize("vision", [{}, RESNET], ids=["vit", "resnet"])
@pytest.mark.parametrize("form", ["state dict", "torchscript"])
def test_openais_files_are_known_by_their_shapes(vision, form, tmp_path):
    model = write_openai(tmp_path / "ViT.pt", **vision)
    size = vision.get("image_size", 32)
    if form == "torchscript":
        for name, value in (("input_resolution", size), ("context_length", 20), ("vocab_size", 49408)):
            model.__dict__.pop(name, None)
            model.register_buffer(name, torch.tensor(value))
        tokens = torch.ones(1, 20, dtype=torch.long)
        traced = torch.jit.trace(model, (torch.zeros(1, 3, size, size), tokens), check_trace=False)
        torch.jit.save(traced, tmp_path / "ViT.pt")
    _, *ours = imported(tmp_path / "ViT.pt", tmp_path / "out", licence="MIT")
    transform = image_transform_v2(PreprocessCfg(size=size), is_train=False)
    with torch.no_grad():
        images = model.encode_image(torch.stack([*map(transform, pictures())]), normalize=True)
        texts = model.encode_text(open_clip.SimpleTokenizer()(TEXTS, 20), normalize=True)
    assert_equal(ours, (images, texts))
    card = open_model_folder(tmp_path / "out").card
    assert (card["licence"], card["text_cleaning"], card["source"]["source"]) == ("MIT", "lower", "ViT.pt")


@pytest.fixture(scope="module")
def small_architecture(tmp_path_factory):
    """An architecture that open_clip knows by a name."""
    file = tmp_path_factory.mktemp("architectures") / "small-test.json"
    file.write_text(json.dumps(MODEL))
    open_clip.add_model_config(file)
    return "small-test"


def test_a_checkpoint_of_open_clips_training_wants_the_name_of_its_architecture(
    saved, small_architecture, tmp_path
):
    weights = load_file(saved["open_clip"] / "open_clip_model.safetensors")
    wrapped = {"epoch": 7, "name": "run", "state_dict": {f"module.{k}": v for k, v in weights.items()}}
    torch.save(wrapped, tmp_path / "epoch_7.pt")
    with pytest.raises(ConfigError, match=r"say which .*--model ViT-B-32-quickgelu if .* ViT-B-32 if"):
        import_from(tmp_path / "epoch_7.pt", tmp_path / "out")
    # As somebody shares them: nothing but tensors, under a name of his own.
    torch.save(weights, tmp_path / "mine.pt")
    with pytest.raises(ConfigError, match="do not tell whether it has QuickGELU"):
        import_from(tmp_path / "mine.pt", tmp_path / "out")
    encoder, *ours = imported(tmp_path / "epoch_7.pt", tmp_path / "out", model=small_architecture)
    assert_equal(ours, by_open_clip(saved["open_clip"])[:2])
    assert encoder.name == small_architecture


def test_weights_of_another_architecture_are_one_line(saved, small_architecture, tmp_path):
    write_openai(tmp_path / "ViT.pt")
    with pytest.raises(ModelFolderError, match="weights do not fit the architecture") as caught:
        import_from(tmp_path / "ViT.pt", tmp_path / "out", model=small_architecture)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_shapes_that_ask_for_all_memory_are_refused_before_it_is_taken(tmp_path):
    write_openai(tmp_path / "ViT.pt")
    state = torch.load(tmp_path / "ViT.pt")
    # Of two tensors alone the towers' widths are taken: these have all their numbers, but few.
    state["ln_final.weight"] = torch.ones(1 << 18)
    torch.save(state, tmp_path / "ViT.pt")
    with pytest.raises(ModelFolderError, match=r"asks for \d+ numbers, but the weights hold"):
        import_from(tmp_path / "ViT.pt", tmp_path / "out")


def test_the_card_says_where_weights_came_from_and_under_which_licence(saved, copy, tmp_path):
    folder = copy("open_clip")
    (folder / "README.md").write_text("---\ntags:\n- x\nlicense: cc-by-nc-4.0\n---\n# Model\nlicense: mit\n")
    import_from(folder, tmp_path / "out", name="quilt")
    card = open_model_folder(tmp_path / "out").card
    assert (card["name"], card["licence"], card["source"]["revision"]) == ("quilt", "cc-by-nc-4.0", None)
    text = (tmp_path / "out" / "README.md").read_text()
    assert card["source"]["files"].keys() == {"open_clip_config.json", "open_clip_model.safetensors"}
    assert all(f"`{digest}`" in text for digest in card["source"]["files"].values())
    assert "Licence of the weights: cc-by-nc-4.0." in text
    assert str(tmp_path) not in json.dumps(card) + text
    import_from(saved["open_clip"], tmp_path / "out")
    assert open_model_folder(tmp_path / "out").card["licence"] == "not stated"


@pytest.mark.parametrize(
    ("front", "licence"),
    [
        ("license:\ntags:\n- x", "not stated"),
        ("license:\n- mit\n- cc-by-4.0", "mit, cc-by-4.0"),
        ("license: 'mit'  # of the code", "mit"),
        ("license: mit\x1b[31m", "mit\\x1b[31m"),
    ],
)
def test_a_licence_is_the_value_of_its_own_line(front, licence, tmp_path):
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\n")
    assert stated_licence(tmp_path) == licence


def test_names_that_a_terminal_would_obey_are_escaped(saved, tmp_path):
    import_from(saved["open_clip"], tmp_path / "out", name="a\x1b[2Jb", licence="c\x07")
    card = open_model_folder(tmp_path / "out").card
    assert (card["name"], card["licence"]) == ("a\\x1b[2Jb", "c\\x07")
    assert "\x1b" not in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("kind", ["open_clip", "transformers", "siglip"])
def test_pictures_are_decoded_whole_as_the_source_library_does(kind, saved, tmp_path):
    import_from(saved[kind], tmp_path / "out")
    assert pathclip.load(tmp_path / "out", runtime="torch").preprocess.draft == 0
    (direct,) = load_subjects(str(saved[kind]))
    assert direct.encoder.preprocess.draft == 0
    assert direct.encoder.folder.card["preprocess"]["draft"] == 0


def test_pictures_of_a_file_of_weights_are_decoded_whole(tmp_path):
    write_openai(tmp_path / "ViT.pt")
    import_from(tmp_path / "ViT.pt", tmp_path / "out")
    assert open_model_folder(tmp_path / "out").card["preprocess"]["draft"] == 0


def test_an_imported_folder_is_evaluated(saved, tmp_path):
    import_from(saved["transformers"], tmp_path / "plip")
    tiny_shards.write(tmp_path / "shards", n=8)
    words = [
        f"model={tmp_path / 'plip'}",
        "task=shards",
        f"tasks.shards.dataset.folder={tmp_path / 'shards'}",
    ]
    words += [f"out={tmp_path / 'report'}", "bootstrap.resamples=20"]
    content = json.loads(evaluate(compose("evaluate", words)).json.read_text())
    (model,) = content["models"]
    assert (model["name"], model["precision"], model["runtime"]) == ("transformers", "fp32", "torch")
    assert content["scores"]


def test_an_imported_folder_teaches(saved, tmp_path):
    encoder, images, texts = imported(saved["open_clip"], tmp_path / "out")
    teacher = Teacher(tmp_path / "out", encoder.preprocess)
    pixels = torch.from_numpy(encoder.preprocess.batch(pictures()))
    tokens = torch.from_numpy(teacher.tokenizer(TEXTS))
    found = teacher(pixels, tokens, TEXTS)
    assert_equal([one.numpy() for one in found[:2]], (images, texts))
    assert found[2] == pytest.approx(encoder.logit_scale)


def test_what_was_imported_can_be_trained_on_with_its_cleaning_and_padding(saved, tmp_path):
    import_from(saved["open_clip"], tmp_path / "a")
    import_from(saved["transformers"], tmp_path / "b")
    for name, cleaning, pad in (("a", "lower", 0), ("b", None, 49407)):
        towers = from_folder(str(tmp_path / name))
        towers.save(tmp_path / "again" / name)
        card = open_model_folder(tmp_path / "again" / name).card
        assert (card.get("text_cleaning"), card["pad_id"]) == (cleaning, pad)
        texts = ["caf\u00c3\u00a9", "lung"]
        ours = pathclip.load(tmp_path / name, runtime="torch")._tokenizer(texts)
        assert np.array_equal(towers.tokenizer()(texts), ours)


def test_a_sha256_is_compared_before_anything_is_read(copy, tmp_path):
    folder = copy("open_clip")
    weights = folder / "open_clip_model.safetensors"
    right = pathclip.atomic.sha256_file(weights)
    import_from(folder, tmp_path / "out", sha256=right.upper())
    (folder / "open_clip_config.json").write_text("{")  # which would be refused if it were read
    with pytest.raises(ModelFolderError, match=f"its SHA-256 is {right}, not {'0' * 64}; fetch it again"):
        import_from(folder, tmp_path / "other", sha256="0" * 64)
    file = tmp_path / "broken.pt"
    file.write_bytes(b"no weights")
    with pytest.raises(ModelFolderError, match="its SHA-256 is"):
        import_from(file, tmp_path / "other", sha256=right)


MISTAKES = {
    "gone": (["{tmp}/gone"], "no such file or folder, and no model of the hub"),
    "own folder": (["{tmp}/mine"], "is a model folder of pathclip already"),
    "out": (["{saved}", "--out", "{tmp}/full"], "exists and is no model folder"),
    "revision": (["{saved}", "--revision", "v1"], "--revision goes with a model of the hub"),
    "model": (["{saved}", "--model", "ViT-B-32"], "--model goes with a file of weights"),
    "architecture": (
        ["{tmp}/w.pt", "--model", "ViT-B-3"],
        "open_clip has no 'ViT-B-3'. Did you mean ViT-B-32",
    ),
    "tokenizer": (["{tmp}/w.pt", "--model", "ViT-B-16-SigLIP"], "needs a tokenizer of its own"),
    "no weights": (["{tmp}/w.pt"], "not in OpenAI's form"),
    "text": (["{tmp}/notes.txt"], "no weights: neither safetensors nor saved by torch"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(name, saved, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    (tmp_path / "notes.txt").write_text("no weights")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "pathclip.json").write_text("{}")
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pt")
    before = sorted(tmp_path.rglob("*"))
    arguments, message = MISTAKES[name]
    places = {"{tmp}": tmp_path, "{saved}": saved["open_clip"]}
    for mark, place in places.items():
        arguments = [argument.replace(mark, str(place)) for argument in arguments]
    if "--out" not in arguments:
        arguments += ["--out", str(tmp_path / "out")]
    status = cli.main(["import", *arguments])
    out, err = capsys.readouterr()
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith("pathclip import: ") and message in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("kind", "entry", "value", "match"),
    [
        (
            "transformers",
            ("vision_config", "hidden_act"),
            "relu",
            "'quick_gelu' and 'relu' cannot",
        ),
        ("transformers", ("vision_config", "num_channels"), 1, "of 1 channels cannot"),
        ("transformers", ("text_config", "num_hidden_layers"), 3, "weights and config do not fit"),
        ("siglip", ("text_config", "hidden_act"), "gelu", "hidden_act 'gelu' cannot be expressed, only"),
        ("siglip", ("vision_config", "num_hidden_layers"), 3, "timm has no SigLIP tower of 3 layers"),
        ("siglip", ("vision_config", "layer_norm_eps"), 1e-5, "layer_norm_eps 1e-06"),
        ("transformers", ("text_config", "num_attention_heads"), 0, "num_attention_heads must be"),
        ("transformers", ("vision_config", "patch_size"), 0, "patch_size must be"),
        ("transformers", ("vision_config", "hidden_size"), 1 << 24, "hidden_size must be"),
        ("transformers", ("vision_config", "hidden_size"), 1 << 16, "asks for .* but the weights hold"),
        ("transformers", ("text_config", "layer_norm_eps"), "x", "cannot be read as a model: "),
        ("siglip", ("text_config", "hidden_act"), ["a"], "hidden_act"),
    ],
)
def test_a_config_that_cannot_be_expressed_is_refused(kind, entry, value, match, copy, tmp_path):
    folder = copy(kind)
    config = json.loads((folder / "config.json").read_text())
    config[entry[0]][entry[1]] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFolderError, match=match) as caught:
        import_from(folder, tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_the_command_says_what_it_wrote(saved, tmp_path, capsys):
    assert (
        cli.main(["import", str(saved["siglip"]), "--out", str(tmp_path / "s"), "--licence", "Apache-2.0"])
        == 0
    )
    out = capsys.readouterr().out
    assert out == f"{tmp_path / 's'}: siglip, as `SiglipModel` of transformers; licence Apache-2.0\n"
