from __future__ import annotations

import csv
import json
import sys

import pytest

from pathclip.commands.answers_out import Columns, check_out, writing
from pathclip.errors import DataError

COLUMNS = Columns("file", ("case",), ("red", "a, b"), calibrated=False)
LABELS = [
    {"name": "a, b", "probability": 0.75, "similarity": 0.5},
    {"name": "red", "probability": 0.25, "similarity": 0.25},
]
ENTRIES = [
    {"path": "=cmd|x.png", "row": {"case": '-1,"q"\n'}, "labels": LABELS},
    {"path": "gone.png", "row": {"case": "8"}, "error": "gone.png: no such file"},
    {"path": "top.png", "row": {"case": ""}, "labels": LABELS[:1]},
]


def write(out, columns=COLUMNS, entries=ENTRIES):
    with writing(out, columns) as row:
        for entry in entries:
            row(entry)
    return out


def test_cells_of_a_csv_are_read_back_as_they_were(tmp_path):
    with write(tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("file", "case", "answer", "probability", "similarity", "p(red)", "p(a, b)", "error")
    ]
    assert list(rows[0].values()) == ["=cmd|x.png", '-1,"q"\n', "a, b", "0.75", "0.5", "0.25", "0.75", ""]
    assert list(rows[1].values()) == ["gone.png", "8", *[""] * 5, "gone.png: no such file"]
    assert rows[2]["p(red)"] == ""


def test_json_lines_hold_the_entries(tmp_path):
    lines = write(tmp_path / "a.jsonl", entries=[*ENTRIES, {"path": "a\u2028b.png"}]).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [*ENTRIES, {"path": "a\u2028b.png"}]


def test_parquet_holds_the_same_rows_with_their_kinds(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(write(tmp_path / "a.parquet", entries=ENTRIES * 3000))
    assert table.num_rows == 9000
    assert {str(table.schema.field(name).type) for name in ("probability", "p(red)")} == {"double"}
    first, failed, _ = table.slice(0, 3).to_pylist()
    assert first["file"] == "=cmd|x.png" and first["case"] == '-1,"q"\n' and first["p(a, b)"] == 0.75
    assert failed["answer"] is None and failed["error"] == "gone.png: no such file"


def test_parquet_of_no_pictures_has_its_columns(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert parquet.read_table(write(tmp_path / "a.parquet", entries=[])).column_names == COLUMNS.names()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_calibrated_answer_has_its_set_and_its_doubt(tmp_path, suffix):
    entry = {"path": "x", "labels": LABELS, "set": ["a, b", "red"], "none_of_these": True}
    out = write(tmp_path / f"a.{suffix}", Columns("path", (), (), calibrated=True), [entry])
    if suffix == "csv":
        assert out.read_text().splitlines()[1] == 'x,"a, b",0.75,0.5,"a, b, red",true,'
    elif suffix == "jsonl":
        assert json.loads(out.read_text())["none_of_these"] is True
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        assert parquet.read_table(out).to_pylist()[0]["none_of_these"] is True


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, DataError])
def test_what_stops_half_way_leaves_the_old_file_and_no_other(tmp_path, suffix, stop):
    out = tmp_path / f"a.{suffix}"
    out.write_text("old")
    with pytest.raises(stop), writing(out, COLUMNS) as row:
        row(ENTRIES[0])
        raise stop
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("name", ["answer", "error", "p(red)"])
def test_a_column_of_the_table_that_is_called_like_an_answer_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="is a column of the answers"):
        write(tmp_path / "a.csv", Columns("file", (name,), ("red",), False), [])
    assert not list(tmp_path.iterdir())


def test_a_file_that_could_not_be_written_is_refused_before_any_work(tmp_path):
    table = tmp_path / "tiles.csv"
    table.write_text("path\n")
    (tmp_path / "folder.csv").mkdir()
    for out, fault in [
        (tmp_path / "a.txt", r"must end in \.csv, \.jsonl or \.parquet"),
        (tmp_path / "folder.csv", "a folder"),
        (table, "would replace the table"),
    ]:
        with pytest.raises(DataError, match=fault):
            check_out(out, table)


def test_without_pyarrow_parquet_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'pathclip\[parquet\]'"):
        check_out(tmp_path / "a.parquet", None)


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        write(tmp_path / "file" / "a.csv")


@pytest.mark.parametrize("cell", ["a\rb", "\r", "a\r\nb", 'say "a"', " a ", "a;b"])
def test_a_cell_with_a_carriage_return_stays_in_its_row(tmp_path, cell):
    out = write(tmp_path / "a.csv", entries=[{"path": cell, "row": {"case": cell}}, ENTRIES[1]])
    with out.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["file"], first["case"], second["file"]) == (cell, cell, "gone.png")


def test_a_name_that_is_too_long_is_one_line(tmp_path):
    table = tmp_path / "tiles.csv"
    table.write_text("path\n")
    with pytest.raises(DataError, match="cannot be written"):
        check_out(tmp_path / ("x" * 300 + ".csv"), table)
