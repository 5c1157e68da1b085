"""Pictures that were trained on are found, turned and compressed again too; others are not."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from pathclip.evaluate import leaks as module
from pathclip.evaluate.datasets import LabelledImages
from pathclip.evaluate.evaluate import evaluate
from pathclip.evaluate.features.encode import encode_pictures
from pathclip.evaluate.leaks import (
    find_leak,
    leak_remarks,
    learnt_leaks,
    seen_pictures,
    split_leaks,
    telling_hashes,
)
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Split, leaks
from pathclip.launch import compose
from pathclip.model_folder import TRAINING_PICTURES, open_model_folder
from pathclip.shards.writer import Sample, write_shards
from pathclip.train.train import train
from pathclip.train.training_pictures import TrainingPictures, from_hashes, no_pictures, pictures_of_shards
from tests import tiny_shards
from tests.evaluate.conftest import write_table
from tests.evaluate.encoders import ColourEncoder
from tests.tiny_model import list_files_again, write_tiny_model
from tests.train.tiny_run import config

SHARED = Path(os.environ.get("PATHCLIP_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


def picture(seed: int) -> Image.Image:
    """Coarse noise: every seed another picture, with structure as tissue has."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    return Image.fromarray(noise).resize((72, 72), Image.Resampling.BICUBIC)


