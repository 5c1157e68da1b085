from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pathclip.errors import ModelFolderError
from pathclip.model_folder import (
    CARD,
    TRAINING_PICTURES,
    open_model_folder,
    read_json,
    update_card,
    write_model_folder,
)
from pathclip.runtime.text_cleaning import CLEANINGS
from tests.tiny_model import break_file, list_files_again, write_tiny_model


@pytest.fixture
def folder(tmp_path, tiny_model) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "model")


def change_card(folder: Path, **changes) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, **changes}))


def test_a_whole_folder_opens_with_its_card(folder):
    opened = open_model_folder(folder)
    assert opened.card["name"] == "tiny"
    assert opened.file("tokenizer.json") == folder / "tokenizer.json"
    assert opened.has("onnx/image_int8.onnx")
    assert not opened.has("onnx/image_fp32.onnx")


@pytest.mark.parametrize("name", ["onnx/image_int8.onnx", "tokenizer.json", "open_clip_config.json"])
def test_a_changed_file_is_refused(folder, name):
    break_file(folder / name)
    with pytest.raises(ModelFolderError, match=f"{name}: its content differs from the SHA-256"):
        open_model_folder(folder)


def test_a_truncated_file_is_refused(folder):
    file = folder / "onnx/text_int8.onnx"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelFolderError, match=r"text_int8\.onnx: its content differs"):
        open_model_folder(folder)


def test_a_missing_file_is_refused_even_unverified(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelFolderError, match=r"tokenizer\.json: listed in pathclip.json but missing"):
        open_model_folder(folder, verify=False)


def test_without_verifying_a_change_shows_only_when_the_file_is_asked_for(folder):
    break_file(folder / "tokenizer.json")
    opened = open_model_folder(folder, verify=False)
    assert opened.verified("open_clip_config.json").is_file()
    with pytest.raises(ModelFolderError, match="SHA-256"):
        opened.verified("tokenizer.json")


def test_a_file_that_the_card_does_not_list_is_not_given(folder):
    (folder / "extra.json").write_text("{}")
    with pytest.raises(ModelFolderError, match=r"no 'extra\.json'\. It has: .*tokenizer\.json"):
        open_model_folder(folder).file("extra.json")


@pytest.mark.parametrize(
    "name",
    [
        "weights.pt",
        "weights.pkl",
        "open_clip_pytorch_model.bin",
        "code.py",
        "arrays.npz",
        "no_suffix",
        "../secret.json",
        "onnx/../../secret.json",
        "/etc/hosts.json",
        "onnx",
        "",
    ],
)
def test_a_listed_file_that_must_not_be_loaded_is_refused(folder, name):
    (folder.parent / "secret.json").write_text("{}")
    if name.endswith((".pt", ".pkl", ".bin", ".py", ".npz")):
        (folder / name).write_bytes(b"")
    card = json.loads((folder / CARD).read_text())
    change_card(folder, files={**card["files"], name: "0" * 64})
    with pytest.raises(ModelFolderError, match="may not be part of a model folder"):
        open_model_folder(folder, verify=False)


def test_a_link_to_other_content_is_refused(folder):
    (folder.parent / "secret.json").write_text("{}")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to(folder.parent / "secret.json")
    with pytest.raises(ModelFolderError, match=r"tokenizer\.json: its content differs"):
        open_model_folder(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, value) for key in ("embed_dim", "context_length", "pad_id") for value in (None, "14", 1.5)),
        *((key, value) for key in ("embed_dim", "context_length", "pad_id") for value in (True, -1)),
        ("embed_dim", 0),
        ("embed_dim", 65_537),
        ("context_length", 0),
        ("context_length", 10**9),
        ("pad_id", 1 << 31),
    ],
)
def test_a_size_out_of_bounds_is_named(folder, key, value):
    change_card(folder, **{key: value})
    with pytest.raises(ModelFolderError, match=rf"pathclip\.json: {key} must be .*, not {value!r}"):
        open_model_folder(folder, verify=False)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_an_unknown_schema_is_refused(folder, version):
    change_card(folder, schema_version=version)
    with pytest.raises(ModelFolderError, match=f"schema_version {version!r}, but this pathclip reads 1"):
        open_model_folder(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": []}', '{"files": 3'])
def test_a_malformed_card_is_named(folder, content):
    (folder / CARD).write_text(content)
    with pytest.raises(ModelFolderError, match=r"pathclip\.json"):
        open_model_folder(folder)


def test_a_malformed_json_is_named_with_its_line(tmp_path):
    (tmp_path / "a.json").write_text('{\n"a": 1,\n"b": }\n')
    with pytest.raises(ModelFolderError, match=r"a\.json, line 3: not valid JSON"):
        read_json(tmp_path / "a.json")


def test_a_json_that_is_nested_too_deeply_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(ModelFolderError, match=r"a\.json: nested too deeply"):
        read_json(tmp_path / "a.json")


def test_a_folder_above_the_model_hints_at_the_model(folder):
    with pytest.raises(ModelFolderError, match=f"Did you mean {folder}"):
        open_model_folder(folder.parent)


def test_the_folder_of_a_run_hints_at_its_model_rather_than_at_best_or_untrained(folder):
    for name in ("best", "untrained"):
        shutil.copytree(folder, folder.parent / name)
    with pytest.raises(ModelFolderError, match=f"Did you mean {folder}\\?"):
        open_model_folder(folder.parent)


def test_no_folder_is_named(tmp_path):
    with pytest.raises(ModelFolderError, match="gone: no such folder"):
        open_model_folder(tmp_path / "gone")


def test_writing_a_file_that_could_carry_code_is_refused_and_leaves_nothing(tmp_path):
    with (
        pytest.raises(ModelFolderError, match=r"'weights\.pt' may not be part"),
        write_model_folder(tmp_path / "m", {}) as staging,
    ):
        (staging / "weights.pt").write_bytes(b"")
    assert list(tmp_path.iterdir()) == []


def test_every_file_may_be_read_by_others(tmp_path):
    with write_model_folder(tmp_path / "m", {}) as staging:
        (staging / "a.json").write_text("{}")
        (staging / "a.json").chmod(0o600)
    assert (tmp_path / "m/a.json").stat().st_mode & 0o777 == 0o644


def test_a_failed_write_leaves_the_earlier_model(folder):
    with pytest.raises(RuntimeError), write_model_folder(folder, {}) as staging:
        (staging / "README.md").write_text("half")
        raise RuntimeError
    assert open_model_folder(folder).card["name"] == "tiny"


def test_what_an_export_measured_does_not_change_the_models_hash(folder):
    before = open_model_folder(folder).hash
    update_card(folder, scores=[{"name": "balanced_accuracy"}], prompts={"templates": ["{}"]})
    for speed in ("61 images/s", "63 images/s"):
        (folder / "gate.json").write_text(json.dumps({"speed": speed}))
        (folder / "README.md").write_text(speed)
        list_files_again(folder)
        assert open_model_folder(folder).hash == before


@pytest.mark.parametrize(
    "name",
    [
        "onnx/image_int8.onnx",
        "open_clip_model.safetensors",
        "tokenizer.json",
        "open_clip_config.json",
        "text/config.json",
    ],
)
def test_a_file_that_decides_embeddings_changes_the_models_hash(folder, name):
    before = open_model_folder(folder).hash
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"other")
    list_files_again(folder)
    assert open_model_folder(folder).hash != before


