"""Any encoder can be measured: our folders, and those of open_clip and transformers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from pathclip.errors import ConfigError, ModelFolderError
from pathclip.evaluate.evaluate import evaluate
from pathclip.evaluate.subjects import load_subjects
from pathclip.launch import compose
from pathclip.model_folder import TRAINING_PICTURES
from pathclip.runtime.encoder import Encoder
from pathclip.train.training_pictures import from_hashes
from tests import tiny_shards
from tests.model.foreign_models import pictures, write_open_clip, write_transformers
from tests.tiny_model import ONNX_FILES, list_files_again, write_tiny_model

FP32 = ("onnx/image_fp32.onnx", "onnx/text_fp32.onnx")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    top = tmp_path_factory.mktemp("saved")
    return {
        "pathclip": write_tiny_model(top / "pathclip", (*ONNX_FILES, *FP32)),
        "open_clip": write_open_clip(top / "open_clip"),
        "transformers": write_transformers(top / "transformers"),
    }


@pytest.mark.parametrize(
    ("kind", "keys", "runtime"),
    [
        ("pathclip", ["model int8", "model fp32"], "onnx"),
        ("open_clip", ["model fp32"], "torch"),
        ("transformers", ["model fp32"], "torch"),
    ],
)
def test_each_kind_of_folder_gives_encoders(kind, keys, runtime, saved):
    subjects = load_subjects(str(saved[kind]))
    assert [one.key for one in subjects] == keys
    for one in subjects:
        assert isinstance(one.encoder, Encoder) and one.encoder.runtime == runtime
        assert one.model_hash == one.encoder.folder.hash and len(one.model_hash) == 64
        vectors = one.encoder.encode_images(pictures()[:2])
        assert vectors.shape == (2, one.encoder.dim) and np.allclose(np.linalg.norm(vectors, axis=1), 1)


def test_what_a_foreign_model_was_trained_on_is_not_known_but_an_untrained_one_saw_nothing(saved):
    model, untrained = load_subjects(str(saved["open_clip"]), untrained=str(saved["transformers"]))
    assert model.seen is None
    assert (untrained.role, len(untrained.seen)) == ("untrained", 0)


def test_an_untrained_model_without_a_list_saw_nothing(saved):
    untrained = load_subjects(str(saved["pathclip"]), untrained=str(saved["pathclip"]))[-1]
    assert (untrained.role, len(untrained.seen)) == ("untrained", 0)


def test_what_is_compared_with_saw_the_pictures_that_its_folder_lists(saved, tmp_path):
    folder = shutil.copytree(saved["pathclip"], tmp_path / "before")
    (folder / TRAINING_PICTURES).write_bytes(from_hashes(["00" * 32, "ff" * 32]).to_bytes())
    list_files_again(folder)
    untrained = load_subjects(str(saved["pathclip"]), untrained=str(folder))[-1]
    assert (untrained.role, len(untrained.seen)) == ("untrained", 2)


def test_what_is_compared_with_saw_the_shards_that_its_card_names(tmp_path, saved):
    tiny_shards.write(tmp_path / "shards", n=4)
    for shards, seen in ((tmp_path / "shards", 4), (tmp_path / "gone", None)):
        before = write_tiny_model(tmp_path / "before", training={"shards": [str(shards)]})
        found = load_subjects(str(saved["pathclip"]), untrained=str(before))[-1].seen
        assert (found if found is None else len(found)) == seen


def test_two_foreign_models_have_hashes_of_their_own(saved):
    hashes = {load_subjects(str(saved[kind]))[0].model_hash for kind in ("open_clip", "transformers")}
    assert len(hashes) == 2


@pytest.mark.parametrize("given", [{"precision": "int8"}, {"runtime": "onnx"}])
def test_a_foreign_folder_runs_by_torch_in_fp32_only(given, saved):
    with pytest.raises(ModelFolderError, match="saved by open_clip, so it runs by torch in fp32 only"):
        load_subjects(str(saved["open_clip"]), **given)
    (one,) = load_subjects(str(saved["open_clip"]), runtime="torch", precision="fp32")
    assert one.key == "model fp32"


def test_an_unknown_precision_is_refused_before_a_folder_is_read(tmp_path):
    with pytest.raises(ConfigError, match="precision: 'int4' is none of"):
        load_subjects(str(tmp_path / "gone"), precision="int4")


def test_a_folder_that_is_none_of_these_is_told_what_was_looked_for(tmp_path):
    with pytest.raises(ModelFolderError) as caught:
        load_subjects(str(tmp_path))
    for name in ("pathclip.json", "open_clip_config.json", "config.json"):
        assert name in str(caught.value)


def test_the_folder_of_a_run_hints_at_its_model(tmp_path, saved):
    shutil.copytree(saved["pathclip"], tmp_path / "model")
    shutil.copytree(saved["pathclip"], tmp_path / "untrained")
    with pytest.raises(ModelFolderError, match=f"Did you mean {tmp_path / 'model'}\\?"):
        load_subjects(str(tmp_path))


@pytest.mark.parametrize("kind", ["open_clip", "transformers"])
def test_a_whole_evaluation_takes_a_foreign_folder(kind, saved, squares, tmp_path):
    tiny_shards.write(tmp_path / "shards", n=12)
    words = [
        f"model={saved[kind]}",
        "task=[patches_csv,shards]",
        f"tasks.patches_csv.dataset.csv={squares}",
        "tasks.patches_csv.dataset.group=group",
        "tasks.patches_csv.dataset.split=split",
        f"tasks.shards.dataset.folder={tmp_path / 'shards'}",
        f"out={tmp_path / 'report'}",
        "bootstrap.resamples=20",
    ]
    content = json.loads(evaluate(compose("evaluate", words)).json.read_text())
    (model,) = content["models"]
    assert (model["name"], model["precision"], model["runtime"]) == (kind, "fp32", "torch")
    assert any("are not known, so a leak could not" in one for one in content["tasks"]["shards"]["remarks"])
    leaked = [one["context"]["leaked"] for one in content["scores"] if "leaked" in one["context"]]
    assert leaked and set(leaked) == {None}
