"""What readers give: pictures with classes, with any number of classes, or with texts; none is held."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

Contents = Callable[[Sequence[int]], Iterator[bytes]]
Images = TypeVar("Images", "LabelledImages", "MultiLabelImages")


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Pictures with one class each.

    Attributes:
        paths: the file of each picture, or shard folder and key: what messages call it.
        labels: class of each.
        groups: what must not be split, of each; '' where it is not known.
        split: 'train', 'validation' or 'test'.
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
        return self.take(_in_turn(self.labels, limit))

    def of_classes(self, classes: Iterable[str]) -> LabelledImages:
        """Those of the given classes."""
        wanted = set(classes)
        return self.take([number for number, label in enumerate(self.labels) if label in wanted])

    def take(self, kept: Sequence[int]) -> LabelledImages:
        """Those with the given ascending numbers."""
        return _taken(self, kept)


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

    def first(self, limit: int | None) -> MultiLabelImages:
        """At most `limit` pictures, the sets of classes in turn."""
        if limit is None or limit >= len(self):
            return self
        return self.take(_in_turn([",".join(sorted(label)) for label in self.labels], limit))

    def take(self, kept: Sequence[int]) -> MultiLabelImages:
        """Those with the given ascending numbers."""
        return _taken(self, kept)


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


def _taken(images: Images, kept: Sequence[int]) -> Images:
    return replace(
        images,
        paths=tuple(images.paths[i] for i in kept),
        labels=tuple(images.labels[i] for i in kept),
        groups=tuple(images.groups[i] for i in kept),
        contents=lambda numbers: images.contents([kept[i] for i in numbers]),
    )


def _in_turn(labels: Sequence[str], limit: int) -> list[int]:
    """Ascending numbers of `limit` items: the first of each label, then the second, and so on."""
    turn: dict[str, int] = {}
    order = []
    for number, label in enumerate(labels):
        turn[label] = turn.get(label, -1) + 1
        order.append((turn[label], number))
    return sorted(number for _, number in sorted(order)[:limit])
