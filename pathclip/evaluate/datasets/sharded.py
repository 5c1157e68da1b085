"""Labelled pictures, and pictures with texts, from folders of shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pathclip.errors import DataError
from pathclip.evaluate.datasets.labelled import Contents, LabelledData, LabelledImages, TextPairs
from pathclip.evaluate.datasets.rows import matches
from pathclip.evaluate.datasets.tables import cell
from pathclip.shards.reader import read_samples
from pathclip.shards.writer import Sample


def labelled_shards(
    test: str,
    train: str | None = None,
    label: str = "label",
    where: Mapping[str, Any] | None = None,
    validation: str | None = None,
) -> LabelledData:
    """Reads labelled pictures from folders of shards, as `pathclip curate` writes them.

    Args:
        test: folder whose pictures are tested on.
        train: folder that baselines and probes learn from.
        label: entry of a sample's JSON that names its class; samples without one are left out.
        where: entry → value, or list of values, that a sample must have.
        validation: folder that thresholds and the like are fitted on.

    Raises:
        DataError: a missing or malformed shard, or no sample with a label.
    """
    return LabelledData(
        _from_shards(test, "test", label, where),
        _from_shards(train, "train", label, where) if train else None,
        _from_shards(validation, "validation", label, where) if validation else None,
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
        groups.append(cell(sample.meta.get("group")))
    if not paths:
        raise DataError(f"{folder}: no pairs in these shards")
    return TextPairs(
        tuple(paths), tuple(texts), tuple(groups), _shard_contents(folder, list(range(len(paths))))
    )


def _from_shards(folder: str, split: str, label: str, where: Mapping[str, Any] | None) -> LabelledImages:
    kept, paths, labels, groups = [], [], [], []
    for number, sample in enumerate(read_samples(folder)):
        named = cell(sample.meta.get(label))
        if named and _wanted(sample, where):
            kept.append(number)
            paths.append(f"{folder}: {sample.key}")
            labels.append(named)
            groups.append(cell(sample.meta.get("group")))
    if not kept:
        raise DataError(f"{folder}: no sample has the entry '{label}', so there is nothing to classify")
    return LabelledImages(tuple(paths), tuple(labels), tuple(groups), split, _shard_contents(folder, kept))


def _wanted(sample: Sample, where: Mapping[str, Any] | None) -> bool:
    return all(matches(sample.meta.get(entry), value) for entry, value in (where or {}).items())


def _shard_contents(folder: str, kept: list[int]) -> Contents:
    """Reads the shards front to back, as tars must be, and yields the samples asked for."""

    def contents(numbers: Sequence[int]) -> Iterator[bytes]:
        wanted = {kept[number] for number in numbers}
        last = max(wanted, default=-1)
        for position, sample in enumerate(read_samples(folder, last + 1)):
            if position in wanted:
                yield sample.image

    return contents
