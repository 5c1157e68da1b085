"""Large pictures with a mask, cut into patches by a fixed grid: DigestPath."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathclip.errors import DataError
from pathclip.evaluate.datasets.files import Form, bitmap, find_pictures
from pathclip.evaluate.datasets.labelled import Contents, LabelledData, LabelledImages
from pathclip.evaluate.datasets.parts import TEST, TRAIN, VALIDATION, hash_share, parts_by_hash
from pathclip.progress import track
from pathclip.runtime.cores import available_cores
from pathclip.runtime.images import open_image

POSITIVE, NEGATIVE = "tissue-train-pos-v1", "tissue-train-neg"
LEVELS = (2, 4, 8, 16, 32)
# A case at the start of a name: 2018_68099 of 2018_68099_1-1_…, 18-10829 of 18-10829A_… and of 18-10829B_…,
# 1901940 of 1901940-1_…, D201710920 of D201710920_….
CASE = r"^(?:20\d\d_\d+|\d\d-\d+|[^_-]+)"
# Of a picture of 170 million pixels 0.5 GB are held.
_MAX_PIXELS = 170_000_000
# Brighter than this in all three colours is glass; a mask brighter than this is tumour, since it is a JPEG.
_GLASS, _MARKED = 200, 10
_FORM = Form(
    "DigestPath",
    f"{POSITIVE}/NAME.jpg with NAME_mask.jpg and {NEGATIVE}/NAME.jpg",
    "digestpath2019.grand-challenge.org, colonoscopy tissue (on request)",
)


@dataclass(frozen=True, slots=True)
class Cut:
    """How pictures are cut.

    Attributes:
        levels: a picture is cut at 1 / level of its size, for each level.
        side: of a patch, in pixels.
        overlap: of neighbours, as part of the side.
        tissue: least part of a patch that is not glass.
        tumour: least part of a malignant patch that is marked; a benign one has none.
        most: patches of a picture, a level and a class at most, chosen by hash; None for all.
    """

    levels: tuple[int, ...]
    side: int
    overlap: float
    tissue: float
    tumour: float
    most: int | None


@dataclass(frozen=True, slots=True)
class _Patch:
    path: Path
    level: int
    top: int
    left: int
    label: str

    @property
    def name(self) -> str:
        return f"{self.path}: 1/{self.level}, {self.top} down, {self.left} right"


def digestpath(
    folder: str,
    levels: Sequence[int] = LEVELS,
    side: int = 224,
    overlap: float = 0.1,
    tissue: float = 0.5,
    tumour: float = 0.5,
    most: int | None = None,
    case: str = CASE,
    test_fraction: float | None = 0.3,
    validation_fraction: float | None = None,
) -> LabelledData:
    """Reads DigestPath's tissue of the colon (Da et al. 2022, doi:10.1016/j.media.2022.102485), as PLIP did.

    Every picture is cut on a grid at five sizes. A patch is malignant if half of it is marked, benign if
    nothing is; those between, and those with more glass than tissue, are left out. PLIP then tested on 30 %
    of the patches, drawn at random, so that neighbours lay on both sides; here whole cases are drawn, by
    hash.
    Every picture is decoded once to find the classes: minutes.

    Args:
        folder: holds tissue-train-pos-v1 and tissue-train-neg, as Colonoscopy_tissue_segment_dataset does, or
            holds that.
        levels: see `Cut`, and for the next five.
        side: see `Cut`.
        overlap: see `Cut`.
        tissue: see `Cut`.
        tumour: see `Cut`; PLIP's code cuts with 0.5, but its loader names a folder cut with 0.3.
        most: see `Cut`.
        case: regular expression of the case at the start of a file's name; see `CASE`.
        test_fraction: of the cases to test on; None tests on all.
        validation_fraction: of the cases to learn from that are kept for validation.

    Raises:
        DataError: a folder, a picture or a mask is missing or cannot be read; a value makes no sense.
    """
    cut = Cut(tuple(levels), side, overlap, tissue, tumour, most)
    _check(cut)
    root = _FORM.beside(
        Path(folder),
        (".", "Colonoscopy_tissue_segment_dataset"),
        lambda path: (path / POSITIVE).is_dir() and (path / NEGATIVE).is_dir(),
    )
    files = [
        (file, _FORM.file(file.with_name(f"{file.stem}_mask.jpg")) if name == POSITIVE else None)
        for name in (POSITIVE, NEGATIVE)
        for file in find_pictures(root / name)
        if not file.stem.endswith("_mask")
    ]
    with ThreadPoolExecutor(available_cores()) as pool:
        found = pool.map(lambda item: _patches(item[0], item[1], cut, root), files)
        patches = [patch for some in track(found, "DigestPath: classes", len(files)) for patch in some]
    cases = {file: _case(file, case) for file, _ in files}
    groups = [cases[patch.path] for patch in patches]
    parts = parts_by_hash(groups, test_fraction, validation_fraction)
    if TEST not in parts:
        raise _FORM.wrong(root, "no patch to test on")

    def chosen(part: str) -> LabelledImages | None:
        kept = [number for number, its in enumerate(parts) if its == part]
        if not kept:
            return None
        shown = [patches[number] for number in kept]
        return LabelledImages(
            tuple(patch.name for patch in shown),
            tuple(patch.label for patch in shown),
            tuple(groups[number] for number in kept),
            part,
            _contents(shown, cut),
        )

    tested = chosen(TEST)
    assert tested is not None
    return LabelledData(tested, chosen(TRAIN), chosen(VALIDATION))


def grid(length: int, side: int, overlap: float) -> list[int]:
    """Where patches begin along one side of a picture; as by PLIP, none that touches the far edge.

    >>> grid(700, 224, 0.1)
    [0, 201, 403]
    """
    starts = np.arange(0, length, side * (1 - overlap)).astype(int).tolist()
    return [start for start in starts if start + side < length]


def _check(cut: Cut) -> None:
    if not cut.levels or min(cut.levels) < 1 or cut.side < 1 or not 0 <= cut.overlap < 1:
        raise DataError("levels and side must be at least 1, and overlap at least 0 and below 1")
    if not 0 <= cut.tissue <= 1 or not 0 < cut.tumour <= 1 or (cut.most is not None and cut.most < 1):
        raise DataError("tissue and tumour are parts of a patch, and most is at least 1")


def _patches(file: Path, mask: Path | None, cut: Cut, root: Path) -> list[_Patch]:
    """The patches of a picture that have a class, in the order of levels and grid."""
    image = open_image(file, _MAX_PIXELS)
    marks = open_image(mask, _MAX_PIXELS).convert("L") if mask else None
    if marks is not None and marks.size != image.size:
        raise _FORM.wrong(file, f"{image.size} pixels, but its mask has {marks.size}")
    found = []
    for level in cut.levels:
        pixels = _shrunk(image, level)
        tissue: NDArray[np.bool_] = np.any(pixels < _GLASS, axis=2)
        tumour = _marked(marks, level) if marks else np.zeros(tissue.shape, bool)
        for top in grid(tissue.shape[0], cut.side, cut.overlap):
            for left in grid(tissue.shape[1], cut.side, cut.overlap):
                place = (slice(top, top + cut.side), slice(left, left + cut.side))
                marked = tumour[place].mean()
                if tissue[place].mean() >= cut.tissue and (marked == 0 or marked >= cut.tumour):
                    found.append(_Patch(file, level, top, left, "malignant" if marked else "benign"))
    return found if cut.most is None else _fewer(found, cut.most, root)


def _marked(marks: Image.Image, level: int) -> NDArray[np.bool_]:
    return np.asarray(_shrunk(marks, level, Image.Resampling.NEAREST) > _MARKED)


def _fewer(patches: Sequence[_Patch], most: int, root: Path) -> list[_Patch]:
    """At most so many patches of each level and class: those with the least hash."""

    def share(patch: _Patch) -> float:
        return hash_share(f"{patch.path.relative_to(root).as_posix()}:{patch.level}:{patch.top}:{patch.left}")

    strata: dict[tuple[int, str], list[_Patch]] = {}
    for patch in patches:
        strata.setdefault((patch.level, patch.label), []).append(patch)
    kept = {patch for some in strata.values() for patch in sorted(some, key=share)[:most]}
    return [patch for patch in patches if patch in kept]


def _contents(patches: Sequence[_Patch], cut: Cut) -> Contents:
    """Cuts patches again; one picture is held in full and at one level, since they come in that order."""

    def contents(numbers: Sequence[int]) -> Iterator[bytes]:
        path: Path | None = None
        level = 0
        for number in numbers:
            patch = patches[number]
            if patch.path != path:
                path, level, image = patch.path, 0, open_image(patch.path, _MAX_PIXELS)
            if patch.level != level:
                level, pixels = patch.level, _shrunk(image, patch.level)
            yield bitmap(pixels[patch.top : patch.top + cut.side, patch.left : patch.left + cut.side])

    return contents


def _shrunk(
    image: Image.Image, level: int, resampling: Image.Resampling = Image.Resampling.BICUBIC
) -> NDArray[Any]:
    width, height = (max(1, int(np.round(length / level))) for length in image.size)
    return np.asarray(image.resize((width, height), resampling))


def _case(file: Path, pattern: str) -> str:
    try:
        found = re.search(pattern, file.stem)
    except re.error as error:
        raise DataError(f"case: '{pattern}' is no regular expression ({error})") from None
    if not found or not found[0]:
        raise DataError(f"{file}: its name has no case by the expression '{pattern}'")
    return found[0]
