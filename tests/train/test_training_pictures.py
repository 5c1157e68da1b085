"""The hashes of what was trained on: from shards, and in every model folder that a training writes."""

from __future__ import annotations

import hashlib
import io
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save

import pathclip
from pathclip.curate.images import perceptual_hashes
from pathclip.errors import DataError, ModelFolderError
from pathclip.model_folder import TRAINING_PICTURES, open_model_folder
from pathclip.runtime.images import open_image
from pathclip.shards.writer import Sample, write_shards
from pathclip.train.train import train
from pathclip.train.training_pictures import (
    from_hashes,
    no_pictures,
    pictures_of_shards,
    read_training_pictures,
)
from tests import tiny_shards
from tests.tiny_model import list_files_again, write_tiny_model

from .processes import train_in
from .tiny_run import config

BROKEN = b"\xff\xd8\xffnot a picture"


def written(folder, samples, per_shard=4):
    manifest = write_shards(folder, samples, per_shard)
    return {str(folder / name): count for name, count in manifest.sizes.items()}


def sha256(samples):
    return {hashlib.sha256(sample.image).digest() for sample in samples}


def rows(pictures):
    return {row.tobytes() for row in pictures.sha256}


def phash(sample):
    return perceptual_hashes(open_image(sample.image))[0]


def test_hashes_in_the_json_are_taken_and_the_pictures_not_looked_at(tmp_path):
    names = ["aa" * 32, "00" * 32]
    samples = [
        Sample(
            f"s{n}", b"\xff\xd8\xffnot a picture", "text", {"image_sha256": name, "phash": f"{n + 1:016x}"}
        )
        for n, name in enumerate(names)
    ]
    found = pictures_of_shards(written(tmp_path, samples))
    assert [row.tobytes().hex() for row in found.sha256] == sorted(names)
    assert found.perceptual.tolist() == [2, 1]


def test_what_the_json_lacks_is_computed_from_the_picture(tmp_path):
    samples = tiny_shards.samples(6)
    found = pictures_of_shards(written(tmp_path, samples))
    assert rows(found) == sha256(samples)
    expected = {hashlib.sha256(one.image).digest(): phash(one) for one in samples}
    assert (
        dict(zip((row.tobytes() for row in found.sha256), map(int, found.perceptual), strict=True))
        == expected
    )


def test_only_so_many_are_decoded_and_the_others_have_no_perceptual_hash(tmp_path):
    samples = tiny_shards.samples(10)
    found = pictures_of_shards(written(tmp_path, samples), most_decoded=3)
    assert rows(found) == sha256(samples)
    assert found.perceptual_known == 3


def test_a_picture_that_cannot_be_decoded_is_known_by_its_bytes(tmp_path):
    broken = Sample("a", BROKEN, "text", {"phash": "no hash"})
    found = pictures_of_shards(written(tmp_path, [broken]))
    assert rows(found) == sha256([broken])
    assert found.perceptual_known == 0


def test_a_picture_with_several_texts_is_one_and_keeps_the_hash_that_is_known(tmp_path):
    name = "ab" * 32
    samples = [
        Sample(key, tiny_shards.samples(1)[0].image, "text", {"image_sha256": name, **more})
        for key, more in (("a", {}), ("b", {"phash": "00000000000000ff"}), ("c", {}))
    ]
    found = pictures_of_shards(written(tmp_path, samples), most_decoded=0)
    assert (len(found), found.perceptual.tolist()) == (1, [255])


def test_only_the_first_samples_of_a_shard_count_where_a_limit_says_so(tmp_path):
    samples = tiny_shards.samples(8)
    first, second = written(tmp_path, samples)
    assert rows(pictures_of_shards({first: 4, second: 1})) == sha256(samples[:5])
    assert len(pictures_of_shards({first: 0})) == 0


def test_a_broken_shard_is_named(tmp_path):
    (shard,) = written(tmp_path, tiny_shards.samples(2))
    content = (tmp_path / "000000.tar").read_bytes()
    (tmp_path / "000000.tar").write_bytes(content[:700])
    with pytest.raises(DataError, match=r"000000\.tar: not a readable tar"):
        pictures_of_shards({shard: 2})


def test_the_file_holds_forty_bytes_for_each_picture_and_reads_back(tmp_path):
    seen = from_hashes([f"{n:064x}" for n in range(1000)], range(1, 1001))
    folder = write_tiny_model(tmp_path / "m")
    (folder / TRAINING_PICTURES).write_bytes(seen.to_bytes())
    assert 40_000 < len(seen.to_bytes()) < 40_300
    list_files_again(folder)
    found = read_training_pictures(open_model_folder(folder))
    assert np.array_equal(found.sha256, seen.sha256) and np.array_equal(found.perceptual, seen.perceptual)
    stored = load_file(folder / TRAINING_PICTURES)
    assert (stored["sha256"].dtype, stored["phash"].dtype) == (np.uint8, np.int64)


