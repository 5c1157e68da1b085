"""Sets whose folders are named by the class: any such folder, Kather's, LC25000 and BACH."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pathclip.errors import ConfigError, DataError
from pathclip.evaluate.datasets.files import (
    Form,
    Picture,
    class_folders,
    find_pictures,
    group_of,
    hold_back,
    labelled_data,
    read_groups,
    split_pictures,
    subfolders,
)
from pathclip.evaluate.datasets.labelled import LabelledData
from pathclip.evaluate.datasets.parts import TEST, TRAIN, VALIDATION, check_fraction
from pathclip.runtime.images import find_images

KATHER = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
LC25000 = {
    "lung_image_sets": ("lung_aca", "lung_n", "lung_scc"),
    "colon_image_sets": ("colon_aca", "colon_n"),
}
# In the order of their names: `EVA_TEST` counts so.
BACH = ("Benign", "InSitu", "Invasive", "Normal")
BACH_SIZE = 400
# First and last + 1 of each run of pictures that eva (github.com/kaiko-ai/eva, `BACH`) validates on: it chose
# them so that no identified patient is on both sides.
EVA_TEST = ((41, 59), (60, 90), (139, 169), (240, 258), (260, 273), (345, 368))

# Names of splits, and not of classes.
_SPLIT = re.compile(
    r"(train(ing)?|val(id(ation)?)?|dev(elopment)?|test(ing)?)([ _-]?(set|data|images|split))?", re.IGNORECASE
)

_KATHER_FORM = Form(
    "A set of Kather et al.",
    f"one folder of TIFF files for each of {', '.join(KATHER)}",
    "doi:10.5281/zenodo.1214456 (CRC-VAL-HE-7K to test on, NCT-CRC-HE-100K to learn from)",
)
_LC25000_FORM = Form(
    "LC25000",
    "lung_image_sets/{lung_aca,lung_n,lung_scc} and colon_image_sets/{colon_aca,colon_n} with JPEG files",
    "arXiv:1912.12142",
)
_BACH_FORM = Form(
    "BACH",
    "Photos/{Normal,Benign,InSitu,Invasive} with TIFF files",
    "doi:10.5281/zenodo.3632035",
)


def folders(
    folder: str,
    group: str | None = None,
    test: str = "test",
    train: str = "train",
    validation: str = "validation",
    test_fraction: float | None = None,
    validation_fraction: float | None = None,
) -> LabelledData:
    """Reads any folder with one folder per class, or with such folders for test, train and validation.

    Args:
        folder: holds the folders named by `test`, `train` and `validation`, or the classes themselves.
        group: regular expression that finds slide, case or patient in the name of a file: its first group in
            brackets, or all that it matches. None if it is not known.
        test: folder to test on; where there is none, the folders in `folder` are the classes.
        train: folder to learn from; it may be missing.
        validation: folder to fit thresholds and the like on; it may be missing.
        test_fraction: of the groups (pictures, if the group is not known) to test on, chosen by hash, where
            no folder prescribes it; None tests on all.
        validation_fraction: of the groups to learn from that are kept for validation, chosen by hash.

    Raises:
        DataError: no such folder, a folder that is neither of the three, folders of splits of which none is
            named by `test`, a class without picture, a name without a group.
        ConfigError: `group` is no regular expression.
    """
    check_fraction("test_fraction", test_fraction)
    root = Path(folder)
    form = Form("A folder of classes", f"{test}/CLASS/*.png or CLASS/*.png", "the place that `folder` names")
    pattern = _pattern(group)
    form.folder(root)
    if not (root / test).is_dir():
        for path in subfolders(root):
            if _SPLIT.fullmatch(path.name) or path.name in (train, validation):
                raise form.wrong(
                    path,
                    f"the name of a split and not of a class, but there is no folder '{test}' to test on; "
                    "name what is there by test, train and validation",
                )
        found = _classes(root, TEST, pattern, form)
        return labelled_data(split_pictures(found, root, test_fraction, validation_fraction), root)
    if test_fraction is not None:
        raise DataError(f"{root}: the folder '{test}' is what is tested on; set test_fraction to null")
    parts = {test: TEST, train: TRAIN, validation: VALIDATION}
    for path in subfolders(root):
        if path.name not in parts:
            raise form.wrong(
                path, f"neither of {', '.join(parts)}; name it by test, train or validation, or move it away"
            )
    pictures = [
        picture
        for name, part in parts.items()
        if (root / name).is_dir()
        for picture in _classes(root / name, part, pattern, form)
    ]
    return labelled_data(hold_back(pictures, root, validation_fraction), root)


def kather(test: str, train: str | None = None, validation_fraction: float | None = None) -> LabelledData:
    """Reads the nine tissues of colorectal cancer (Kather et al. 2019, doi:10.1371/journal.pmed.1002730).

    Labels are the folders' codes. File names are random letters, so patients are not known.

    Args:
        test: the folder CRC-VAL-HE-7K: 7,180 pictures of 50 patients.
        train: the folder NCT-CRC-HE-100K: 100,000 pictures of 86 other patients.
        validation_fraction: of the pictures to learn from that are kept for validation, chosen by hash.

    Raises:
        DataError: a folder is missing, or of no known class.
    """
    pictures = [
        Picture(file, name, part=part)
        for folder, part in ((test, TEST), (train, TRAIN))
        if folder
        for file, name in class_folders(Path(folder), KATHER, _KATHER_FORM)
    ]
    return labelled_data(hold_back(pictures, Path(train or test), validation_fraction), test)


def lc25000(
    folder: str,
    tiles: str | None = None,
    tile: str = "group_id",
    name: str = "stem",
    test_fraction: float | None = 0.3,
    validation_fraction: float | None = None,
) -> LabelledData:
    """Reads LC25000 as it ships (Borkowski et al. 2019, arXiv:1912.12142).

    Its 25,000 pictures are turned and mirrored copies of 1,250 tiles. Without `tiles`, copies of one tile
    fall on both sides of the split, groups are unknown, and intervals are too narrow.

    Args:
        folder: holds lung_image_sets and colon_image_sets, or lung_colon_image_set with both.
        tiles: table of the tile that each picture was made from, such as lc25000_image_groups.csv of
            github.com/GeorgeBatch/LC25000-clean.
        tile: its column of the tile.
        name: its column of the file's name.
        test_fraction: of the tiles to test on, chosen by hash; None tests on all.
        validation_fraction: of the tiles to learn from that are kept for validation, chosen by hash.

    Raises:
        DataError: a folder or table is missing, a folder is of no known class, a picture has no tile.
    """
    root = _LC25000_FORM.beside(
        Path(folder), (".", "lung_colon_image_set"), lambda path: (path / "lung_image_sets").is_dir()
    )
    groups = read_groups(Path(tiles), name, tile) if tiles else None
    pictures = [
        Picture(file, label, group_of(groups, file, tiles))
        for part, classes in LC25000.items()
        for file, label in class_folders(root / part, classes, _LC25000_FORM)
    ]
    return labelled_data(split_pictures(pictures, root, test_fraction, validation_fraction), root)


def bach(
    folder: str,
    split: Literal["eva", "hash"] = "eva",
    patients: str | None = None,
    patient: str = "patient",
    name: str = "file",
    test_fraction: float | None = 0.33,
    validation_fraction: float | None = None,
) -> LabelledData:
    """Reads the photographs of BACH (Aresta et al. 2019, doi:10.1016/j.media.2019.05.010).

    Args:
        folder: holds Photos, or ICIAR2018_BACH_Challenge with it, or is Photos.
        split: 'eva' tests on the 132 pictures that eva (github.com/kaiko-ai/eva) validates on, chosen by
            patient; 'hash' on `test_fraction`.
        patients: table of the patient of each picture, made from the list on the challenge's page; it does
            not know all, and a picture without a row counts as a patient of its own.
        patient: its column of the patient.
        name: its column of the file's name.
        test_fraction: with split 'hash', of the patients; None tests on all.
        validation_fraction: of what is learnt from, kept for validation, chosen by hash.

    Raises:
        DataError: a folder is missing, of no known class, or, with 'eva', has not its 400 pictures.
    """
    root = _BACH_FORM.beside(
        Path(folder),
        (".", "Photos", "ICIAR2018_BACH_Challenge/Photos"),
        lambda path: all((path / label).is_dir() for label in BACH),
    )
    groups = read_groups(Path(patients), name, patient) if patients else {}
    pictures = [
        Picture(file, label, groups.get(file.stem, file.stem) if patients else "")
        for file, label in class_folders(root, BACH, _BACH_FORM)
    ]
    if split == "hash":
        return labelled_data(split_pictures(pictures, root, test_fraction, validation_fraction), root)
    if len(pictures) != BACH_SIZE:
        raise _BACH_FORM.wrong(
            root,
            f"{len(pictures)} pictures, but split=eva numbers the {BACH_SIZE} of the release; use split=hash",
        )
    tested = {number for first, last in EVA_TEST for number in range(first, last)}
    pictures = [
        replace(picture, part=TEST if number in tested else TRAIN) for number, picture in enumerate(pictures)
    ]
    return labelled_data(hold_back(pictures, root, validation_fraction), root)


def _classes(folder: Path, part: str, pattern: re.Pattern[str] | None, form: Form) -> list[Picture]:
    if loose := find_pictures(folder):
        raise form.wrong(loose[0], "a picture beside the folders of the classes")
    names = subfolders(folder)
    if not names:
        raise form.wrong(folder, "no folder of a class in it")
    pictures = []
    for path in names:
        files = find_images(path)
        if not files:
            raise form.wrong(
                path, "no picture in it; delete the folder to do without the class, or put pictures into it"
            )
        pictures += [Picture(file, path.name, _group(file, pattern), part) for file in files]
    return pictures


def _pattern(group: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(group) if group else None
    except re.error as error:
        raise ConfigError(f"group: '{group}' is no regular expression ({error})") from None


def _group(file: Path, pattern: re.Pattern[str] | None) -> str:
    if pattern is None:
        return ""
    found = pattern.search(file.name)
    group = found and found[1 if pattern.groups else 0]
    if not group:
        raise DataError(f"{file}: its name has no group by the expression '{pattern.pattern}'")
    return group
