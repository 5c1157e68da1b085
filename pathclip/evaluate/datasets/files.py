"""Pictures that are files: found below folders, read again whenever asked, bounded in size."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from pathclip.errors import DataError
from pathclip.evaluate.datasets.labelled import Contents, LabelledData, LabelledImages
from pathclip.evaluate.datasets.parts import TEST, TRAIN, VALIDATION, parts_by_hash, with_validation
from pathclip.evaluate.datasets.tables import cell, lines, need_columns
from pathclip.runtime.images import MAX_BYTES, SUFFIXES


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture before it is read.

    Attributes:
        path: its file.
        label: its class.
        group: what must not be split; '' if it is not known.
        part: 'test', 'train' or 'validation'.
    """

    path: Path
    label: str
    group: str = ""
    part: str = TEST


@dataclass(frozen=True, slots=True)
class Form:
    """How a public set lies on disk, and where it comes from: the end of every message about it.

    Attributes:
        name: of the set.
        layout: files and folders that are expected.
        source: where to ask for it.
    """

    name: str
    layout: str
    source: str

    def wrong(self, where: Path | str, what: str) -> DataError:
        """The error for a place that is not as expected, in one line."""
        return DataError(f"{where}: {what}. {self.name} is expected as {self.layout}; it is at {self.source}")

    def folder(self, path: Path) -> Path:
        """The path, if it is a folder.

        Raises:
            DataError: it is not.
        """
        return self._there(path, Path.is_dir, "a file, not a folder", "no such folder")

    def file(self, path: Path) -> Path:
        """The path, if it is a file.

        Raises:
            DataError: it is not.
        """
        return self._there(path, Path.is_file, "a folder, not a file", "no such file")

    def beside(self, root: Path, choices: Iterable[str], holds: Callable[[Path], bool]) -> Path:
        """The first of the folders below root that holds what is looked for.

        Archives are unpacked with one folder more or less; all published ways are tried.

        Raises:
            DataError: root is no folder, or none holds it.
        """
        self.folder(root)
        for choice in choices:
            if (root / choice).is_dir() and holds(root / choice):
                return root / choice
        raise self.wrong(root, "none of the expected files is in it")

    def _there(self, path: Path, is_kind: Callable[[Path], bool], other: str, missing: str) -> Path:
        try:
            if is_kind(path):
                return path
            what = other if path.exists() else missing
        except OSError as error:  # a name longer than the system takes, a folder that is closed
            what = f"cannot be read ({error.strerror})"
        raise self.wrong(path, what)


def find_pictures(folder: Path, suffixes: Iterable[str] = SUFFIXES) -> list[Path]:
    """Picture files right in a folder, by name; hidden ones are left out."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_file() and not entry.name.startswith(".")]
    return [folder / name for name in sorted(names) if Path(name).suffix.lower() in suffixes]


def subfolders(folder: Path) -> list[Path]:
    """Folders right in a folder, by name; hidden ones and those of archivers are left out."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")


def class_folders(folder: Path, classes: Sequence[str], form: Form) -> list[tuple[Path, str]]:
    """Pictures of the named class folders, with the folder's name; all must be there and no other.

    Raises:
        DataError: a class folder is missing, empty, or of no known class.
    """
    form.folder(folder)
    for found in subfolders(folder):
        if found.name not in classes:
            raise form.wrong(found, f"its name is none of the classes {', '.join(classes)}")
    pictures = []
    for name in classes:
        files = find_pictures(form.folder(folder / name))
        if not files:
            raise form.wrong(folder / name, "no picture in it")
        pictures += [(file, name) for file in files]
    return pictures


def read_groups(file: Path, names: str, groups: str) -> dict[str, str]:
    """Groups by file name without suffix, from a table.

    Args:
        file: CSV or JSONL.
        names: column of the file name, with or without folder and suffix.
        groups: column of the group.

    Raises:
        DataError: no such file or column, an empty cell, or two groups for one name; names the line.
    """
    found: dict[str, str] = {}
    for line, values in lines(file):
        need_columns(file, line, values, [names, groups])
        name, group = Path(cell(values[names]).strip()).stem, cell(values[groups]).strip()
        if not name or not group:
            raise DataError(f"{file}, line {line}: '{names}' or '{groups}' is empty")
        if found.setdefault(name, group) != group:
            raise DataError(f"{file}, line {line}: {name} is in group {found[name]} and in group {group}")
    return found


def group_of(groups: Mapping[str, str] | None, picture: Path, file: str | None) -> str:
    """The group of a picture by `read_groups`; '' where there is no table.

    Raises:
        DataError: there is a table without this picture.
    """
    if groups is None:
        return ""
    if picture.stem not in groups:
        raise DataError(f"{file}: no row for {picture.name}")
    return groups[picture.stem]


def split_pictures(
    pictures: Sequence[Picture], root: Path, test_fraction: float | None, validation_fraction: float | None
) -> list[Picture]:
    """The pictures with their parts by hash of the group, or of the path below root."""
    keys = _keys(pictures, root)
    parts = parts_by_hash(keys, test_fraction, validation_fraction)
    return [replace(picture, part=part) for picture, part in zip(pictures, parts, strict=True)]


def hold_back(pictures: Sequence[Picture], root: Path, fraction: float | None) -> list[Picture]:
    """The pictures, with a fraction of those to learn from moved to validation."""
    parts = with_validation([picture.part for picture in pictures], _keys(pictures, root), fraction)
    return [replace(picture, part=part) for picture, part in zip(pictures, parts, strict=True)]


def labelled_data(pictures: Sequence[Picture], source: Path | str) -> LabelledData:
    """Pictures by their parts.

    Raises:
        DataError: none to test on.
    """
    by_part = {
        part: [picture for picture in pictures if picture.part == part] for part in (TEST, TRAIN, VALIDATION)
    }
    if not by_part[TEST]:
        raise DataError(f"{source}: no picture to test on among {len(pictures)}")
    test, train, validation = (
        LabelledImages(
            tuple(str(picture.path) for picture in kept),
            tuple(picture.label for picture in kept),
            tuple(picture.group for picture in kept),
            part,
            file_contents([picture.path for picture in kept]),
        )
        for part, kept in by_part.items()
    )
    return LabelledData(test, train if len(train) else None, validation if len(validation) else None)


def file_contents(files: Sequence[Path]) -> Contents:
    """Yields the bytes of files; each is read when it is its turn.

    Raises, when read:
        DataError: a file is gone or unreadable, or larger than `pathclip.runtime.images.MAX_BYTES`.
    """

    def contents(numbers: Sequence[int]) -> Iterator[bytes]:
        for number in numbers:
            try:
                if files[number].stat().st_size > MAX_BYTES:
                    raise DataError(f"{files[number]}: larger than {MAX_BYTES >> 20} MiB, refused")
                yield files[number].read_bytes()
            except OSError as error:
                raise DataError(f"{files[number]}: cannot be read ({error.strerror})") from None

    return contents


def bitmap(pixels: NDArray[Any]) -> bytes:
    """Pixels uint8 [h, w, 3] as the bytes of a BMP file: no compression, so no version of it can differ."""
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "BMP")
    return stream.getvalue()


def _keys(pictures: Sequence[Picture], root: Path) -> list[str]:
    return [picture.group or _below(picture.path, root) for picture in pictures]


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