def test_hashes_of_training_pictures_do_not_change_the_models_hash(folder):
    before = open_model_folder(folder).hash
    (folder / TRAINING_PICTURES).write_bytes(b"hashes")
    list_files_again(folder)
    opened = open_model_folder(folder)
    assert opened.has(TRAINING_PICTURES) and opened.hash == before


@pytest.mark.parametrize(
    ("key", "value"), [("preprocess", {"size": 17}), ("context_length", 13), ("pad_id", 1)]
)
def test_an_entry_that_decides_embeddings_changes_the_models_hash(folder, key, value):
    before = open_model_folder(folder).hash
    change_card(folder, **{key: value})
    assert open_model_folder(folder).hash != before


def test_the_order_of_the_cards_keys_does_not_change_the_models_hash(tmp_path):
    for name, preprocess in (("a", {"size": 16, "fill_color": 0}), ("b", {"fill_color": 0, "size": 16})):
        folder = write_tiny_model(tmp_path / name)
        change_card(folder, preprocess=preprocess)
    assert open_model_folder(tmp_path / "a").hash == open_model_folder(tmp_path / "b").hash


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prompts", "abc"),
        ("prompts", {"templates": 5}),
        ("prompts", {"templates": [1]}),
        ("prompts", {"templates": "{}"}),
        ("prompts", {"templates": ["{}"] * 1001}),
        ("prompts", {"templates": ["x" * 1001]}),
        ("prompts", {"classes": {"a": 1}}),
        ("text_cleaning", ["lower"]),
        ("text_cleaning", "upper"),
        ("logit_scale", 10**400),
        ("logit_scale", float("nan")),
        ("logit_scale", 1e7),
        ("logit_scale", None),
        ("logit_bias", "0"),
        ("logit_bias", float("inf")),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_entry_of_the_wrong_kind_is_one_line(folder, key, value):
    change_card(folder, **{key: value})
    with pytest.raises(ModelFolderError, match=rf"pathclip\.json: .*{key}.* must be") as caught:
        open_model_folder(folder, verify=False)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < len(str(folder)) + 250


@pytest.mark.parametrize("value", [*CLEANINGS, None])
def test_every_cleaning_of_texts_may_stand_in_a_card(folder, value):
    change_card(folder, text_cleaning=value)
    assert open_model_folder(folder, verify=False).card["text_cleaning"] == value


def test_a_listed_name_that_no_file_can_have_is_missing(folder):
    card = json.loads((folder / CARD).read_text())
    for name in ("x" * 300 + ".json", "a\0.json"):
        change_card(folder, files={**card["files"], name: "0" * 64})
        with pytest.raises(ModelFolderError, match=r"\.json: listed in pathclip\.json but missing"):
            open_model_folder(folder)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"], ids=["long", "NUL"])
def test_a_folder_that_cannot_be_is_named(tmp_path, name):
    with pytest.raises(ModelFolderError, match="no such folder"):
        open_model_folder(tmp_path / name)


def test_a_json_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "a.json").write_text("1" * 5000)
    for path in (tmp_path / "a.json", tmp_path, tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with pytest.raises(ModelFolderError, match="cannot be read"):
            read_json(path)
