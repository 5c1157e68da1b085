"""What features depend on is in their key, and a cache filled otherwise is not used."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from pathclip.evaluate.features import feature_keys
from pathclip.evaluate.features.feature_cache import FeatureCache
from pathclip.evaluate.features.feature_keys import TRIAL, colours_shelf, embeddings_shelf
from pathclip.evaluate.features.feature_pack import SUFFIX
from pathclip.evaluate.subjects import Subject
from pathclip.runtime.preprocess import Preprocess

MIB = 1 / 1024  # in GiB


@dataclass
class OneAnswer:
    """Gives every picture the same row: another number is another kind of processor."""

    answer: float = 0.5
    runtime: str = "onnx"
    name: str = "m"
    precision: str = "int8"
    dim: int = 4
    preprocess: Preprocess = field(default_factory=Preprocess)

    def encode_images(self, images, batch_size=1):
        return np.full((len(images), self.dim), self.answer, np.float32)


def shelf_of(folder, answer=0.5, limit=20.0, **more):
    subject = Subject("model", OneAnswer(answer, **more), "hash")
    return embeddings_shelf(FeatureCache(folder, limit=limit), subject, "plain", 0)


def digest(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def fill(shelf, pieces):
    for piece in pieces:
        numbers = range(piece * 3000, piece * 3000 + 3000)
        shelf.add([digest(number) for number in numbers], np.full((3000, 4), 0.5, np.float32))


def packs(folder):
    return sorted(folder.glob(f"*/*{SUFFIX}"), key=lambda path: path.stat().st_mtime_ns)


def test_rows_of_another_processor_are_not_given_after_the_oldest_packs_were_thrown_out(tmp_path, capsys):
    shelf = shelf_of(tmp_path, limit=MIB)
    (first,) = packs(tmp_path)
    os.utime(first, (1, 1))
    fill(shelf, range(12))
    assert not first.exists()
    assert shelf_of(tmp_path, 0.9, MIB) is None
    assert "answers otherwise than when it was filled" in capsys.readouterr().err
    assert shelf_of(tmp_path, 0.5, MIB).get([digest(11 * 3000)])[0].all()


def test_every_single_pack_tells_by_what_it_was_filled(tmp_path):
    fill(shelf_of(tmp_path), range(2))
    fill(shelf_of(tmp_path), range(2, 4))
    written = packs(tmp_path)
    assert len(written) == 5
    for kept in written:
        for other in packs(tmp_path):
            other.rename(other.with_suffix(".away"))
        kept.with_suffix(".away").rename(kept)
        assert shelf_of(tmp_path).get([TRIAL])[0].all()


def test_packs_that_do_not_tell_by_what_they_were_filled_are_not_used(tmp_path, capsys):
    shelf = shelf_of(tmp_path)
    (first,) = packs(tmp_path)
    shelf.witness = None
    fill(shelf, [0])
    first.unlink()
    assert shelf_of(tmp_path) is None
    assert "is not known; not used" in capsys.readouterr().err


def test_an_answer_that_differs_by_half_a_thousandth_is_another_one(tmp_path):
    shelf_of(tmp_path)
    assert shelf_of(tmp_path, 0.5005) is None
    assert shelf_of(tmp_path, 0.50001) is not None


def test_the_versions_of_all_that_torch_models_are_built_of_are_in_the_key(tmp_path):
    key = json.loads(shelf_of(tmp_path, runtime="torch")._key)
    assert [one.split()[0] for one in key["libraries"]] == [
        "torch",
        "open_clip_torch",
        "timm",
        "transformers",
    ]
    assert json.loads(shelf_of(tmp_path)._key)["libraries"][0].startswith("onnxruntime 1")


def test_the_version_of_the_library_that_decodes_jpeg_is_in_the_key(tmp_path):
    from PIL import features

    key = json.loads(colours_shelf(FeatureCache(tmp_path), "plain", 0)._key)
    assert key["decoders"]["libjpeg_turbo"] == features.version_feature("libjpeg_turbo")


@pytest.mark.parametrize(
    "module", ["model.towers", "model.modules", "runtime.encoder", "evaluate.features.pictures"]
)
def test_other_source_of_what_computes_is_another_key(module, tmp_path, monkeypatch):
    module = importlib.import_module(f"pathclip.{module}")
    before = shelf_of(tmp_path, runtime="torch")._key
    (tmp_path / "other.py").write_text(Path(module.__file__).read_text() + "# changed")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "other.py"))
    feature_keys._source.cache_clear()
    try:
        assert shelf_of(tmp_path, runtime="torch")._key != before
    finally:
        feature_keys._source.cache_clear()