def blank(seed: int) -> Image.Image:
    """Glass in a light of its own, with the dust that one and the same lens leaves on every picture."""
    dust = np.asarray(picture(99).convert("L"), np.float64)[..., None] / 255 * 12
    return Image.fromarray(np.repeat(250 - seed - dust, 3, axis=2).astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def encoded(contents: list[bytes]):
    names = [f"{n}.jpg" for n in range(len(contents))]
    return encode_pictures(lambda numbers: (contents[n] for n in numbers), names, [], ["plain"])


def pictures(contents: list[bytes]) -> TrainingPictures:
    found = encoded(contents)
    return from_hashes(found.sha256, map(int, found.perceptual[:, 0]))


def leak_of(seen: list[bytes], test: list[bytes]):
    found = encoded(test)
    return find_leak(pictures(seen), found.sha256, found.perceptual, telling_hashes(found))


SEEN = [jpeg(picture(n)) for n in range(8)]
OTHERS = [jpeg(picture(n)) for n in range(100, 110)]


def test_the_very_files_are_counted_and_marked():
    leak = leak_of(SEEN, [OTHERS[0], SEEN[3], OTHERS[1], SEEN[0]])
    assert (leak.exact, leak.near, leak.mask.tolist()) == (2, 0, [False, True, False, True])


@pytest.mark.parametrize(
    "change",
    [
        *(lambda image, turn=turn: image.transpose(turn) for turn in Image.Transpose),
        lambda image: image.resize((50, 50), Image.Resampling.BICUBIC),
        lambda image: ImageOps.grayscale(image).convert("RGB"),
        lambda image: image,
    ],
)
def test_a_turned_resized_grey_or_compressed_copy_is_near(change):
    leak = leak_of(SEEN, [jpeg(change(picture(5)), 40), OTHERS[0]])
    assert (leak.exact, leak.near, leak.mask.tolist()) == (0, 1, [True, False])


def test_a_picture_is_exact_or_near_and_not_both():
    leak = leak_of([*SEEN, jpeg(picture(5), 30)], [SEEN[5]])
    assert (leak.exact, leak.near) == (1, 0)


def test_blank_tiles_are_near_each_other_and_do_not_count():
    seen, test = (
        encoded([jpeg(blank(0))]),
        encoded([jpeg(blank(2)), jpeg(Image.new("RGB", (72, 72), "white"))]),
    )
    assert np.bitwise_count(seen.perceptual[0, 0] ^ test.perceptual[0, 0]) <= module.DISTANCE
    leak = leak_of([jpeg(blank(0)), jpeg(Image.new("RGB", (80, 80), "white"))], [jpeg(blank(2)), *OTHERS])
    assert (leak.exact, leak.near) == (0, 0)
    assert telling_hashes(test).tolist() == [False, False]


def test_the_file_of_a_blank_tile_counts_where_it_was_trained_on():
    assert leak_of([jpeg(blank(0))], [jpeg(blank(0))]).exact == 1


def test_of_a_model_whose_pictures_are_not_known_nothing_is_said():
    found = encoded(OTHERS)
    leak = find_leak(None, found.sha256, found.perceptual)
    assert (leak.exact, leak.near, leak.mask.any()) == (None, None, False)
    assert leak_remarks("m", leak) == [
        "m: the pictures it was trained on are not known, so a leak could not be looked for."
    ]


def test_without_perceptual_hashes_only_the_very_files_are_found():
    found = encoded(SEEN[:2])
    leak = find_leak(from_hashes(found.sha256[:1]), found.sha256, found.perceptual)
    assert (leak.exact, leak.near) == (1, None)
    lines = leak_remarks("m", leak, from_hashes(found.sha256[:1]))
    assert lines[0].startswith("LEAK: m was trained on 1 of these 2 pictures; ")
    assert "among 0 of its 1 training pictures only" in lines[1]


def test_a_model_that_was_not_trained_has_seen_none():
    found = encoded(SEEN)
    leak = find_leak(no_pictures(), found.sha256, found.perceptual)
    assert (leak.exact, leak.near) == (0, 0)
    assert leak_remarks("m", leak, no_pictures()) == []


def test_the_remark_counts_both_and_says_what_chance_would_bring():
    leak = leak_of(SEEN, [SEEN[0], jpeg(picture(5), 30), *OTHERS])
    (line,) = leak_remarks("m", leak, pictures(SEEN))
    assert line.startswith("LEAK: m was trained on 1 of these 12 pictures and near-duplicates of 1 more; ")
    many = TrainingPictures(np.zeros((30_000_000, 0), np.uint8), np.ones(30_000_000, np.uint64))
    assert "of 1 more (about 3 of them by chance)" in leak_remarks("m", leak, many)[0]


def test_subjects_of_one_model_are_asked_about_once_and_the_untrained_one_for_itself():
    seen = pictures(SEEN)
    subjects = [
        Subject("model", ColourEncoder(precision="int8", name="m"), "", seen),
        Subject("model", ColourEncoder(name="m"), "", seen),
        Subject("untrained", ColourEncoder(), "", no_pictures()),
    ]
    found, remarks = leaks(subjects, encoded([SEEN[0], OTHERS[0]]))
    assert {key: leak.exact for key, leak in found.items()} == {
        **{"model int8": 1, "model fp32": 1, "untrained fp32": 0},
    }
    assert len(remarks) == 1 and remarks[0].startswith("LEAK: m was trained on 1 of these 2 pictures")


def split(contents: list[bytes], name: str) -> Split:
    n = len(contents)
    images = LabelledImages(("",) * n, ("a",) * n, ("",) * n, name, lambda numbers: iter(()))
    return Split(images, np.zeros(n, np.int64), np.arange(n), encoded(contents))


def test_test_pictures_among_the_tasks_own_training_rows_are_told():
    train_rows = split([*SEEN, jpeg(blank(0))], "train")
    leak, lines = split_leaks(train_rows, split([SEEN[1], jpeg(picture(2).rotate(90), 50), *OTHERS], "test"))
    assert leak.mask.tolist() == [True, True, *[False] * len(OTHERS)]
    assert lines[0].startswith(
        "LEAK: of the 12 test pictures 1 as they are and 1 nearly stand in the task's own"
    )
    assert split_leaks(train_rows, split([*OTHERS, jpeg(blank(1))], "test"))[1] == []
    (line,) = split_leaks(train_rows, split([SEEN[1]], "test"), "validation rows")[1]
    assert "stand in the task's own validation rows;" in line


def test_near_duplicates_in_the_training_rows_that_chance_may_have_brought_are_not_held_against_them(
    monkeypatch,
):
    train_rows = split(SEEN, "train")
    altered = jpeg(picture(2).rotate(90), 50)
    test_rows = split([altered, *OTHERS], "test")
    assert split_leaks(train_rows, test_rows)[1] and learnt_leaks(train_rows, test_rows)
    # As if a thousand times as many pictures were compared: one that is near is to be expected.
    monkeypatch.setattr(module, "CHANCE", 1e-3)
    leak, lines = split_leaks(train_rows, test_rows)
    assert (leak.exact, leak.near) == (0, 1) and lines == []
    assert not learnt_leaks(train_rows, test_rows)
    assert split_leaks(train_rows, split([SEEN[1], *OTHERS], "test"))[1]  # no chance brings the very bytes


def test_what_measures_leave_out_of_the_training_rows_is_not_held_against_them():
    train_rows = split([SEEN[1], *OTHERS[:3]], "train")
    assert not learnt_leaks(train_rows, split([SEEN[1]], "test"))
    altered = split([jpeg(picture(1).rotate(90), 50)], "test")
    assert learnt_leaks(train_rows, altered)
    grouped = replace(train_rows, images=replace(train_rows.images, groups=("g", "", "", "")))
    same = replace(altered, images=replace(altered.images, groups=("g",)))
    assert not learnt_leaks(grouped, same)
    assert not learnt_leaks(split([SEEN[1]], "train"), split([SEEN[1]], "test"))  # nothing is left


def with_pictures(folder: Path, seen: TrainingPictures, **card) -> Path:
    write_tiny_model(folder, **card)
    (folder / TRAINING_PICTURES).write_bytes(seen.to_bytes())
    list_files_again(folder)
    return folder


def test_what_was_trained_on_comes_from_the_model_folder(tmp_path):
    shards = {"training": {"shards": [str(tmp_path / "gone")]}}
    folder = open_model_folder(with_pictures(tmp_path / "m", pictures(SEEN), **shards))
    assert len(seen_pictures(folder)) == len(SEEN)


def test_for_a_folder_of_an_earlier_version_the_shards_are_read_where_they_still_lie(tmp_path, monkeypatch):
    tiny_shards.write(tmp_path / "shards", n=5)
    card = {"training": {"shards": [str(tmp_path / "shards")]}}
    folder = open_model_folder(write_tiny_model(tmp_path / "m", **card))
    found = seen_pictures(folder)
    expected = {hashlib.sha256(sample.image).hexdigest() for sample in tiny_shards.samples(5)}
    assert {row.tobytes().hex() for row in found.sha256} == expected
    assert found.perceptual_known == 5
    monkeypatch.setattr(module, "MOST_PICTURES", 4)
    assert seen_pictures(folder) is None
    (tmp_path / "shards" / "sizes.json").unlink()
    assert seen_pictures(folder) is None
    assert seen_pictures(open_model_folder(write_tiny_model(tmp_path / "n"))) is None


def run(model: Path, out: Path, *overrides: str):
    words = [f"model={model}", f"out={out}", "bootstrap.resamples=20", *overrides]
    return json.loads(evaluate(compose("evaluate", words)).json.read_text())


def test_a_training_that_saw_pictures_of_the_task_is_flagged_by_the_report(tmp_path):
    """The whole way: shards, training, model folder, evaluation; the shards are gone by then."""
    names = list(tiny_shards.COLOURS)
    train_set = [Sample(f"s{n}", jpeg(picture(n)), f"a {names[n % 4]} square") for n in range(16)]
    write_shards(tmp_path / "data" / "train", train_set)
    model = train(config(tmp_path / "data", tmp_path / "run", "data.val=null", "trainer.max_steps=1")).model
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    test = [picture(n) for n in (0, 1, 200, 201, 202, 203)]
    held = [Sample("a", train_set[0].image, "x"), Sample("b", jpeg(ImageOps.mirror(test[1]), 60), "y")]
    held += [Sample(f"c{n}", jpeg(image), f"z{n}") for n, image in enumerate(test[2:])]
    write_shards(tmp_path / "test", held)
    report = run(
        model, tmp_path / "report", "task=shards", f"tasks.shards.dataset.folder={tmp_path / 'test'}"
    )
    (line,) = [one for one in report["tasks"]["shards"]["remarks"] if one.startswith("LEAK")]
    assert "1 of these 6 pictures and near-duplicates of 1 more" in line
    contexts = [one["context"] for one in report["scores"] if "leaked" in one["context"]]
    assert contexts and {(one["leaked"], one["near_leaked"]) for one in contexts} == {(1, 1)}


def test_a_split_that_leaks_is_flagged_by_the_report_and_a_clean_one_is_not(tmp_path):
    model = with_pictures(tmp_path / "m", no_pictures())
    names = list(tiny_shards.COLOURS)
    for leaking in (True, False):
        rows = []
        for n in range(24):
            image = jpeg(picture(n % 16 if leaking else n), 90 if n < 16 else 50)
            (tmp_path / f"{leaking}{n}.jpg").write_bytes(image)
            part = "train" if n < 16 else "test"
            rows.append({"path": f"{leaking}{n}.jpg", "label": names[n % 4], "group": f"g{n}", "split": part})
        table = write_table(tmp_path / f"{leaking}.csv", rows)
        words = [f"csv={table}", "group=group", "split=split"]
        report = run(
            model,
            tmp_path / f"report{leaking}",
            "task=patches_csv",
            *(f"tasks.patches_csv.dataset.{word}" for word in words),
        )
        lines = [one for one in report["tasks"]["patches_csv"]["remarks"] if one.startswith("LEAK")]
        assert len(lines) == leaking
        if leaking:
            assert "of the 8 test pictures 8 nearly stand in the task's own training rows" in lines[0]


@pytest.mark.real_data
def test_patches_of_different_data_sets_are_not_near_and_altered_ones_are():
    if not (SHARED / "patches" / "manifest.csv").is_file():
        pytest.skip(f"no {SHARED / 'patches'}")
    with (SHARED / "patches" / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    some = {
        name: [SHARED / row["path"] for row in rows if row["dataset"] == name][::4]
        for name in ("lc25000", "oral_oscc", "histolab_qc")
    }
    contents = {name: [path.read_bytes() for path in paths] for name, paths in some.items()}
    seen = pictures(contents["lc25000"])
    altered = []
    for content in contents["lc25000"][:40]:
        image = Image.open(io.BytesIO(content)).convert("RGB")
        altered.append(jpeg(image.transpose(Image.Transpose.ROTATE_90).resize((112, 112)), 75))
    for name, expected in (("oral_oscc", 0), ("histolab_qc", 0)):
        found = encoded(contents[name])
        leak = find_leak(seen, found.sha256, found.perceptual, telling_hashes(found))
        assert (leak.exact, leak.near) == (0, expected), name
    found = encoded(altered)
    assert find_leak(seen, found.sha256, found.perceptual, telling_hashes(found)).near == 40


def test_a_model_and_a_shard_hash_a_picture_alike(tmp_path):
    """Curation and training may decode a JPEG at a part of its size; the task decodes it whole."""
    large = jpeg(picture(3).resize((900, 700), Image.Resampling.BICUBIC))
    write_shards(tmp_path, [Sample("a", large, "text")])
    seen = pictures_of_shards({str(tmp_path / "000000.tar"): 1})
    found = encoded([jpeg(picture(3).resize((900, 700), Image.Resampling.BICUBIC), 80)])
    assert find_leak(seen, found.sha256, found.perceptual).near == 1
