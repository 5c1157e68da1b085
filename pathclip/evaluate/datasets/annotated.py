"""Sets whose labels stand in a table of their own: MHIST (CSV) and SICAPv2 (Excel)."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pathclip.errors import DataError
from pathclip.evaluate.datasets.files import Form, Picture, hold_back, labelled_data
from pathclip.evaluate.datasets.labelled import LabelledData
from pathclip.evaluate.datasets.parts import TEST, TRAIN, VALIDATION
from pathclip.evaluate.datasets.tables import cell, lines, need_columns

MHIST = ("HP", "SSA")
MHIST_VOTES = 7
SICAP = ("NC", "G3", "G4", "G5")
# An Excel file is a zip of XML: SICAPv2's largest has 9,000 rows and 1 MB unpacked. Cells between those that
# are in it are filled in, so one far out asks for all memory.
_MAX_UNPACKED = 64 * 1024 * 1024
_MAX_ROWS, _MAX_COLUMNS = 50_000, 64

_VOTES = "Number of Annotators who Selected SSA (Out of 7)"
_MHIST_FORM = Form(
    "MHIST",
    f"annotations.csv with 'Image Name', 'Majority Vote Label', '{_VOTES}' and 'Partition', and images/*.png",
    "bmirds.github.io/MHIST (on request)",
)
_SICAP_FORM = Form(
    "SICAPv2",
    "images/*.jpg, partition/Test/Test.xlsx and partition/Validation/Val1/{Train,Test}.xlsx with the columns "
    "image_name, NC, G3, G4, G5 and G4C, and wsi_labels.xlsx",
    "doi:10.17632/9xxm58dvs3",
)


def mhist(folder: str, agreement: int = 4, validation_fraction: float | None = None) -> LabelledData:
    """Reads MHIST (Wei et al. 2021, arXiv:2101.12355): hyperplastic polyp or sessile serrated adenoma.

    The label is that of most of seven pathologists; the partition is the published one. Which pictures are of
    one slide is not published.

    Args:
        folder: holds annotations.csv and images.
        agreement: least number of the seven who gave the label, 4 to 7; pictures with fewer are left out.
        validation_fraction: of the pictures to learn from that are kept for validation, chosen by hash.

    Raises:
        DataError: a file is missing, or a row has an unknown label, partition or number of votes.
    """
    if not MHIST_VOTES // 2 < agreement <= MHIST_VOTES:
        raise DataError(f"agreement: {agreement} is not between {MHIST_VOTES // 2 + 1} and {MHIST_VOTES}")
    root = _MHIST_FORM.folder(Path(folder))
    file = _MHIST_FORM.file(root / "annotations.csv")
    pictures: list[Picture] = []
    for line, values in lines(file):
        need_columns(file, line, values, ["Image Name", "Majority Vote Label", _VOTES, "Partition"])
        label, votes, part = (values[key] for key in ("Majority Vote Label", _VOTES, "Partition"))
        where = f"{file}, line {line}"
        if label not in MHIST or part not in (TEST, TRAIN):
            raise _MHIST_FORM.wrong(where, f"label '{label}' or partition '{part}' is unknown")
        if not votes.isdecimal() or int(votes) > MHIST_VOTES:
            raise _MHIST_FORM.wrong(where, f"'{votes}' is not a number of annotators")
        agreed = int(votes) if label == "SSA" else MHIST_VOTES - int(votes)
        if agreed <= MHIST_VOTES // 2:
            raise _MHIST_FORM.wrong(where, f"{votes} votes for SSA do not make '{label}' the majority")
        if agreed >= agreement:
            path = _MHIST_FORM.file(root / "images" / values["Image Name"])
            pictures.append(Picture(path, label, part=part))
    return labelled_data(hold_back(pictures, root, validation_fraction), file)


def sicap(folder: str, fold: int | None = 1, cribriform: bool = False) -> LabelledData:
    """Reads SICAPv2 (Silva-Rodríguez et al. 2020, doi:10.1016/j.cmpb.2020.105637): Gleason patterns.

    The partition is the published one, by patient. Groups are patients where wsi_labels.xlsx is there, else
    slides, by the file's name.

    Args:
        folder: holds images and partition.
        fold: of the four published: Val1/Train.xlsx is learnt from, Val1/Test.xlsx is for validation. None
            learns from all that is not tested on, and has no validation.
        cribriform: whether G4 patches that the column G4C marks are a class of their own.

    Raises:
        DataError: a file, a column or a picture is missing, or a row has not exactly one class.
    """
    root = _SICAP_FORM.beside(
        Path(folder),
        (".", "SICAPv2"),
        lambda path: (path / "partition").is_dir() and (path / "images").is_dir(),
    )
    partition = root / "partition"
    tables = {TEST: partition / "Test" / "Test.xlsx"}
    if fold is None:
        tables[TRAIN] = partition / "Test" / "Train.xlsx"
    else:
        tables[TRAIN] = partition / "Validation" / f"Val{fold}" / "Train.xlsx"
        tables[VALIDATION] = partition / "Validation" / f"Val{fold}" / "Test.xlsx"
    patients = _patients(root / "wsi_labels.xlsx")
    columns = ["image_name", *SICAP, *(["G4C"] if cribriform else [])]
    pictures = []
    for part, file in tables.items():
        for row, values in _sheet(_SICAP_FORM.file(file), columns, _SICAP_FORM):
            label = _sicap_label(values, f"{file}, row {row}")
            path = _SICAP_FORM.file(root / "images" / cell(values["image_name"]))
            slide = path.name.partition("_Block")[0]
            if patients and not patients.get(slide):
                raise _SICAP_FORM.wrong(root / "wsi_labels.xlsx", f"no patient for the slide {slide}")
            pictures.append(Picture(path, label, patients.get(slide, slide), part))
    return labelled_data(pictures, tables[TEST])


def _sicap_label(values: dict[str, Any], where: str) -> str:
    given = [name for name in SICAP if values[name] == 1]
    if len(given) != 1:
        raise _SICAP_FORM.wrong(where, f"exactly one of {', '.join(SICAP)} must be 1, here {len(given)} are")
    return "G4C" if given == ["G4"] and values.get("G4C") == 1 else given[0]


def _patients(file: Path) -> dict[str, str]:
    """Patient by slide; none if there is no such file."""
    if not file.exists():
        return {}
    rows = _sheet(file, ["slide_id", "patient_id"], _SICAP_FORM)
    return {cell(values["slide_id"]): cell(values["patient_id"]).strip() for _, values in rows}


def _sheet(file: Path, columns: Sequence[str], form: Form) -> list[tuple[int, dict[str, Any]]]:
    """The named columns of each row of an Excel file's first sheet, with the row's number."""
    try:
        import openpyxl
    except ModuleNotFoundError:
        raise DataError(f"{file}: reading it needs the package openpyxl: pip install openpyxl") from None
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > _MAX_UNPACKED:
            raise form.wrong(file, f"{unpacked >> 20} MiB unpacked, refused")
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        try:
            sheet = book.worksheets[0]
            bounded = sheet.iter_rows(max_row=_MAX_ROWS + 1, max_col=_MAX_COLUMNS, values_only=True)
            rows = list(bounded)
        finally:
            book.close()
    except DataError:
        raise
    except Exception as error:  # zip, XML and openpyxl itself each raise their own on broken bytes
        raise form.wrong(file, f"not an Excel file that can be read ({error})") from None
    if len(rows) > _MAX_ROWS:
        raise form.wrong(file, f"more than {_MAX_ROWS} rows, refused")
    header = [cell(name) for name in rows[0]] if rows else []
    for column in columns:
        if column not in header:
            raise form.wrong(file, f"there is no column '{column}' among the first {_MAX_COLUMNS}")
    places = {column: header.index(column) for column in columns}
    return [
        (number, {column: cells[place] if place < len(cells) else None for column, place in places.items()})
        for number, cells in enumerate(rows[1:], 2)
        if any(value is not None for value in cells)
    ]
