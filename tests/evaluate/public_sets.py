"""Writes the public sets in small: the same folders, names, columns and shapes, pictures of nothing."""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
import numpy as np
import openpyxl
from PIL import Image

from tests.evaluate.conftest import write_table

KATHER = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
LC25000 = {
    "lung_image_sets": {"lung_aca": "lungaca", "lung_n": "lungn", "lung_scc": "lungscc"},
    "colon_image_sets": {"colon_aca": "colonca", "colon_n": "colonn"},
}
BREAKHIS = {
    "benign": {"adenosis": "A", "fibroadenoma": "F", "phyllodes_tumor": "PT", "tubular_adenoma": "TA"},
    "malignant": {
        "ductal_carcinoma": "DC",
        "lobular_carcinoma": "LC",
        "mucinous_carcinoma": "MC",
        "papillary_carcinoma": "PC",
    },
}
VOTES = "Number of Annotators who Selected SSA (Out of 7)"


def picture(file: Path, seed: int = 0, size: int = 32) -> Path:
    """A small picture of noise, different for each seed, in the form that the suffix names."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 180, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(file)
    return file


def kather(root: Path, letters: str = "TCGA-", n: int = 2) -> Path:
    """CRC-VAL-HE-7K or NCT-CRC-HE-100K: n pictures per class."""
    for name in KATHER:
        for number in range(n):
            picture(root / name / f"{name}-{letters}AAA{number:05d}.tif", number)
    return root


def both_kather(root: Path) -> Path:
    """CRC-VAL-HE-7K, and NCT-CRC-HE-100K to learn from."""
    kather(root / "CRC-VAL-HE-7K")
    kather(root / "NCT-CRC-HE-100K", letters="", n=10)
    return root


def lc25000(root: Path, n: int = 30) -> Path:
    """lung_colon_image_set, and groups.csv beside with three copies of each tile."""
    rows, tile = [], 0
    for part, classes in LC25000.items():
        for label, stem in classes.items():
            for number in range(1, n + 1):
                picture(root / "lung_colon_image_set" / part / label / f"{stem}{number}.jpeg", number)
                values = {"stem": f"{stem}{number}", "filename": f"{stem}{number}.jpeg", "label": label}
                rows.append({**values, "group_id": str(tile + number // 3)})
            tile += n
    write_table(root / "groups.csv", rows)
    return root


def bach(root: Path, n: int = 100) -> Path:
    """Photos of BACH, with files that hold their own name, since nothing decodes them here."""
    for label, stem in {"Benign": "b", "InSitu": "is", "Invasive": "iv", "Normal": "n"}.items():
        folder = root / "ICIAR2018_BACH_Challenge" / "Photos" / label
        folder.mkdir(parents=True)
        for number in range(1, n + 1):
            (folder / f"{stem}{number:03d}.tif").write_bytes(f"{stem}{number}".encode())
        (folder / "Thumbs.db").write_bytes(b"")
    return root


def breakhis(root: Path, patients: int = 6) -> Path:
    """BreaKHis_v1: of each type six patients with a picture at each magnification."""
    for malignancy, kinds in BREAKHIS.items():
        for kind, code in kinds.items():
            for number in range(patients):
                slide = f"14-{ord(code[0])}{ord(code[-1])}{number}AB"
                name = f"SOB_{malignancy[0].upper()}_{code}"
                below = root / "BreaKHis_v1" / "histology_slides" / "breast" / malignancy / "SOB" / kind
                for shown in (40, 100, 200, 400):
                    place = below / f"{name}_{slide}" / f"{shown}X"
                    picture(place / f"{name}-{slide}-{shown}-001.png", number)
    return root


def wsss4luad(root: Path, slides: int = 12) -> Path:
    """1.training: four patches of each slide, one of each set of labels."""
    for slide in range(slides):
        for number, labels in enumerate(("1, 0, 0", "0, 1, 0", "0, 0, 1", "1, 1, 0")):
            picture(root / "1.training" / f"4362{slide:02d}-{100 * number}-48057-[{labels}].png", number)
    return root


def mhist(root: Path) -> Path:
    """annotations.csv and images: 8 rows, every number of votes, alternating partitions."""
    rows = []
    for votes in range(8):
        name = f"MHIST_a{chr(97 + votes)}a.png"
        picture(root / "images" / name, votes)
        label = "SSA" if votes >= 4 else "HP"
        rows.append((name, label, str(votes), ("train", "test")[votes % 2]))
    with (root / "annotations.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("Image Name", "Majority Vote Label", VOTES, "Partition"), *rows])
    return root


def sheet(file: Path, rows: list[list]) -> Path:
    """An Excel file of one sheet."""
    file.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(file)
    return file


def sicap(root: Path) -> Path:
    """SICAPv2: two slides in each of Test, Val1/Train and Val1/Test, a patch per class and slide."""
    header = ["image_name", "NC", "G3", "G4", "G5", "G4C"]
    labels = {"NC": [1, 0, 0, 0, 0], "G3": [0, 1, 0, 0, 0], "G4": [0, 0, 1, 0, 0], "G5": [0, 0, 0, 1, 0]}
    labels["G4C"] = [0, 0, 1, 0, 1]
    tables = {"Test/Test": 1, "Validation/Val1/Train": 3, "Validation/Val1/Test": 5}
    every = {}
    for table, first in tables.items():
        rows = []
        for slide in (first, first + 1):
            for number, given in enumerate(labels.values()):
                file = f"16B000{slide}_Block_Region_{number}_0_0_xini_1_yini_2.jpg"
                picture(root / "SICAPv2" / "images" / file, number)
                rows.append([file, *given])
        every[table] = rows
        sheet(root / "SICAPv2" / "partition" / f"{table}.xlsx", [header, *rows])
    together = every["Validation/Val1/Train"] + every["Validation/Val1/Test"]
    sheet(root / "SICAPv2" / "partition" / "Test" / "Train.xlsx", [header, *together])
    # Slides 1 and 2 are of one patient.
    patients = [[f"16B000{slide}", (slide + 1) // 2, 3, 4] for slide in range(1, 7)]
    sheet(
        root / "SICAPv2" / "wsi_labels.xlsx",
        [["slide_id", "patient_id", "Gleason_primary", "Gleason_secondary"], *patients],
    )
    return root


def mask(neoplastic: int, other: int, side: int = 32) -> np.ndarray:
    """A mask of PanNuke [side, side, 6] with so many nuclei of one pixel each, and the rest background."""
    values = np.zeros((side, side, 6))
    values[..., 5] = 1
    flat = values.reshape(-1, 6)
    flat[:neoplastic, 0] = np.arange(1, neoplastic + 1)
    flat[neoplastic : neoplastic + other, 4] = np.arange(1, other + 1)
    flat[: neoplastic + other, 5] = 0
    return values


# Neoplastic and other nuclei of the pictures of a fold, and what they make of it.
PANNUKE = [
    (12, 3, "malignant"),
    (0, 5, "benign"),
    (9, 0, None),
    (10, 30, None),
    (0, 0, None),
    (20, 0, "malignant"),
]


def pannuke(root: Path, repeats: int = 1, types=("Breast", "Bile-duct", "Adrenal_gland")) -> Path:
    """Three folds of 6 x repeats pictures of 32 pixels, in floats as published."""
    for fold in (1, 2, 3):
        rng = np.random.default_rng(fold)
        cases = PANNUKE * repeats
        below = root / f"Fold {fold}"
        for part in ("images", "masks"):
            (below / part / f"fold{fold}").mkdir(parents=True)
        images = rng.integers(0, 256, (len(cases), 32, 32, 3)).astype(np.float64)
        np.save(below / "images" / f"fold{fold}" / "images.npy", images)
        tissues = np.array([types[(number // 6) % len(types)] for number in range(len(cases))])
        np.save(below / "images" / f"fold{fold}" / "types.npy", tissues)
        masks = np.stack([mask(one, other) for one, other, _ in cases])
        np.save(below / "masks" / f"fold{fold}" / "masks.npy", masks)
    return root


def pcam(root: Path, n: int = 8, meta: bool = True) -> Path:
    """The six HDF5 files with pictures of 96 pixels, and their tables of slides."""
    root.mkdir(parents=True, exist_ok=True)
    for seed, split in enumerate(("train", "valid", "test")):
        pixels = np.random.default_rng(seed).integers(0, 256, (n, 96, 96, 3), np.uint8)
        labels = (np.arange(n) % 2).astype(np.uint8).reshape(n, 1, 1, 1)
        for name, values in (("x", pixels), ("y", labels)):
            with h5py.File(root / f"camelyonpatch_level_2_split_{split}_{name}.h5", "w") as file:
                file.create_dataset(name, data=values, chunks=(1, *values.shape[1:]), compression="gzip")
        if meta:
            rows = [
                {
                    "": str(number),
                    "coord_y": "1",
                    "coord_x": "2",
                    "tumor_patch": "True",
                    "center_tumor_patch": str(number % 2 == 1),
                    "wsi": f"camelyon16_{split}_{number // 2:03d}",
                }
                for number in range(n)
            ]
            write_table(root / f"camelyonpatch_level_2_split_{split}_meta.csv", rows)
    return root


def digestpath(root: Path, cases: int = 4, side: int = 128) -> Path:
    """Tissue with the left half marked, and tissue without, of each case; grey noise, no glass.

    The names are of the forms that the release has; see `DIGESTPATH_NAMES`.
    """
    below = root / "Colonoscopy_tissue_segment_dataset"
    for number in range(cases):
        name = f"D20170{number}_2019-05-21 16_19_25-lv1-25891-11461-4462-4494"
        picture(below / "tissue-train-pos-v1" / f"{name}.jpg", number, side)
        marks = np.zeros((side, side), np.uint8)
        marks[:, : side // 2] = 255
        Image.fromarray(marks).save(below / "tissue-train-pos-v1" / f"{name}_mask.jpg")
        picture(
            below / "tissue-train-neg" / f"18-0992{number}_2019-05-08 00_06_24-lv1-1-2-3-4.jpg", number, side
        )
    return root


# Names of pictures by case, in the forms of the release: parts of one specimen have a letter or a number.
DIGESTPATH_NAMES = {
    "18-10829": ("18-10829A_2019-05-08 00_40_37-lv1-1-2-3-4", "18-10829B_2019-05-08 00_47_24-lv1-1-2-3-4"),
    "2018_68099": ("2018_68099_1-1_2019-02-20 23_21_13-lv1-1-2-3-4", "2018_68099_1-2_2019-02-20-lv1-1-2-3-4"),
    "2018_72876": ("2018_72876_1-1_2019-02-21 00_28_52-lv1-1-2-3-4",),
    "2019_01246": ("2019_01246_1-1_2019-02-21 01_02_03-lv1-1-2-3-4",),
    "1901940": ("1901940-1_2019-05-08 00_00_00-lv1-1-2-3-4", "1901940-2_2019-05-08 00_00_00-lv1-1-2-3-4"),
    "D201710920": ("D201710920_2019-05-21 16_19_25-lv1-1-2-3-4",),
}


def digestpath_of_real_names(root: Path, side: int = 64) -> Path:
    """Tissue without a mark, under every form of name."""
    below = root / "Colonoscopy_tissue_segment_dataset"
    (below / "tissue-train-pos-v1").mkdir(parents=True)
    for names in DIGESTPATH_NAMES.values():
        for number, name in enumerate(names):
            picture(below / "tissue-train-neg" / f"{name}.jpg", number, side)
    return root


def large_digestpath(root: Path) -> Path:
    """Pictures large enough for a patch of 224 pixels at half their size."""
    return digestpath(root, cases=8, side=700)


def folders(root: Path, n: int = 6) -> Path:
    """Two classes in test, train and validation, named SLIDE_NUMBER.png."""
    for part in ("test", "train", "validation"):
        for label in ("benign", "malignant"):
            for number in range(n):
                picture(root / part / label / f"{part}{number // 2}_{number}.png", number)
    return root
