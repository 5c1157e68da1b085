"""PanNuke, which ships as npy arrays: read picture by picture, with the classes that PLIP gave it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import DataError
from pathclip.evaluate.datasets.files import Form, bitmap
from pathclip.evaluate.datasets.labelled import LabelledData, LabelledImages
from pathclip.evaluate.datasets.parts import TEST, TRAIN, VALIDATION, with_validation
from pathclip.progress import track
from pathclip.runtime.images import MAX_PIXELS

# Channels of masks.npy: neoplastic, inflammatory, connective, dead, epithelial, background.
CHANNELS = 6
# PLIP: malignant has so many neoplastic nuclei, and they are more than this part of all.
PLIP_NUCLEI, PLIP_SHARE = 10, 0.3
PLIP_SEED, PLIP_TRAIN = 1, 0.7

_MAX_TYPES_BYTES = 64 * 1024 * 1024
_FORM = Form(
    "PanNuke",
    "Fold 1/images/fold1/images.npy with types.npy beside it and Fold 1/masks/fold1/masks.npy, so for folds "
    "1 to 3",
    "warwick.ac.uk/TIAcentre, PanNuke",
)


@dataclass(frozen=True, slots=True)
class _Patch:
    """A picture of PanNuke that has a class: fold, number in the fold, class, tissue in lower case."""

    fold: int
    number: int
    label: str
    tissue: str


def pannuke(
    folder: str,
    split: Literal["folds", "plip"] = "folds",
    test: Sequence[int] = (3,),
    train: Sequence[int] = (1, 2),
    validation: Sequence[int] = (),
    tissues: Sequence[str] | None = None,
    validation_fraction: float | None = None,
) -> LabelledData:
    """Reads PanNuke (Gamper et al. 2020, arXiv:2003.10778) as benign or malignant, by PLIP's rule.

    Malignant: at least 10 neoplastic nuclei, and more than 30 % of all. Benign: none. Pictures between, and
    those without any nucleus, are left out. Nuclei are counted as PLIP counted them: different values of a
    channel's mask in 8 bits, less one; a background that does not fill the picture counts as one. Slides and
    patients are not published. Every mask is read once to find the classes: minutes, of 20 GB.

    Args:
        folder: holds the three folds.
        split: 'folds' takes the next three; 'plip' pools all folds and draws 70 % of each tissue and class to
            learn from, with the seed and the draws of PLIP's code.
        test: folds to test on.
        train: folds to learn from.
        validation: folds to fit thresholds and the like on.
        tissues: names in types.npy to keep, such as Breast; None keeps all 19.
        validation_fraction: of the pictures to learn from that are kept for validation, chosen by hash.

    Raises:
        DataError: a file is missing, of another shape, or holds Python objects; an unknown tissue.
    """
    root = _FORM.folder(Path(folder))
    parts = {TEST: list(test), TRAIN: list(train), VALIDATION: list(validation)}
    named = [fold for folds in parts.values() for fold in folds]
    if split == "folds" and (len(set(named)) != len(named) or not test):
        raise DataError(f"test, train, validation: each fold once, and one to test on; here {named}")
    wanted = sorted(named) if split == "folds" else [1, 2, 3]
    images = {fold: _npy(_fold_file(root, fold, "images"), 3) for fold in wanted}
    with_tissue = tissues is not None or split == "plip"
    patches = [patch for fold in wanted for patch in _patches(root, fold, images[fold], with_tissue)]
    if tissues is not None:
        patches = _of_tissues(patches, tissues, root)
    if split == "plip":
        learnt = _plip_train(patches)
        given = [TRAIN if number in learnt else TEST for number in range(len(patches))]
    else:
        part_of = {fold: part for part, folds in parts.items() for fold in folds}
        given = [part_of[patch.fold] for patch in patches]
    given = with_validation(given, [f"{one.fold}/{one.number}" for one in patches], validation_fraction)
    if TEST not in given:
        raise _FORM.wrong(root, "no benign or malignant picture to test on")

    def chosen(part: str) -> LabelledImages | None:
        kept = [patch for patch, its in zip(patches, given, strict=True) if its == part]

        def contents(numbers: Sequence[int]) -> Iterator[bytes]:
            for number in numbers:
                pixels = images[kept[number].fold][kept[number].number]
                yield bitmap(np.asarray(pixels).astype(np.uint8))

        names = tuple(f"{root}: fold {one.fold}, picture {one.number}" for one in kept)
        labels = tuple(one.label for one in kept)
        return LabelledImages(names, labels, ("",) * len(kept), part, contents) if kept else None

    tested = chosen(TEST)
    assert tested is not None
    return LabelledData(tested, chosen(TRAIN), chosen(VALIDATION))


def nuclei(mask: NDArray[Any]) -> NDArray[np.int64]:
    """Nuclei of each kind in a mask [h, w, channels] as PLIP counts them: int64 [channels].

    >>> mask = np.zeros((2, 2, 2)); mask[0, :, 1] = [7, 9]
    >>> nuclei(mask).tolist()
    [0, 2]
    """
    eight_bits = np.asarray(mask).astype(np.int64).astype(np.uint8)
    flat = eight_bits.reshape(-1, eight_bits.shape[-1])
    return np.array([np.count_nonzero(np.bincount(channel)) - 1 for channel in flat.T], np.int64)


def malignancy(mask: NDArray[Any]) -> str | None:
    """'benign', 'malignant' or, between and where there is no nucleus, None; the rule of `pannuke`."""
    cells = np.asarray(mask)[..., : CHANNELS - 1].astype(np.int64).astype(np.uint8)
    if not cells.any():
        return None
    counts = nuclei(mask)
    if counts[0] == 0:
        return "benign"
    return "malignant" if counts[0] >= PLIP_NUCLEI and counts[0] / counts.sum() > PLIP_SHARE else None


def _patches(root: Path, fold: int, images: NDArray[Any], with_tissue: bool) -> Iterator[_Patch]:
    file = _fold_file(root, fold, "masks")
    masks = _npy(file, CHANNELS)
    if masks.shape[:3] != images.shape[:3]:
        raise _FORM.wrong(file, f"shape {masks.shape}, but the pictures have {images.shape}")
    types = _types(_fold_file(root, fold, "types"), len(images)) if with_tissue else [""] * len(images)
    for number in track(range(len(masks)), f"PanNuke, fold {fold}: classes"):
        label = malignancy(masks[number])
        if label:
            yield _Patch(fold, number, label, types[number])


def _of_tissues(patches: Sequence[_Patch], tissues: Sequence[str], root: Path) -> list[_Patch]:
    names = [_tissue(name) for name in tissues]
    known = sorted({patch.tissue for patch in patches})
    for name in names:
        if name not in known:
            raise _FORM.wrong(root, f"no picture of tissue '{name}' among {', '.join(known)}")
    return [patch for patch in patches if patch.tissue in names]


def _plip_train(patches: Sequence[_Patch]) -> set[int]:
    """Numbers of the patches that PLIP learns from: two draws of pandas' `sample`, both with its seed."""

    def shuffled(items: Sequence[int]) -> list[int]:
        order = np.random.RandomState(PLIP_SEED).choice(len(items), len(items), replace=False)
        return [items[place] for place in order]

    listed = [number for number, one in enumerate(patches) if one.label == "malignant"]
    listed += [number for number, one in enumerate(patches) if one.label == "benign"]
    strata: dict[tuple[str, str], list[int]] = {}
    for number in shuffled(listed):
        strata.setdefault((patches[number].tissue, patches[number].label), []).append(number)
    return {number for items in strata.values() for number in shuffled(items)[: int(len(items) * PLIP_TRAIN)]}


