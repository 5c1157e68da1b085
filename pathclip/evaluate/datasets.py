"""Readers: from a table or shards to labelled pictures, or to pictures with texts.

Nothing is decoded here, and no picture is held: `contents` reads the encoded bytes again whenever asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pathclip.errors import DataError
from pathclip.evaluate.tables import lines, need_columns
from pathclip.shards.reader import read_samples
from pathclip.shards.writer import Sample

Contents = Callable[[Sequence[int]], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Pictures with one class each.

    Attributes:
        paths: the file of each picture, or shard folder and key: what messages call it.
        labels: class of each.
        groups: what must not be split, of each; '' where it is not known.
        split: 'train' or 'test'.
        contents: yields the encoded bytes of the pictures with these ascending numbers.
    """

    paths: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    split: str
    contents: Contents

    def __len__(self) -> int:
        return len(self.paths)

    def first(self, limit: int | None) -> LabelledImages:
        """At most `limit` pictures, the classes in turn, so that a small number still has every class."""
        if limit is None or limit >= len(self):
            return self
        turn: dict[str, int] = {}
        order = []
        for number, label in enumerate(self.labels):
            turn[label] = turn.get(label, -1) + 1
            order.append((turn[label], number))
        return self._take(sorted(number for _, number in sorted(order)[:limit]))

    def of_classes(self, classes: Iterable[str]) -> LabelledImages:
        """Those of the given classes."""
        wanted = set(classes)
        return self._take([number for number, label in enumerate(self.labels) if label in wanted])

    def _take(self, kept: list[int]) -> LabelledImages:
        return replace(
            self,
            paths=tuple(self.paths[i] for i in kept),
            labels=tuple(self.labels[i] for i in kept),
            groups=tuple(self.groups[i] for i in kept),
            contents=lambda numbers: self.contents([kept[i] for i in numbers]),
        )


@dataclass(frozen=True, slots=True)
class LabelledData:
    """What a zero-shot task reads.

    Attributes:
        test: pictures to test on.
        train: pictures that baselines and probes learn from, where there are any.
        validation: pictures that temperatures, thresholds and strengths are chosen on, where there are any.
    """

    test: LabelledImages
    train: LabelledImages | None = None
    validation: LabelledImages | None = None


@dataclass(frozen=True, slots=True)
class MultiLabelImages:
    """Pictures with any number of classes each, none included; see `LabelledImages`."""

    paths: tuple[str, ...]
    labels: tuple[frozenset[str], ...]
    groups: tuple[str, ...]
    split: str
    contents: Contents

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True, slots=True)
class MultiLabelData:
    """What a multi-label task reads; see `LabelledData`."""

    test: MultiLabelImages
    validation: MultiLabelImages | None = None


@dataclass(frozen=True, slots=True)
class TextPairs:
    """Pictures with one text each; picture i belongs to text i. Attributes as in `LabelledImages`."""

    paths: tuple[str, ...]
    texts: tuple[str, ...]
    groups: tuple[str, ...]
    contents: Contents

    def __len__(self) -> int:
        return len(self.paths)

    def first(self, limit: int | None) -> TextPairs:
        """The first `limit` pairs."""
        if limit is None or limit >= len(self):
            return self
        return replace(self, paths=self.paths[:limit], texts=self.texts[:limit], groups=self.groups[:limit])


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    given: str  # the path as the table has it
    path: Path
    label: str
    group: str
    split: str


def table(
    csv: str,
    image: str = "path",
    label: str = "label",
    group: str | None = None,
    split: str | None = None,
    train: str = "train",
    test: str = "test",
    test_fraction: float | None = None,
    where: Mapping[str, Any] | None = None,
    root: str | None = None,
) -> LabelledData:
    """Reads labelled pictures from a CSV or JSONL file.

    Args:
        csv: the file; `.jsonl` has one JSON object per line, anything else is CSV with a header.
        image: column of the picture's path.
        label: column of the class.
        group: column of the slide, case or source tile; None if it is not known.
        split: column of the prescribed split; rows with other values than `train` and `test` are left out.
        train: value of the rows that only baselines learn from.
        test: value of the rows to test on.
        test_fraction: without a `split` column, the part of the groups (of the images, if the group is
            not known) that is tested on, chosen by hash; see `hash_share`. None tests on all rows.
        where: column → value, or list of values, that a row must have.
        root: folder of relative paths; by default that of the file.

    Raises:
        DataError: no such file, column or picture; an empty label; no row left. Names file and line.
    """
    if test_fraction is not None and not 0 < test_fraction < 1:
        raise DataError(f"test_fraction: {test_fraction} is not between 0 and 1")
    file = Path(csv)
    folder = Path(root) if root else file.parent
    rows: list[_Row] = []
    for line, values in lines(file):
        need_columns(file, line, values, [image, label, *filter(None, (group, split)), *(where or {})])
        if not all(_matches(values[column], wanted) for column, wanted in (where or {}).items()):
            continue
        row = _Row(
            line,
            str(values[image] or ""),
            folder / str(values[image] or ""),
            str(values[label] or "").strip(),
            str(values[group] or "").strip() if group else "",
            str(values[split] or "").strip() if split else "",
        )
        if not row.path.is_file():
            raise DataError(f"{file}, line {line}: there is no picture {row.path}")
        if not row.label:
            raise DataError(f"{file}, line {line}: the column '{label}' is empty")
        rows.append(row)
    if split is not None:
        parts = [row.split for row in rows]
    elif test_fraction is not None:
        shares = [hash_share(row.group or _name(row, folder)) for row in rows]
        parts = [test if share < test_fraction else train for share in shares]
    else:
        parts = [test] * len(rows)
    tested = [row for row, part in zip(rows, parts, strict=True) if part == test]
    learnt = [row for row, part in zip(rows, parts, strict=True) if part == train]
    if not tested:
        which = f" with {split}={test}" if split else ""
        which += "".join(f" and {column}={value}" for column, value in (where or {}).items())
        raise DataError(f"{file}: no row to test on{which}")
    return LabelledData(_from_rows(tested, "test"), _from_rows(learnt, "train") if learnt else None)