@pytest.mark.parametrize(
    "content",
    [
        b"nothing",
        save({"sha256": np.zeros((2, 32), np.uint8)}),
        save({"sha256": np.zeros((2, 32), np.uint8), "phash": np.zeros(3, np.int64)}),
        save({"sha256": np.zeros((2, 31), np.uint8), "phash": np.zeros(2, np.int64)}),
        save({"sha256": np.zeros((2, 32), np.int8), "phash": np.zeros(2, np.int64)}),
    ],
)
def test_a_malformed_file_is_named(content, tmp_path):
    folder = write_tiny_model(tmp_path / "m")
    (folder / TRAINING_PICTURES).write_bytes(content)
    list_files_again(folder)
    with pytest.raises(ModelFolderError, match=r"training_pictures\.safetensors: "):
        read_training_pictures(open_model_folder(folder))


def test_a_changed_file_is_refused_when_it_is_read_and_not_before(tmp_path):
    folder = write_tiny_model(tmp_path / "m")
    (folder / TRAINING_PICTURES).write_bytes(no_pictures().to_bytes())
    list_files_again(folder)
    (folder / TRAINING_PICTURES).write_bytes(from_hashes(["00" * 32]).to_bytes())
    assert pathclip.load(folder).encode_texts(["red"]).shape == (1, 8)
    with pytest.raises(ModelFolderError, match="SHA-256"):
        read_training_pictures(open_model_folder(folder, verify=False))


def test_a_folder_of_an_earlier_version_has_none(tmp_path):
    assert read_training_pictures(open_model_folder(write_tiny_model(tmp_path / "m"))) is None


@pytest.fixture(scope="module")
def run(shards, tmp_path_factory):
    """A training on two folders, one of them at half its weight, with a best state and an untrained one."""
    out = tmp_path_factory.mktemp("run")
    tiny_shards.write(out / "more", n=60)
    return train(
        config(
            shards,
            out / "run",
            f"data.train={{{shards / 'train'}: 1, {out / 'more'}: 0.5}}",
            "callbacks.checkpoints.monitor=val/loss",
            "trainer.max_epochs=1",
            "save_untrained=true",
        )
    )


def test_model_and_best_hold_the_pictures_of_all_folders_at_every_weight(run):
    for name in ("model", "best"):
        folder = open_model_folder(run.out / name)
        found = read_training_pictures(folder)
        # The first 40 of one folder are the other's.
        assert rows(found) == sha256(tiny_shards.samples(60))
        assert folder.card["training"]["pictures"] == {
            **{"different": 60, "perceptual_hashes": 60},
            "of_earlier_training": "none",
        }
    assert not open_model_folder(run.out / "untrained").has(TRAINING_PICTURES)


def test_torch_loads_the_folder_without_looking_at_the_pictures(run, tmp_path):
    folder = shutil.copytree(run.model, tmp_path / "m")
    (folder / TRAINING_PICTURES).write_bytes(b"changed")
    assert pathclip.load(folder, runtime="torch").encode_texts(["a"]).shape[0] == 1


def test_a_limit_leaves_the_others_out(shards, tmp_path):
    result = train(config(shards, tmp_path, "limit=16", "trainer.max_steps=1", "data.val=null"))
    found = read_training_pictures(open_model_folder(result.model))
    assert rows(found) == sha256(tiny_shards.samples(16))


def test_fine_tuning_keeps_the_pictures_of_the_model_it_began_with(run, tmp_path):
    other = [Sample("x", picture(5), "a red square", {"group": "x"}) for _ in range(1)]
    other += [Sample(f"y{n}", picture(n), "a blue square", {"group": f"y{n}"}) for n in range(6, 16)]
    write_shards(tmp_path / "other" / "train", other, 20)
    words = ["model=folder", f"model.path={run.model}", "data.val=null", "trainer.max_steps=1"]
    result = train(config(tmp_path / "other", tmp_path / "run", *words))
    folder = open_model_folder(result.model)
    assert rows(read_training_pictures(folder)) == sha256(other) | sha256(tiny_shards.samples(60))
    assert "are among them" in folder.card["training"]["pictures"]["of_earlier_training"]


def test_a_model_is_written_even_if_its_pictures_cannot_be_told(shards, tmp_path, monkeypatch, capfd):
    from pathclip.train import train as module

    # A shard is damaged after the last step.
    copy = shutil.copytree(shards, tmp_path / "shards")
    fit = module._fit
    damage = (copy / "train/000001.tar").write_bytes
    monkeypatch.setattr(module, "_fit", lambda *given: (fit(*given), damage(b"no tar")))
    result = train(config(copy, tmp_path / "run", "trainer.max_steps=1"))
    folder = open_model_folder(result.model)
    assert not folder.has(TRAINING_PICTURES)
    assert "000001.tar" in folder.card["training"]["pictures"]["missing"]
    assert "will not say which pictures were trained on" in capfd.readouterr().err


@pytest.mark.slow
def test_with_two_processes_the_first_one_writes_all_pictures(shards, tmp_path):
    words = [f"data.train={shards / 'train'}", "data.batch_size=8", "data.workers=0", f"out={tmp_path}"]
    ddp = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.max_steps=1"]
    assert train_in(2, ["model=tiny", *words, *ddp]) == [0, 0]
    found = read_training_pictures(open_model_folder(tmp_path / "model"))
    assert rows(found) == sha256(tiny_shards.samples(40))


def picture(seed):
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    Image.fromarray(noise).resize((40, 40)).save(buffer, "PNG")
    return buffer.getvalue()
