"""Sets whose folders are named by the class."""

from __future__ import annotations

import csv
import json

import pytest

from pathclip.errors import ConfigError, DataError
from pathclip.evaluate import datasets
from pathclip.evaluate.datasets.class_folders import EVA_TEST
from pathclip.runtime.images import open_image
from tests.evaluate import public_sets
from tests.evaluate.conftest import write_table


@pytest.fixture(scope="module")
def kather(tmp_path_factory):
    return public_sets.both_kather(tmp_path_factory.mktemp("kather"))


@pytest.fixture(scope="module")
def lc25000(tmp_path_factory):
    return public_sets.lc25000(tmp_path_factory.mktemp("lc25000"))


@pytest.fixture(scope="module")
def bach(tmp_path_factory):
    return public_sets.bach(tmp_path_factory.mktemp("bach"))


def test_kather_is_tested_on_one_folder_and_learnt_from_the_other(kather):
    data = datasets.kather(str(kather / "CRC-VAL-HE-7K"), str(kather / "NCT-CRC-HE-100K"))
    assert (len(data.test), len(data.train), data.validation) == (18, 90, None)
    assert {*data.test.labels} == {*public_sets.KATHER}
    assert all("CRC-VAL-HE-7K" in path for path in data.test.paths)
    assert open_image(next(data.test.contents([3]))).size == (32, 32)


def test_kather_holds_back_some_of_the_training_pictures_and_none_twice(kather):
    data = datasets.kather(str(kather / "CRC-VAL-HE-7K"), str(kather / "NCT-CRC-HE-100K"), 0.3)
    assert data.validation.split == "validation" and 10 < len(data.validation) < 50
    assert len(data.train) + len(data.validation) == 90
    assert not {*data.train.paths} & {*data.validation.paths}


def test_kather_without_a_class_says_what_is_missing_and_where_the_set_is(kather, tmp_path):
    root = public_sets.kather(tmp_path / "CRC", n=1)
    for file in (root / "STR").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"CRC/STR: no picture in it.*doi:10\.5281/zenodo\.1214456"):
        datasets.kather(str(root))
    (root / "STR").rmdir()
    with pytest.raises(DataError, match=r"CRC/STR: no such folder.*one folder of TIFF files for each of ADI"):
        datasets.kather(str(root))
    (root / "STROMA").mkdir()
    with pytest.raises(DataError, match=r"STROMA: its name is none of the classes ADI, BACK"):
        datasets.kather(str(root))


def test_a_missing_folder_is_one_line(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder") as caught:
        datasets.kather(str(tmp_path / "nowhere"))
    assert "\n" not in str(caught.value)


def test_lc25000_keeps_copies_of_a_tile_together(lc25000):
    data = datasets.lc25000(str(lc25000), str(lc25000 / "groups.csv"), validation_fraction=0.3)
    groups = [{*part.groups} for part in (data.test, data.train, data.validation)]
    assert len(data.test) + len(data.train) + len(data.validation) == 150
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert "" not in groups[0]
    assert {*data.test.labels} <= {"lung_aca", "lung_n", "lung_scc", "colon_aca", "colon_n"}


def test_lc25000_without_the_tiles_has_no_groups(lc25000):
    data = datasets.lc25000(str(lc25000 / "lung_colon_image_set"))
    assert not any(data.test.groups) and len(data.test) + len(data.train) == 150


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], r"groups\.csv: no row for lungaca1\.jpeg"),
        (
            lambda rows: [*rows, {**rows[0], "group_id": "999"}],
            "line 152: lungaca1 is in group 0 and in",
        ),
        (lambda rows: [{**rows[0], "group_id": ""}, *rows[1:]], "line 2: 'stem' or 'group_id' is empty"),
        (lambda rows: [{"name": row["stem"], "group_id": "1"} for row in rows], "no column 'stem'"),
    ],
)
def test_a_wrong_table_of_tiles_is_named(lc25000, tmp_path, change, message):
    lines = (lc25000 / "groups.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    file = write_table(tmp_path / "groups.csv", change(rows))
    with pytest.raises(DataError, match=message):
        datasets.lc25000(str(lc25000), str(file))


def test_bach_is_tested_on_the_pictures_that_eva_validates_on(bach):
    data = datasets.bach(str(bach))
    assert (len(data.test), len(data.train)) == (132, 268)
    # The runs that eva learns from, which must be all the others.
    learnt = [(0, 41), (59, 60), (90, 139), (169, 240), (258, 260), (273, 345), (368, 400)]
    numbers = [number for first, last in (*EVA_TEST, *learnt) for number in range(first, last)]
    assert sorted(numbers) == list(range(400))
    # Numbers count through Benign, InSitu, Invasive and Normal: 41 is b042, 240 is iv041.
    assert data.test.paths[0].endswith("Benign/b042.tif")
    assert any(path.endswith("Invasive/iv041.tif") for path in data.test.paths)
    assert next(data.test.contents([0])) == b"b42"


def test_bach_takes_the_patients_it_is_told(bach, tmp_path):
    rows = [{"file": f"b{number:03d}.tif", "patient": "p1"} for number in range(1, 51)]
    data = datasets.bach(str(bach), "hash", str(write_table(tmp_path / "p.csv", rows)), test_fraction=0.5)
    sides = [{*part.groups} for part in (data.test, data.train)]
    assert ("p1" in sides[0]) != ("p1" in sides[1]) and "iv001" in sides[0] | sides[1]


def test_bach_that_is_not_whole_cannot_be_split_by_number(tmp_path):
    public_sets.bach(tmp_path, n=3)
    with pytest.raises(DataError, match=r"12 pictures, but split=eva numbers the 400.*use split=hash"):
        datasets.bach(str(tmp_path))
    data = datasets.bach(str(tmp_path), "hash", test_fraction=None)
    assert len(data.test) == 12 and data.train is None


def test_a_folder_of_classes_is_read_by_its_parts(tmp_path):
    public_sets.folders(tmp_path)
    data = datasets.folders(str(tmp_path), group="^[^_]+")
    assert (len(data.test), len(data.train), len(data.validation)) == (12, 12, 12)
    assert data.test.labels[0] == "benign" and data.test.groups[:3] == ("test0", "test0", "test1")


def test_a_folder_of_classes_alone_is_tested_on_whole_or_by_fraction(tmp_path):
    public_sets.folders(tmp_path)
    whole = datasets.folders(str(tmp_path / "train"))
    assert len(whole.test) == 12 and whole.train is None and not any(whole.test.groups)
    part = datasets.folders(str(tmp_path / "train"), group="_([0-9]+)", test_fraction=0.5)
    assert part.train is not None and not {*part.test.groups} & {*part.train.groups}
    assert {*part.test.groups, *part.train.groups} == {*"012345"}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"validation": "val"}, DataError, "validation: neither of test, train, val; name it by"),
        ({"group": "x+"}, DataError, r"test0_0\.png: its name has no group by the expression 'x\+'"),
        ({"group": "("}, ConfigError, r"group: '\(' is no regular expression"),
        ({"test_fraction": 0.5}, DataError, "set test_fraction to null"),
        ({"test_fraction": 2.0}, DataError, "test_fraction: 2.0 is not between 0 and 1"),
    ],
)
def test_wrong_choices_for_a_folder_are_explained(tmp_path, arguments, error, message):
    public_sets.folders(tmp_path, n=2)
    with pytest.raises(error, match=message):
        datasets.folders(str(tmp_path), **arguments)


