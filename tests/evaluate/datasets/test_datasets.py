from __future__ import annotations

import json

import pytest

from pathclip.errors import DataError
from pathclip.evaluate import datasets
from pathclip.shards.writer import Sample
from tests import tiny_shards
from tests.evaluate.conftest import write_table


def rows(n=4):
    return [{"path": f"{i}.jpg", "label": "ab"[i % 2], "group": f"g{i // 2}", "where": "x"} for i in range(n)]


@pytest.fixture
def folder(tmp_path):
    for number in range(12):
        (tmp_path / f"{number}.jpg").write_bytes(bytes([number]))
    return tmp_path


def test_a_table_is_split_by_its_column(squares):
    data = datasets.table(str(squares), group="group", split="split")
    assert data.train is not None
    assert (len(data.test), len(data.train)) == (32, 64)
    assert not {*data.test.groups} & {*data.train.groups}
    assert data.test.split == "test"


def test_without_a_split_every_row_is_tested_on(squares):
    data = datasets.table(str(squares))
    assert len(data.test) == 96 and data.train is None and not any(data.test.groups)


def test_a_split_by_hash_keeps_groups_whole_and_repeats(squares):
    first, second = (datasets.table(str(squares), group="group", test_fraction=0.4) for _ in range(2))
    assert first.test.paths == second.test.paths
    assert not {*first.test.groups} & {*first.train.groups}
    assert 20 <= len(first.test) <= 56


def test_a_split_by_hash_takes_absolute_paths_outside_the_root(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    values = [{"path": str(folder / f"{i}.jpg"), "label": "ab"[i % 2]} for i in range(12)]
    data = datasets.table(str(write_table(elsewhere / "t.csv", values)), test_fraction=0.5)
    assert data.train is not None and len(data.test) + len(data.train) == 12
    expected = {v["path"] for v in values if datasets.hash_share(v["path"]) < 0.5}
    assert {*data.test.paths} == expected


def test_the_hash_of_a_picture_below_the_root_does_not_depend_on_where_that_lies(folder):
    names = [f"{i}.jpg" for i in range(12)]
    tables = [
        [{"path": str(root / name) if root else name, "label": "ab"[i % 2]} for i, name in enumerate(names)]
        for root in (None, folder)
    ]
    relative, absolute = (
        datasets.table(str(write_table(folder / "t.csv", rows)), test_fraction=0.5).test.paths
        for rows in tables
    )
    assert relative == absolute


def test_where_keeps_rows_with_one_of_the_values(squares):
    data = datasets.table(str(squares), where={"label": ["red", "blue"]})
    assert {*data.test.labels} == {"red", "blue"}
    assert {*datasets.table(str(squares), where={"label": "red"}).test.labels} == {"red"}


def test_rows_for_validation_are_neither_learnt_from_nor_tested_on(folder):
    values = [{**row, "split": part} for row, part in zip(rows(6), ("test", "train", "val") * 2, strict=True)]
    file = str(write_table(folder / "t.csv", values))
    data = datasets.table(file, split="split", validation="val")
    parts = (data.test, data.train, data.validation)
    assert [[path[-5:] for path in part.paths] for part in parts] == [
        ["0.jpg", "3.jpg"],
        ["1.jpg", "4.jpg"],
        ["2.jpg", "5.jpg"],
    ]
    assert [part.split for part in parts] == ["test", "train", "validation"]
    assert datasets.table(file, split="split").validation is None


def test_rows_that_are_tested_on_are_never_fitted_on(folder):
    values = [{**row, "split": part} for row, part in zip(rows(), ("train", "validation") * 2, strict=True)]
    data = datasets.table(str(write_table(folder / "t.csv", values)), split="split", test="validation")
    assert len(data.test) == 2 and data.validation is None


def test_some_groups_to_learn_from_can_be_kept_for_validation(squares):
    data = datasets.table(str(squares), group="group", split="split", validation_fraction=0.4)
    groups = [{*part.groups} for part in (data.test, data.train, data.validation)]
    assert len(data.test) == 32 and len(data.train) + len(data.validation) == 64
    assert not groups[1] & groups[2] and not groups[0] & groups[2]
    assert groups[2] == {
        one for one in groups[1] | groups[2] if datasets.hash_share(f"validation:{one}") < 0.4
    }
    with pytest.raises(DataError, match=r"validation_fraction: 1\.5 is not between 0 and 1"):
        datasets.table(str(squares), validation_fraction=1.5)


def test_labelled_shards_can_be_for_validation(tmp_path):
    tiny_shards.write(tmp_path / "shards", n=4)
    data = datasets.labelled_shards(*(str(tmp_path / "shards"),) * 2, validation=str(tmp_path / "shards"))
    assert len(data.validation) == 4 and data.validation.split == "validation"


def test_jsonl_reads_as_csv_does(folder):
    table = write_table(folder / "t.csv", rows())
    (folder / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows()) + "\n")
    first, second = datasets.table(str(table)).test, datasets.table(str(folder / "t.jsonl")).test
    assert first.paths == second.paths and first.labels == second.labels


