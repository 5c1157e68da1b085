"""Sets whose file names carry class and patient: WSSS4LUAD and BreakHis."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pathclip.evaluate.datasets.files import (
    Form,
    Picture,
    file_contents,
    find_pictures,
    labelled_data,
    split_pictures,
    subfolders,
)
from pathclip.evaluate.datasets.labelled import LabelledData, MultiLabelData, MultiLabelImages
from pathclip.evaluate.datasets.parts import TEST, VALIDATION

# The order of the three numbers in a file's name.
WSSS4LUAD = ("tumor", "stroma", "normal")
BREAKHIS = {
    "A": "adenosis",
    "F": "fibroadenoma",
    "PT": "phyllodes_tumor",
    "TA": "tubular_adenoma",
    "DC": "ductal_carcinoma",
    "LC": "lobular_carcinoma",
    "MC": "mucinous_carcinoma",
    "PC": "papillary_carcinoma",
}
MAGNIFICATIONS = (40, 100, 200, 400)

_WSSS4LUAD_NAME = re.compile(r"\[([01])[, _]+([01])[, _]+([01])\]\.png$")
_WSSS4LUAD_PLACE = re.compile(r"^(.+?)[-_]\d+[-_]\d+[-_]*\[")
_BREAKHIS_NAME = re.compile(r"^SOB_([BM])_([A-Z]+)-(\d+)-(\d+)[A-Z]*-(\d+)-\d+\.png$")
_WSSS4LUAD_FORM = Form(
    "WSSS4LUAD",
    "1.training/SLIDE-X-Y-[TUMOR, STROMA, NORMAL].png, as in 436219-7159-48057-[1, 0, 0].png",
    "wsss4luad.grand-challenge.org (registration)",
)
_BREAKHIS_FORM = Form(
    "BreakHis",
    "histology_slides/breast/{benign,malignant}/SOB/TYPE/SLIDE/40X/SOB_B_A-14-22549AB-40-001.png",
    "web.inf.ufpr.br/vri, Breast Cancer Histopathological Database",
)


def wsss4luad(
    folder: str, test_fraction: float | None = 0.3, validation_fraction: float | None = None
) -> LabelledData:
    """Reads WSSS4LUAD as PLIP did: 'tumor' where the first number is 1, else 'normal', stroma alone too.

    PLIP tested on 30 % of the pictures, drawn at random; here whole slides are drawn, by hash.

    Args:
        folder: 1.training or what holds it: 10,091 patches (Han et al. 2022, arXiv:2204.06455).
        test_fraction: of the slides to test on; None tests on all.
        validation_fraction: of the slides to learn from that are kept for validation.

    Raises:
        DataError: no such folder, or a name without three numbers.
    """
    root, found = _wsss4luad(folder)
    pictures = [
        Picture(file, "tumor" if "tumor" in labels else "normal", group) for file, labels, group in found
    ]
    return labelled_data(split_pictures(pictures, root, test_fraction, validation_fraction), root)


def wsss4luad_multi_label(folder: str, validation_fraction: float | None = 0.3) -> MultiLabelData:
    """Reads WSSS4LUAD with all that a patch shows: any of tumor, stroma and normal.

    Args:
        folder: 1.training or what holds it.
        validation_fraction: of the slides to fit thresholds on, chosen by hash; all others are tested on.

    Raises:
        DataError: no such folder, or a name without three numbers.
    """
    root, found = _wsss4luad(folder)
    rest = None if validation_fraction is None else 1 - validation_fraction
    pictures = split_pictures([Picture(file, "", group) for file, _, group in found], root, rest, None)
    tested = [number for number, picture in enumerate(pictures) if picture.part == TEST]
    fitted = [number for number, picture in enumerate(pictures) if picture.part != TEST]
    if not tested:
        raise _WSSS4LUAD_FORM.wrong(root, "no slide to test on")
    return MultiLabelData(
        _multi_label(found, tested, TEST), _multi_label(found, fitted, VALIDATION) if fitted else None
    )


def breakhis(
    folder: str,
    magnification: int = 200,
    classes: Literal["malignancy", "type"] = "malignancy",
    test_fraction: float | None = 0.3,
    validation_fraction: float | None = None,
) -> LabelledData:
    """Reads BreakHis (Spanhol et al. 2016, doi:10.1109/TBME.2015.2496264) at one magnification.

    The patient is year and number of the file's name, as in SOB_B_A-14-22549AB-40-001.png. Letters after the
    number are dropped, and one patient (14-13412) has pictures of two types: what may be of one patient stays
    together.

    Args:
        folder: BreaKHis_v1 or any folder above benign and malignant.
        magnification: 40, 100, 200 or 400.
        classes: 'malignancy' for benign and malignant, 'type' for the eight types.
        test_fraction: of the patients to test on, chosen by hash; None tests on all.
        validation_fraction: of the patients to learn from that are kept for validation.

    Raises:
        DataError: no such folder or magnification, or a name of another form.
    """
    form = _BREAKHIS_FORM
    inner = "histology_slides/breast"
    root = form.beside(
        Path(folder),
        (".", "breast", inner, f"BreaKHis_v1/{inner}", f"BreaKHis_v1/BreaKHis_v1/{inner}"),
        lambda path: (path / "benign" / "SOB").is_dir() and (path / "malignant" / "SOB").is_dir(),
    )
    if magnification not in MAGNIFICATIONS:
        raise form.wrong(root, f"magnification {magnification} is none of {MAGNIFICATIONS}")
    pictures = []
    for malignancy in ("benign", "malignant"):
        for kind in subfolders(root / malignancy / "SOB"):
            for slide in subfolders(kind):
                shown = slide / f"{magnification}X"
                for file in find_pictures(shown) if shown.is_dir() else ():
                    pictures.append(_breakhis(file, malignancy, kind.name, magnification, classes))
    if not pictures:
        raise form.wrong(root, f"no picture at {magnification}X")
    return labelled_data(split_pictures(pictures, root, test_fraction, validation_fraction), root)


def _breakhis(file: Path, malignancy: str, kind: str, magnification: int, classes: str) -> Picture:
    found = _BREAKHIS_NAME.match(file.name)
    if found is None:
        raise _BREAKHIS_FORM.wrong(file, "a name of another form")
    letter, code, year, number, shown = found.groups()
    if (BREAKHIS.get(code), letter, int(shown)) != (kind, malignancy[0].upper(), magnification):
        raise _BREAKHIS_FORM.wrong(file, f"its name does not fit its folder {malignancy}/SOB/{kind}")
    return Picture(file, malignancy if classes == "malignancy" else kind, f"{year}-{number}")


def _wsss4luad(folder: str) -> tuple[Path, list[tuple[Path, frozenset[str], str]]]:
    root = _WSSS4LUAD_FORM.beside(
        Path(folder),
        (".", "1.training", "1.training/1.training", "WSSS4LUAD/1.training"),
        lambda path: bool(find_pictures(path)),
    )
    found = []
    for file in find_pictures(root):
        label, place = _WSSS4LUAD_NAME.search(file.name), _WSSS4LUAD_PLACE.match(file.name)
        if label is None:
            raise _WSSS4LUAD_FORM.wrong(file, "its name does not end with three numbers of 0 and 1")
        shown = frozenset(name for name, given in zip(WSSS4LUAD, label.groups(), strict=True) if given == "1")
        found.append((file, shown, place[1] if place else ""))
    return root, found


def _multi_label(
    found: Sequence[tuple[Path, frozenset[str], str]], kept: Sequence[int], split: str
) -> MultiLabelImages:
    files, labels, groups = zip(*(found[number] for number in kept), strict=True)
    return MultiLabelImages(tuple(map(str, files)), labels, groups, split, file_contents(files))
