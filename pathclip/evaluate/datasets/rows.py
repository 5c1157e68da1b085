"""Labelled pictures from a CSV or JSONL file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pathclip.errors import DataError
from pathclip.evaluate.datasets.files import Picture, labelled_data
from pathclip.evaluate.datasets.labelled import LabelledData
from pathclip.evaluate.datasets.parts import (
    TEST,
    TRAIN,
    VALIDATION,
    check_fraction,
    parts_by_hash,
    with_validation,
)
from pathclip.evaluate.datasets.tables import cell, lines, need_columns


def table(
    csv: str,
    image: str = "path",
    label: str = "label",
    group: str | None = None,
    split: str | None = None,
    train: str = "train",
    test: str = "test",
    validation: str | None = "validation",
    test_fraction: float | None = None,
    validation_fraction: float | None = None,
    where: Mapping[str, Any] | None = None,
    root: str | None = None,
) -> LabelledData:
    """Reads labelled pictures from a CSV or JSONL file.

    Args:
        csv: the file; `.jsonl` has one JSON object per line, anything else is CSV with a header.
        image: column of the picture's path.
        label: column of the class.
        group: column of the slide, case or source tile; None if it is not known.
        split: column of the prescribed split; rows with values other than the next three are left out.
        train: value of the rows that baselines and probes learn from.
        test: value of the rows to test on.
        validation: value of the rows that thresholds and the like are fitted on.
        test_fraction: without a `split` column, the part of the groups (of the images, if the group is
            not known) that is tested on, chosen by hash; see `hash_share`. None tests on all rows.
        validation_fraction: part of the groups to learn from that is kept for validation, chosen by hash.
        where: column → value, or list of values, that a row must have.
        root: folder of relative paths; by default that of the file.

    Raises:
        DataError: no such file, column or picture; an empty label; no row left. Names file and line.
    """
    check_fraction("test_fraction", test_fraction)
    check_fraction("validation_fraction", validation_fraction)
    file = Path(csv)
    folder = Path(root) if root else file.parent
    named_columns = {"image": image, "label": label, "group": group, "split": split}
    pictures: list[Picture] = []
    keys: list[str] = []
    keys_of = {column: f"dataset.{key}" for key, column in named_columns.items() if column}
    for line, values in lines(file, "dataset.csv"):
        need_columns(file, line, values, [*keys_of, *(where or {})], keys_of)
        if not all(matches(values[column], wanted) for column, wanted in (where or {}).items()):
            continue
        given = cell(values[image])
        picture = Picture(
            folder / given,
            cell(values[label]).strip(),
            cell(values[group]).strip() if group else "",
            cell(values[split]).strip() if split else "",
        )
        _check_picture(picture.path, file, line)
        if not picture.label:
            raise DataError(f"{file}, line {line}: the column '{label}' is empty")
        pictures.append(picture)
        keys.append(picture.group or _name(picture.path, folder, given))
    if split is None:
        parts = parts_by_hash(keys, test_fraction, validation_fraction)
    else:
        # A value that stands twice belongs to the first: rows to test on are never fitted on.
        named = {value: part for part, value in ((VALIDATION, validation), (TRAIN, train), (TEST, test))}
        parts = [named.get(picture.part, "") for picture in pictures]
        parts = with_validation(parts, keys, validation_fraction)
    if TEST not in parts:
        which = f" with {split}={test}" if split else ""
        which += "".join(f" and {column}={value}" for column, value in (where or {}).items())
        raise DataError(f"{file}: no row to test on{which}")
    return labelled_data(
        [replace(picture, part=part) for picture, part in zip(pictures, parts, strict=True)], file
    )


def matches(value: Any, wanted: Any) -> bool:
    """Whether a cell has the wanted value, or one of several."""
    several = isinstance(wanted, Sequence) and not isinstance(wanted, str)
    return str(value) in ([str(one) for one in wanted] if several else [str(wanted)])


def _check_picture(path: Path, file: Path, line: int) -> None:
    try:
        there = path.is_file()
    except OSError as error:  # a name longer than the system takes, a folder that is closed
        raise DataError(f"{file}, line {line}: {path} cannot be read ({error.strerror})") from None
    if not there:
        raise DataError(f"{file}, line {line}: there is no picture {path}")


def _name(path: Path, folder: Path, given: str) -> str:
    """What the hash of a picture is taken of: its path below the folder, wherever that lies."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else given