@pytest.mark.parametrize(
    "splits", [("train", "val"), ("Train", "Test"), ("train", "validation"), ("Val_set",)]
)
def test_splits_are_not_taken_for_classes(tmp_path, splits):
    for split in splits:
        for label in ("benign", "malignant"):
            public_sets.picture(tmp_path / split / label / "1.png")
    with pytest.raises(DataError, match=r"name of a split and not of a class, but there is no folder 'test'"):
        datasets.folders(str(tmp_path))


def test_a_split_of_any_name_is_not_taken_for_a_class_where_it_is_named(tmp_path):
    public_sets.picture(tmp_path / "fold1" / "benign" / "1.png")
    with pytest.raises(DataError, match="fold1: the name of a split"):
        datasets.folders(str(tmp_path), test="fold2", train="fold1")


def test_the_number_0_is_a_tile(lc25000, tmp_path):
    with (lc25000 / "groups.csv").open(newline="") as stream:
        rows = [{**row, "group_id": int(row["group_id"])} for row in csv.DictReader(stream)]
    file = tmp_path / "groups.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    data = datasets.lc25000(str(lc25000), str(file))
    assert "0" in {*data.test.groups, *data.train.groups}


def test_a_picture_beside_the_classes_is_not_lost_silently(tmp_path):
    public_sets.folders(tmp_path, n=2)
    public_sets.picture(tmp_path / "test" / "loose.png")
    with pytest.raises(DataError, match=r"loose\.png: a picture beside the folders of the classes"):
        datasets.folders(str(tmp_path))


def test_a_file_that_is_gone_when_it_is_read_is_named(tmp_path):
    public_sets.folders(tmp_path, n=2)
    data = datasets.folders(str(tmp_path))
    (tmp_path / "test" / "benign" / "test0_1.png").unlink()
    with pytest.raises(DataError, match=r"test0_1\.png: cannot be read"):
        list(data.test.contents([0, 1]))


@pytest.mark.real_data
def test_real_pictures_of_lc25000_are_split_by_their_tile(shared_data, tmp_path):
    images = shared_data / "patches" / "lc25000" / "images"
    for part, classes in public_sets.LC25000.items():
        (tmp_path / part).mkdir()
        for label in classes:
            (tmp_path / part / label).symlink_to(images / label)
    with (shared_data / "patches" / "manifest.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["dataset"] == "lc25000"]
    file = write_table(tmp_path / "tiles.csv", rows)
    data = datasets.lc25000(str(tmp_path), str(file), tile="group", name="path")
    assert len(data.test) + len(data.train) == len(rows)
    assert not {*data.test.groups} & {*data.train.groups}
    assert (
        {*data.test.labels}
        == {*data.train.labels}
        == {"lung_n", "lung_aca", "lung_scc", "colon_n", "colon_aca"}
    )
    assert open_image(next(data.test.contents([0]))).size[0] >= 224


@pytest.mark.real_data
def test_the_folders_of_real_pictures_give_what_their_table_gives(shared_data):
    root = shared_data / "patches"
    by_table = datasets.table(
        str(root / "manifest.csv"), root=str(shared_data), where={"dataset": "lc25000"}
    ).test
    by_folder = datasets.folders(str(root / "lc25000" / "images")).test
    assert dict(zip(by_folder.paths, by_folder.labels, strict=True)) == dict(
        zip(by_table.paths, by_table.labels, strict=True)
    )


def test_an_empty_folder_of_a_class_is_told_what_to_do_with(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no picture in it; delete the folder to do without the class"):
        datasets.folders(str(tmp_path))
