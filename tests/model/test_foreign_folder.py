"""What is read of other libraries' folders, and what is refused, each in one line."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPConfig

from pathclip import cli
from pathclip.errors import ModelFolderError
from pathclip.model.foreign_encoder import tokenizer_content
from pathclip.model.foreign_folder import open_foreign_folder
from pathclip.model_folder import open_model_folder
from tests.model.foreign_models import SIZE, write_open_clip, write_transformers


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    top = tmp_path_factory.mktemp("saved")
    return {
        "open_clip": write_open_clip(top / "open_clip"),
        "transformers": write_transformers(top / "transformers"),
    }


@pytest.fixture
def copy(saved, tmp_path):
    return lambda kind: shutil.copytree(saved[kind], tmp_path / "m")


def change(file: Path, path: str, value) -> None:
    """Sets the entry at a dotted path of a JSON file."""
    content = json.loads(file.read_text())
    node = content
    *above, last = path.split(".")
    for key in above:
        node = node.setdefault(key, {})
    node[last] = value
    file.write_text(json.dumps(content))


def refused(folder: Path, match: str) -> str:
    with pytest.raises(ModelFolderError, match=match) as caught:
        open_foreign_folder(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_both_kinds_are_told_apart_and_described(saved):
    first, second = (open_foreign_folder(saved[kind]) for kind in ("open_clip", "transformers"))
    assert (first.kind, first.text.cleaning, first.files) == (
        *("open_clip", "lower"),
        ("open_clip_config.json", "open_clip_model.safetensors"),
    )
    assert (second.kind, second.text.cleaning, second.text.pad_token) == (
        *("transformers", None, "<|endoftext|>"),
    )
    assert second.files == (
        *("config.json", "preprocessor_config.json", "model.safetensors", "tokenizer.json"),
    )
    assert (first.embed_dim, first.text.context_length) == (second.embed_dim, 20) == (16, 20)
    assert first.preprocess.size == second.preprocess.size == (SIZE, SIZE)


def test_a_folder_of_neither_kind_is_told_what_was_looked_for(tmp_path):
    line = refused(tmp_path, "no model folder")
    assert all(name in line for name in ("pathclip.json", "open_clip_config.json", "config.json"))
    refused(tmp_path / "gone", "gone: no such folder")


def test_the_folder_of_a_run_hints_at_the_model_and_not_at_its_other_folders(tmp_path):
    for name in ("best", "model", "untrained"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pathclip.json").write_text("{}")
    assert refused(tmp_path, "Did you mean").endswith(f"Did you mean {tmp_path / 'model'}?")


@pytest.mark.parametrize(
    ("kind", "safe", "pickle"),
    [
        ("open_clip", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
        ("transformers", "model.safetensors", "pytorch_model.bin"),
    ],
)
def test_a_pickle_alone_is_refused_with_the_command_that_reads_it(kind, safe, pickle, copy, monkeypatch):
    folder = copy(kind)
    weights = load_file(folder / safe)
    torch.save(weights, folder / pickle)
    (folder / safe).unlink()
    assert open_foreign_folder(folder, pickles=True).weights == (pickle,)
    words = refused(folder, "are a pickle").split("alone: pathclip ")[1].split()
    monkeypatch.chdir(folder.parent)
    assert cli.main(words) == 0
    assert open_model_folder(words[-1]).has("open_clip_model.safetensors")


def test_a_path_in_a_command_to_paste_is_quoted(copy, tmp_path):
    folder = copy("transformers").rename(tmp_path / "a b$(x)")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    words = shlex.split(refused(folder, "are a pickle").split("alone: ")[1])
    assert words == ["pathclip", "import", str(folder), "--out", "a b$(x)-safe"]


def test_weights_under_another_name_are_none(copy):
    folder = copy("transformers")
    (folder / "model.safetensors").rename(folder / "model.ckpt")
    refused(folder, "no weights in it; expected model.safetensors")


@pytest.mark.parametrize(
    ("kind", "entry", "value", "match"),
    [
        ("open_clip", "model_cfg.vision_cfg.timm_model_name", "hf_hub:somebody/vit", "outside the folder"),
        ("open_clip", "model_cfg.text_cfg.tokenizer_kwargs", {"trust": 1}, "tokenizer_kwargs is not known"),
        ("open_clip", "model_cfg.text_cfg.tokenizer_mode", "clips", "tokenizer_mode is not known"),
        ("open_clip", "model_cfg.text_cfg.hf_model_name", "bert-base", "AutoConfig.from_pretrained"),
        (
            *("open_clip", "model_cfg.text_cfg.hf_model_name", "a'); import os; os.system('x"),
            r"whose config is not in the folder; put it there as text/config\.json",
        ),
        ("open_clip", "model_cfg.vision_cfg.layers", 5000, "layers 5000 is more than any model has"),
        ("open_clip", "model_cfg.vision_cfg._attn_implementation", "org/kernel", "may be code of the hub"),
        ("open_clip", "model_cfg.text_cfg.hf_tokenizer_name", "bert-base", r"no tokenizer\.json"),
        ("open_clip", "model_cfg._target_", "os.system", "'_target_' asks for code"),
        ("open_clip", "model_cfg.vision_cfg.layers", 10**9, "more than any model has"),
        ("open_clip", "model_cfg.embed_dim", True, "embed_dim must be a whole number"),
        ("open_clip", "model_cfg.text_cfg.context_length", 10**6, "context_length must be"),
        ("open_clip", "model_cfg.text_cfg", None, "no model_cfg with vision_cfg and text_cfg"),
        ("open_clip", "preprocess_cfg.mode", "L", "preprocess.mode: only RGB"),
        ("open_clip", "preprocess_cfg.resize_mode", "tile", "resize_mode: 'tile'"),
        ("transformers", "auto_map", {"AutoModel": "x.Y"}, "'auto_map' asks for code"),
        ("transformers", "vision_config.auto_map", {}, "'auto_map' asks for code"),
        ("transformers", "model_type", "blip", "of transformers' models only 'clip' and 'siglip' are read"),
        ("transformers", "model_type", "siglip", "only SiglipTokenizer is read here, not 'CLIPTokenizer'"),
        ("transformers", "vision_config.hidden_size", 10**12, "more than any model has"),
        ("transformers", "vision_config.image_size", 64, "the tower takes"),
        ("transformers", "text_config", [1], "text_config is not an object"),
        ("transformers", "text_config", 0, "text_config is not an object"),
    ],
)
def test_a_config_that_asks_for_code_or_says_nonsense_is_refused(kind, entry, value, match, copy):
    folder = copy(kind)
    change(folder / {"open_clip": "open_clip_config.json"}.get(kind, "config.json"), entry, value)
    refused(folder, match)


@pytest.mark.parametrize(
    ("entry", "value", "match"),
    [
        ("image_processor_type", "BlipImageProcessor", "'BlipImageProcessor' is none of CLIPImageProcessor"),
        ("do_resize", False, "do_resize=False cannot be expressed"),
        ("do_normalize", False, "do_normalize=False cannot be expressed"),
        ("do_pad", True, "do_pad=True cannot be expressed"),
        ("rescale_factor", 1 / 127.5, "rescale_factor=.* it must be 1/255"),
        ("resample", 1, "resample=1 is neither 2"),
        ("resample", [3], r"resample=\[3\] is neither 2"),
        ("resample", {}, "resample={} is neither 2"),
        ("size", {"shortest_edge": 36}, "a shorter side of 36 with a cut of 32 x 32 cannot be expressed"),
        ("size", {"shortest_edge": 32, "longest_edge": 64}, "size=.* cannot be expressed"),
        ("do_center_crop", False, "a shorter side of 32 with no cut cannot be expressed"),
        ("crop_size", "32", "crop_size='32' cannot be expressed"),
        ("image_std", [0.5, 0.5, 0], "preprocess.std: must be above 0"),
    ],
)
def test_a_preprocess_that_cannot_be_expressed_is_refused_by_its_key(entry, value, match, copy):
    folder = copy("transformers")
    change(folder / "preprocessor_config.json", entry, value)
    assert str(folder / "preprocessor_config.json") in refused(folder, match)


def test_sizes_as_single_numbers_are_read_as_transformers_reads_them(copy, saved):
    folder = copy("transformers")
    change(folder / "preprocessor_config.json", "size", SIZE)
    change(folder / "preprocessor_config.json", "crop_size", SIZE)
    change(folder / "preprocessor_config.json", "image_processor_type", None)
    change(folder / "preprocessor_config.json", "feature_extractor_type", "CLIPFeatureExtractor")
    assert open_foreign_folder(folder).preprocess == open_foreign_folder(saved["transformers"]).preprocess


def test_values_under_the_second_name_count_even_if_there_are_none(copy):
    folder = copy("transformers")
    change(folder / "config.json", "text_config_dict", {})
    found = open_foreign_folder(folder)
    assert found.config["text_config"] == {} and found.text.context_length == 77
    theirs = CLIPConfig(**json.loads((folder / "config.json").read_text())).text_config
    ours = CLIPConfig(**found.config).text_config
    assert (ours.hidden_size, ours.num_hidden_layers) == (theirs.hidden_size, theirs.num_hidden_layers)


def test_a_second_name_without_values_does_not_count(copy, saved):
    folder = copy("transformers")
    change(folder / "config.json", "text_config_dict", None)
    assert open_foreign_folder(folder).config == open_foreign_folder(saved["transformers"]).config


def test_a_processor_config_does_for_a_preprocessor_config(copy, saved):
    folder = copy("transformers")
    values = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    refused(folder, r"no preprocessor_config\.json")
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": values}))
    found = open_foreign_folder(folder)
    assert found.preprocess == open_foreign_folder(saved["transformers"]).preprocess
    assert "processor_config.json" in found.files


def test_weights_in_several_files_are_those_that_the_index_names(copy):
    folder = copy("transformers")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"logit_scale": "model-00001-of-00001.safetensors"}}))
    assert open_foreign_folder(folder).weights == ("model-00001-of-00001.safetensors",)
    for name in ("../model.safetensors", "model.bin", "gone.safetensors"):
        index.write_text(json.dumps({"weight_map": {"logit_scale": name}}))
        refused(folder, f"names '{name}', which is no safetensors file of the folder")


def test_a_tokenizer_that_fills_on_the_left_is_refused(copy):
    folder = copy("transformers")
    change(folder / "tokenizer_config.json", "padding_side", "left")
    refused(folder, "on the right only")


def test_describing_needs_no_torch(saved):
    code = (
        "import sys\nfrom pathclip.model.foreign_folder import open_foreign_folder\n"
        f"open_foreign_folder({str(saved['transformers'])!r})\n"
        "print(sorted({'torch', 'transformers', 'open_clip'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("kind", "config", "key", "size", "match"),
    [
        ("transformers", "config.json", "text_config.vocab_size", 49_407, "tokenizer.json has 49408 tokens"),
        (
            *("open_clip", "open_clip_config.json", "model_cfg.text_cfg.vocab_size", 49_407),
            "CLIP's own tokenizer has 49408 tokens",
        ),
    ],
)
def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(kind, config, key, size, match, copy):
    folder = copy(kind)
    change(folder / config, key, size)
    described = open_foreign_folder(folder)
    with pytest.raises(ModelFolderError, match=f"{match}, but the model has embeddings for 49407"):
        tokenizer_content(folder, described.text)


def test_added_tokens_count_among_those_of_a_tokenizer(copy):
    folder = copy("transformers")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"].append({**content["added_tokens"][-1], "id": 49_409, "content": "<new>"})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelFolderError, match="tokens, but the model has embeddings for 49408"):
        tokenizer_content(folder, open_foreign_folder(folder).text)