def _fold_file(root: Path, fold: int, name: str) -> Path:
    """A file of a fold, wherever the archives were unpacked."""
    below = "masks" if name == "masks" else "images"
    for base in (f"Fold {fold}", f"fold_{fold}/Fold {fold}", f"fold{fold}/Fold {fold}", f"fold_{fold}",
                 f"Fold_{fold}", f"fold{fold}"):  # fmt: skip
        for inner in (f"{below}/fold{fold}", "."):
            if (root / base / inner / f"{name}.npy").is_file():
                return root / base / inner / f"{name}.npy"
    return _FORM.file(root / f"Fold {fold}" / below / f"fold{fold}" / f"{name}.npy")


def _npy(file: Path, channels: int) -> NDArray[Any]:
    """A memory-mapped array [n, h, w, channels] of numbers."""
    try:
        array = np.lib.format.open_memmap(file, mode="r")
    except (ValueError, OSError) as error:
        raise _FORM.wrong(file, f"not an array of numbers that can be read ({error})") from None
    if array.ndim != 4 or array.shape[3] != channels or array.dtype.kind not in "uif":
        raise _FORM.wrong(file, f"shape {array.shape} of {array.dtype}, not [n, h, w, {channels}]")
    if array.shape[1] * array.shape[2] > MAX_PIXELS:
        raise _FORM.wrong(file, f"pictures of {array.shape[1]} x {array.shape[2]} pixels, refused")
    return array


def _types(file: Path, n: int) -> list[str]:
    if file.stat().st_size > _MAX_TYPES_BYTES:
        raise _FORM.wrong(file, "too large for a list of tissues")
    try:
        types = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError):
        raise _FORM.wrong(
            file,
            "no array of text; one of Python objects is refused, because loading it can run code. Where you "
            "trust the file, save it anew as np.save(file, types.astype(str))",
        ) from None
    if not isinstance(types, np.ndarray) or types.shape != (n,) or types.dtype.kind != "U":
        raise _FORM.wrong(file, f"not {n} names of tissues")
    return [_tissue(name) for name in types]


def _tissue(name: str) -> str:
    return str(name).lower().replace("_", " ")