def test_contents_are_the_files_asked_for(folder):
    data = datasets.table(str(write_table(folder / "t.csv", rows()))).test
    assert list(data.contents([1, 3])) == [b"\x01", b"\x03"]


def test_a_limit_takes_the_classes_in_turn(folder):
    values = [
        {"path": f"{i}.jpg", "label": "a" if i < 10 else "b", "group": "", "where": ""} for i in range(12)
    ]
    data = datasets.table(str(write_table(folder / "t.csv", values))).test.first(4)
    assert data.labels == ("a", "a", "b", "b")
    assert list(data.contents([2])) == [b"\x0a"]


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({"path": "missing.jpg"}, {}, r"t\.csv, line 3: there is no picture .*missing\.jpg"),
        ({"label": " "}, {}, r"t\.csv, line 3: the column 'label' is empty"),
        (
            {},
            {"label": "lable"},
            r"t\.csv, line 1 \(the header\): there is no column 'lable', only path, label.*dataset\.label=…",
        ),
        ({}, {"group": "grp"}, "there is no column 'grp'"),
        ({}, {"where": {"where": "y"}}, "no row to test on and where=y"),
        ({}, {"split": "where", "test": "held_out"}, "no row to test on with where=held_out"),
        ({}, {"test_fraction": 1.5}, "test_fraction: 1.5 is not between 0 and 1"),
    ],
)
def test_a_bad_table_names_file_line_and_column(folder, change, arguments, message):
    values = rows()
    values[1].update(change)
    with pytest.raises(DataError, match=message):
        datasets.table(str(write_table(folder / "t.csv", values)), **arguments)


def test_a_name_longer_than_the_system_takes_names_its_line(folder):
    (folder / "t.csv").write_text(f"path,label\n0.jpg,a\n{'n' * 300}.jpg,b\n")
    with pytest.raises(DataError, match=r"t\.csv, line 3: .*n\.jpg cannot be read \(File name too long\)"):
        datasets.table(str(folder / "t.csv"))
    with pytest.raises(DataError, match=r"cannot be read \(File name too long\)"):
        datasets.table(str(folder / f"{'n' * 300}.csv"))