def labelled_shards(
    test: str, train: str | None = None, label: str = "label", where: Mapping[str, Any] | None = None
) -> LabelledData:
    """Reads labelled pictures from folders of shards, as `pathclip curate` writes them.

    Args:
        test: folder whose pictures are tested on.
        train: folder that only baselines learn from.
        label: entry of a sample's JSON that names its class; samples without one are left out.
        where: entry → value, or list of values, that a sample must have.

    Raises:
        DataError: a missing or malformed shard, or no sample with a label.
    """
    return LabelledData(
        _from_shards(test, "test", label, where),
        _from_shards(train, "train", label, where) if train else None,
    )


def shards(folder: str, limit: int | None = None) -> TextPairs:
    """Reads pictures and their texts from a folder of shards.

    Raises:
        DataError: a missing or malformed shard, or a folder without pairs.
    """
    paths, texts, groups = [], [], []
    for sample in read_samples(folder, limit):
        paths.append(f"{folder}: {sample.key}")
        texts.append(sample.text)
        groups.append(str(sample.meta.get("group") or ""))
    if not paths:
        raise DataError(f"{folder}: no pairs in these shards")
    return TextPairs(
        tuple(paths), tuple(texts), tuple(groups), _shard_contents(folder, list(range(len(paths))))
    )


def hash_share(key: str) -> float:
    """A number in [0, 1) that the key alone decides: the first 32 bits of its SHA-256 over 2^32.

    >>> round(hash_share("a"), 4)
    0.7914
    """
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32


def _name(row: _Row, folder: Path) -> str:
    """What the hash of a picture is taken of: its path below the folder, wherever that lies."""
    return row.path.relative_to(folder).as_posix() if row.path.is_relative_to(folder) else row.given


def _matches(value: Any, wanted: Any) -> bool:
    several = isinstance(wanted, Sequence) and not isinstance(wanted, str)
    return str(value) in ([str(one) for one in wanted] if several else [str(wanted)])


def _from_rows(rows: list[_Row], split: str) -> LabelledImages:
    files = [row.path for row in rows]

    def contents(numbers: Sequence[int]) -> Iterator[bytes]:
        for number in numbers:
            try:
                yield files[number].read_bytes()
            except OSError as error:
                raise DataError(f"{files[number]}: cannot be read ({error.strerror})") from None

    return LabelledImages(
        tuple(map(str, files)),
        tuple(row.label for row in rows),
        tuple(row.group for row in rows),
        split,
        contents,
    )


def _from_shards(folder: str, split: str, label: str, where: Mapping[str, Any] | None) -> LabelledImages:
    kept, paths, labels, groups = [], [], [], []
    for number, sample in enumerate(read_samples(folder)):
        if sample.meta.get(label) and _wanted(sample, where):
            kept.append(number)
            paths.append(f"{folder}: {sample.key}")
            labels.append(str(sample.meta[label]))
            groups.append(str(sample.meta.get("group") or ""))
    if not kept:
        raise DataError(f"{folder}: no sample has the entry '{label}', so there is nothing to classify")
    return LabelledImages(tuple(paths), tuple(labels), tuple(groups), split, _shard_contents(folder, kept))


def _wanted(sample: Sample, where: Mapping[str, Any] | None) -> bool:
    return all(_matches(sample.meta.get(entry), value) for entry, value in (where or {}).items())


def _shard_contents(folder: str, kept: list[int]) -> Contents:
    """Reads the shards front to back, as tars must be, and yields the samples asked for."""

    def contents(numbers: Sequence[int]) -> Iterator[bytes]:
        wanted = {kept[number] for number in numbers}
        last = max(wanted, default=-1)
        for position, sample in enumerate(read_samples(folder, last + 1)):
            if position in wanted:
                yield sample.image

    return contents
