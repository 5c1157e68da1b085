"""PCam, which ships as HDF5: read picture by picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import DataError
from pathclip.evaluate.datasets.files import Form, bitmap
from pathclip.evaluate.datasets.labelled import LabelledData, LabelledImages
from pathclip.evaluate.datasets.parts import TEST, TRAIN, VALIDATION
from pathclip.evaluate.datasets.tables import cell, lines, need_columns

PCAM = ("normal", "tumor")

# Pictures that are read at once.
_RUN = 64
# A file of a kilobyte can promise any shape, and reading it would ask for all memory: PCam has 262,144
# pictures of 96 x 96 pixels to learn from.
_MOST, _MOST_PIXELS = 4_000_000, 512 * 512
_FORM = Form(
    "PCam",
    "camelyonpatch_level_2_split_{test,valid,train}_{x,y}.h5, unpacked, with the datasets x and y, and "
    "_meta.csv",
    "doi:10.5281/zenodo.2546921",
)


def pcam(
    folder: str, train: bool = True, validation: bool = True, train_pictures: int | None = 20_000
) -> LabelledData:
    """Reads PCam (Veeling et al. 2018, doi:10.1007/978-3-030-00934-2_24): metastasis in lymph nodes or not.

    Groups are the slides of the column wsi, where the table _meta.csv lies beside.

    Args:
        folder: holds the HDF5 files.
        train: whether the training files are read.
        validation: whether the validation files are read.
        train_pictures: at most so many of the 262,144 are learnt from, evenly spaced; None for all.

    Raises:
        DataError: a file is missing, not HDF5 or of another shape; names it.
    """
    root = _FORM.folder(Path(folder))
    return LabelledData(
        _pcam(root, "test", TEST, None),
        _pcam(root, "train", TRAIN, train_pictures) if train else None,
        _pcam(root, "valid", VALIDATION, None) if validation else None,
    )


def _pcam(root: Path, split: str, part: str, most: int | None) -> LabelledImages:
    x, y = (_pcam_file(root, f"{split}_{name}") for name in ("x", "y"))
    shape, _ = _h5(x, "x", slice(0))
    if len(shape) != 4 or shape[3] != 3 or shape[1] * shape[2] > _MOST_PIXELS:
        raise _FORM.wrong(x, f"x has the shape {shape}, not [n, 96, 96, 3]")
    if shape[0] > _MOST:
        raise _FORM.wrong(x, f"{shape[0]} pictures, but at most {_MOST} are read")
    size, _ = _h5(y, "y", slice(0))
    if prod(size) != shape[0]:
        raise _FORM.wrong(y, f"y has the shape {size}, but there are {shape[0]} pictures")
    labels = _h5(y, "y", slice(None))[1].reshape(-1)
    if unknown := {*labels.tolist()} - {0, 1}:
        raise _FORM.wrong(y, f"label {sorted(unknown)[0]} is neither 0 nor 1")
    groups = _pcam_slides(root / f"camelyonpatch_level_2_split_{split}_meta.csv", len(labels))
    kept = np.arange(len(labels))
    if most is not None and most < len(labels):
        kept = np.unique(np.linspace(0, len(labels) - 1, most).astype(np.int64))

    def contents(numbers: Sequence[int]) -> Iterator[bytes]:
        for run in _runs([int(kept[number]) for number in numbers]):
            _, pictures = _h5(x, "x", run)
            yield from map(bitmap, pictures.astype(np.uint8))

    return LabelledImages(
        tuple(f"{x}: picture {number}" for number in kept),
        tuple(PCAM[int(labels[number])] for number in kept),
        tuple(groups[number] for number in kept),
        part,
        contents,
    )


def _pcam_file(root: Path, name: str) -> Path:
    file = root / f"camelyonpatch_level_2_split_{name}.h5"
    if not file.exists() and file.with_suffix(".h5.gz").exists():
        raise _FORM.wrong(file, "no such file, but packed beside it; unpack it with gunzip")
    return _FORM.file(file)


def _pcam_slides(file: Path, n: int) -> list[str]:
    if not file.exists():
        return [""] * n
    slides = []
    for line, values in lines(file):
        need_columns(file, line, values, ["wsi"])
        slides.append(cell(values["wsi"]).strip())
    if len(slides) != n:
        raise _FORM.wrong(file, f"{len(slides)} rows for {n} pictures")
    return slides


def _runs(numbers: Sequence[int]) -> Iterator[slice]:
    """Ascending numbers as slices of neighbours, none longer than `_RUN`."""
    first = last = None
    for number in numbers:
        if first is not None and last is not None:
            if number == last + 1 and number - first < _RUN:
                last = number
                continue
            yield slice(first, last + 1)
        first = last = number
    if first is not None and last is not None:
        yield slice(first, last + 1)


def _h5(file: Path, key: str, rows: slice) -> tuple[tuple[int, ...], NDArray[Any]]:
    """Shape of an HDF5 file's dataset of whole numbers, and the rows asked for."""
    try:
        import h5py
    except ModuleNotFoundError:
        raise DataError(f"{file}: reading it needs the package h5py: pip install h5py") from None
    try:
        with h5py.File(file, "r") as archive:
            # A link or a virtual dataset could name any other file of this machine.
            own = isinstance(archive.get(key, getlink=True), h5py.HardLink)
            data: Any = archive[key] if own and isinstance(archive[key], h5py.Dataset) else None
            if data is None or data.is_virtual or data.external or data.dtype.kind not in "ui":
                raise _FORM.wrong(file, f"no dataset '{key}' of whole numbers in it")
            return data.shape, np.asarray(data[rows])
    except (OSError, KeyError, ValueError) as error:
        raise _FORM.wrong(file, f"not an HDF5 file that can be read ({error})") from None
