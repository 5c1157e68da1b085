"""Sets whose labels stand in a table of their own."""

from __future__ import annotations

import tracemalloc
import zipfile

import openpyxl
import pytest

from pathclip.errors import DataError
from pathclip.evaluate import datasets
from tests.evaluate import public_sets

HEADER = ["image_name", "NC", "G3", "G4", "G5"]


@pytest.fixture
def mhist(tmp_path):
    return public_sets.mhist(tmp_path)


@pytest.fixture
def sicap(tmp_path):
    return public_sets.sicap(tmp_path)


def test_mhist_has_the_majority_and_the_published_partition(mhist):
    data = datasets.mhist(str(mhist))
    assert data.test.labels == ("HP", "HP", "SSA", "SSA") and data.train.labels == ("HP", "HP", "SSA", "SSA")
    assert not any(data.test.groups) and data.validation is None


def test_mhist_can_be_asked_for_pictures_that_pathologists_agree_on(mhist):
    data = datasets.mhist(str(mhist), agreement=6)
    # 0, 1, 6 and 7 votes for SSA: six or seven of seven agree.
    assert [path[-7:-4] for path in (*data.test.paths, *data.train.paths)] == ["aba", "aha", "aaa", "aga"]
    with pytest.raises(DataError, match="agreement: 3 is not between 4 and 7"):
        datasets.mhist(str(mhist), agreement=3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",HP,0,", ",hp,0,", "line 2: label 'hp' or partition 'train' is unknown"),
        (",0,train", ",0,val", "line 2: label 'HP' or partition 'val' is unknown"),
        (",HP,0,", ",HP,nine,", "line 2: 'nine' is not a number of annotators"),
        (",HP,0,", ",HP,6,", "line 2: 6 votes for SSA do not make 'HP' the majority"),
        ("MHIST_aaa", "MHIST_zzz", r"MHIST_zzz\.png: no such file\. MHIST is expected as annotations\.csv"),
        ("Partition", "Part", "there is no column 'Partition'"),
    ],
)
def test_a_wrong_row_of_mhist_is_named(mhist, old, new, message):
    file = mhist / "annotations.csv"
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        datasets.mhist(str(mhist))


def test_mhist_without_its_table_says_where_to_ask(tmp_path):
    with pytest.raises(DataError, match=r"annotations\.csv: no such file.*at bmirds\.github\.io/MHIST"):
        datasets.mhist(str(tmp_path))


def test_sicap_has_the_published_partition_and_patients(sicap):
    data = datasets.sicap(str(sicap))
    assert (len(data.test), len(data.train), len(data.validation)) == (10, 10, 10)
    assert data.test.labels[:5] == ("NC", "G3", "G4", "G5", "G4")
    assert {*data.test.groups} == {"1"} and {*data.validation.groups} == {"3"}
    assert "Block_Region" in data.validation.paths[0]


def test_sicap_without_the_table_of_patients_has_slides(sicap):
    (sicap / "SICAPv2" / "wsi_labels.xlsx").unlink()
    assert {*datasets.sicap(str(sicap)).test.groups} == {"16B0001", "16B0002"}


def test_sicap_can_learn_from_all_and_tell_cribriform_glands_apart(sicap):
    data = datasets.sicap(str(sicap / "SICAPv2"), fold=None, cribriform=True)
    assert len(data.train) == 20 and data.validation is None
    assert data.test.labels[:5] == ("NC", "G3", "G4", "G5", "G4C")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([HEADER[:-1], ["a.jpg", 1, 0, 0]], r"Test\.xlsx: there is no column 'G5'"),
        (
            [["image_name", "NC", "G3", "G4", "G5"], ["a.jpg", 1, 1, 0, 0]],
            "row 2: exactly one of .* here 2 are",
        ),
        (
            [["image_name", "NC", "G3", "G4", "G5"], ["a.jpg", None, 0, 0, 0]],
            "row 2: exactly one of .* here 0 are",
        ),
        ([HEADER, ["a.jpg", 1, 0, 0, 0]], r"images/a\.jpg: no such file"),
        ([], "there is no column 'image_name'"),
    ],
)
def test_a_wrong_sheet_of_sicap_is_named(sicap, rows, message):
    public_sets.sheet(sicap / "SICAPv2" / "partition" / "Test" / "Test.xlsx", rows)
    with pytest.raises(DataError, match=message):
        datasets.sicap(str(sicap))


def test_a_cell_far_to_the_right_does_not_ask_for_all_memory(sicap):
    file = sicap / "SICAPv2" / "partition" / "Test" / "Test.xlsx"
    book = openpyxl.load_workbook(file)
    book.active.cell(1, 16_384, "far")
    book.active.cell(4_000, 1, None)
    for row in range(12, 4_000):
        book.active.cell(row, 7, "")
    book.save(file)
    tracemalloc.start()
    assert len(datasets.sicap(str(sicap)).test) == 10
    assert tracemalloc.get_traced_memory()[1] < 30_000_000
    tracemalloc.stop()


def test_a_row_far_down_is_refused_and_not_left_out(sicap):
    file = sicap / "SICAPv2" / "partition" / "Test" / "Test.xlsx"
    book = openpyxl.load_workbook(file)
    book.active.cell(1_048_576, 1, "far.jpg")
    book.save(file)
    with pytest.raises(DataError, match="more than 50000 rows, refused"):
        datasets.sicap(str(sicap))


def test_a_slide_without_a_patient_is_named(sicap):
    file = sicap / "SICAPv2" / "wsi_labels.xlsx"
    book = openpyxl.load_workbook(file)
    book.active.cell(3, 2).value = None
    book.save(file)
    with pytest.raises(DataError, match=r"wsi_labels\.xlsx: no patient for the slide 16B0002"):
        datasets.sicap(str(sicap))


def test_a_name_longer_than_the_system_takes_is_refused_in_one_line(mhist):
    file = mhist / "annotations.csv"
    file.write_text(file.read_text().replace("MHIST_aaa", "M" * 300, 1))
    with pytest.raises(DataError, match=r"M\.png: cannot be read \(File name too long\)\. MHIST is expected"):
        datasets.mhist(str(mhist))


def test_what_is_no_excel_file_is_refused(sicap):
    file = sicap / "SICAPv2" / "partition" / "Test" / "Test.xlsx"
    file.write_bytes(b"image_name,NC")
    with pytest.raises(DataError, match=r"Test\.xlsx: not an Excel file that can be read"):
        datasets.sicap(str(sicap))


def test_an_excel_file_that_unpacks_to_too_much_is_refused_before_it_is_read(sicap):
    file = sicap / "SICAPv2" / "partition" / "Test" / "Test.xlsx"
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/more.xml", bytes(65 * 1024 * 1024))
    with pytest.raises(DataError, match="65 MiB unpacked, refused"):
        datasets.sicap(str(sicap))