def test_the_number_0_in_json_is_a_class_and_a_group(folder):
    lines = [{"path": f"{i}.jpg", "label": i % 2, "group": i // 2} for i in range(4)]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = datasets.table(str(folder / "t.jsonl"), group="group").test
    assert (data.labels, data.groups) == (("0", "1", "0", "1"), ("0", "0", "1", "1"))


def test_the_number_0_in_json_is_a_split(folder):
    lines = [{"path": f"{i}.jpg", "label": "a", "split": i % 2} for i in range(4)]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = datasets.table(str(folder / "t.jsonl"), split="split", train="1", test="0")
    assert len(data.test) == len(data.train) == 2


@pytest.mark.parametrize("value", [None, ""])
def test_a_label_that_is_missing_in_json_is_named(folder, value):
    (folder / "t.jsonl").write_text(json.dumps({"path": "0.jpg", "label": value}))
    with pytest.raises(DataError, match="line 1: the column 'label' is empty"):
        datasets.table(str(folder / "t.jsonl"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"path": "0.jpg"', "line 1: not valid JSON"),
        (b"\n" + b"[" * 100_000, "line 2: nested too deeply, refused"),
        (b"[1]", "not a JSON object"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_malformed_json_lines_name_the_line(folder, content, message):
    (folder / "t.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        datasets.table(str(folder / "t.jsonl"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0.jpg,a", '"1.jpg,b', "2.jpg,a"], r"t\.csv, line 3: not valid CSV \(unexpected end of data\)"),
        (["0.jpg,a", "1.jpg", "2.jpg,a"], r"t\.csv, line 3: 1 cells, but the header has 2"),
        (["0.jpg,a", "1.jpg,b", "2.jpg,a,b,c"], r"t\.csv, line 4: 4 cells, but the header has 2"),
        (['0.jpg,"a"b'], r"t\.csv, line 2: not valid CSV"),
    ],
)
def test_a_malformed_csv_is_refused_and_no_row_is_lost_silently(folder, lines, message):
    (folder / "t.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    with pytest.raises(DataError, match=message):
        datasets.table(str(folder / "t.csv"))


def test_a_column_that_stands_twice_is_refused(folder):
    (folder / "t.csv").write_text("path,label,label\n0.jpg,a,b\n")
    with pytest.raises(DataError, match=r"t\.csv, line 1: the column 'label' stands twice"):
        datasets.table(str(folder / "t.csv"))


def test_columns_without_a_name_may_be_several(folder):
    (folder / "t.csv").write_text("path,label,,\n0.jpg,a,,\n")
    assert datasets.table(str(folder / "t.csv")).test.labels == ("a",)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.csv: no such table; name it by dataset\.csv=…$"):
        datasets.table(str(tmp_path / "nothing.csv"))


def test_a_missing_table_of_the_shared_data_is_told_how_their_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATHCLIP_SHARED_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"no such table\. .*PATHCLIP_SHARED_DATA"):
        datasets.table(str(tmp_path / "patches" / "nothing.csv"))


def test_shards_read_as_pairs_with_their_groups(tmp_path):
    tiny_shards.write(tmp_path / "shards", n=14)
    pairs = datasets.shards(str(tmp_path / "shards"))
    expected = tiny_shards.samples(14)
    assert pairs.texts == tuple(sample.text for sample in expected)
    assert pairs.groups[:3] == ("g0", "g0", "g1")
    assert list(pairs.contents([2, 13])) == [expected[2].image, expected[13].image]
    assert len(pairs.first(5)) == 5


def test_labelled_shards_leave_out_samples_without_a_label(tmp_path):
    samples = tiny_shards.samples(8)
    bare = [type(s)(s.key, s.image, s.text, {} if n % 2 else s.meta) for n, s in enumerate(samples)]
    tiny_shards.write_shards(tmp_path / "shards", bare)
    data = datasets.labelled_shards(str(tmp_path / "shards"))
    assert data.test.labels == ("red", "green", "blue", "grey")
    assert list(data.test.contents([1])) == [samples[2].image]


def test_the_number_0_in_a_samples_json_is_a_class_and_a_group(tmp_path):
    numbered = [
        Sample(s.key, s.image, s.text, {"label": number % 3, "group": number // 2})
        for number, s in enumerate(tiny_shards.samples(6))
    ]
    tiny_shards.write_shards(tmp_path / "shards", numbered)
    data = datasets.labelled_shards(str(tmp_path / "shards")).test
    assert data.labels == ("0", "1", "2", "0", "1", "2")
    assert data.groups == datasets.shards(str(tmp_path / "shards")).groups == ("0", "0", "1", "1", "2", "2")


def test_shards_without_any_label_are_refused(tmp_path):
    tiny_shards.write(tmp_path / "shards", n=4)
    with pytest.raises(DataError, match="no sample has the entry 'diagnosis'"):
        datasets.labelled_shards(str(tmp_path / "shards"), label="diagnosis")
