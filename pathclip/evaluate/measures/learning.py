"""What a measure may learn from.

Linear probe, few-shot, nearest neighbours and fine-tuning share it: pictures that are tested on are never
learnt from, nor are others of their groups; and whatever must be chosen is chosen on other rows than those
tested on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate.leaks import apart
from pathclip.evaluate.task import Measured, Split

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a split.

    Attributes:
        split: which.
        numbers: int64 [m], ascending.
    """

    split: Split
    numbers: Numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def truth(self) -> Numbers:
        """Class numbers int64 [m]."""
        return self.split.truth[self.numbers]

    @property
    def groups(self) -> Numbers:
        """Group numbers int64 [m]; not those of another split."""
        return self.split.groups[self.numbers]

    def embeddings(self, key: str, variant: str) -> NDArray[np.float32]:
        """Of a subject by its key, float32 [m, d]."""
        return self.split.encoded.embeddings[key][variant][self.numbers]

    def colours(self, variant: str) -> Floats:
        """Colour features float64 [m, 54]."""
        return self.split.encoded.colours[variant][self.numbers]


@dataclass(frozen=True, slots=True)
class Learnable:
    """What a task lets a measure learn from.

    Attributes:
        train: rows to learn from: of the training rows those that are not tested on, nor of a tested group.
        validation: rows to choose on: of the validation rows those that are in neither; None for none.
        remarks: what was left out.
        refusal: why nothing can be learnt; '' if it can.
    """

    train: Rows | None
    validation: Rows | None = None
    remarks: tuple[str, ...] = ()
    refusal: str = ""


def learnable(measured: Measured) -> Learnable:
    """The rows to learn from and to choose on, without what is tested on.

    A picture is left out if its bytes are those of a test picture, or its group, where that is known, is
    among the test rows.
    """
    if measured.train is None:
        return Learnable(None, refusal="the task has no rows to learn from")
    test = measured.test
    kept, remark = _apart(measured.train, [test], "training")
    remarks = [remark] if remark else []
    train = Rows(measured.train, kept)
    for number, name in enumerate(measured.classes):
        if not (train.truth == number).any():
            refusal = f"class '{name}' has no example among the {len(train)} pictures to learn from"
            return Learnable(None, remarks=tuple(remarks), refusal=refusal)
    validation = None
    if measured.validation is not None:
        kept, remark = _apart(measured.validation, [test, measured.train], "validation")
        remarks += [remark] if remark else []
        validation = Rows(measured.validation, kept) if len(kept) else None
    return Learnable(train, validation, tuple(remarks))


def share_of_groups(truth: Numbers, groups: Numbers, share: float, seed: int, spare: int = 0) -> NDArray[Any]:
    """Chooses about this share of the groups of each class, whole groups, at least one.

    The same seed chooses from a smaller share what it chooses from a larger one, so subsets are nested. A
    group with pictures of several classes counts as one of the class that most of them have.

    Args:
        truth: int64 [m].
        groups: int64 [m].
        share: in (0, 1].
        seed: of the order of the groups.
        spare: groups of each class that are not chosen in any case.

    Returns:
        bool [m]: the rows of the chosen groups.
    """
    names, index = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(truth.max(initial=0)) + 1), np.int64)
    np.add.at(counts, (index, truth), 1)
    mostly = counts.argmax(axis=1)
    order = np.random.default_rng(seed).permutation(len(names))
    chosen = np.zeros(len(names), bool)
    for number in range(counts.shape[1]):
        own = order[mostly[order] == number]
        wanted = max(1, round(share * len(own)))
        chosen[own[: max(0, min(wanted, len(own) - spare))]] = True
    return chosen[index]


def inner_split(rows: Rows, share: float, seed: int) -> tuple[Numbers, Numbers] | None:
    """Divides training rows by group into those to fit on and those to choose on.

    Args:
        rows: the training rows.
        share: of each class's groups that is chosen on.
        seed: of the choice.

    Returns:
        Places in `rows` to fit on and to choose on, every class among the former; None if no class has two
        groups.
    """
    held = share_of_groups(rows.truth, rows.groups, share, seed, spare=1)
    if not held.any() or len(np.unique(rows.truth[~held])) < len(np.unique(rows.truth)):
        return None
    return np.flatnonzero(~held), np.flatnonzero(held)


def require(option: str, value: Any, holds: bool, need: str) -> None:
    """Refuses an option of a measure.

    Raises:
        ValueError: it does not hold; names option, need and value. `pathclip.config.build` adds the key.
    """
    if not holds:
        raise ValueError(f"{option}: {need} is needed, not {value}")


def _apart(split: Split, others: Sequence[Split], name: str) -> tuple[Numbers, str]:
    """Rows of a split whose bytes and groups are in none of the others, and a remark on those that are."""
    same, of_group = apart(split, others)
    remark = ""
    if left := int(same.sum() + of_group.sum()):
        where = "to test on" if len(others) == 1 else "to test on or to learn from"
        remark = (
            f"Leaking split: {left} of {len(same)} {name} pictures were left out: {int(same.sum())} are "
            f"themselves among the pictures {where}, {int(of_group.sum())} more are of groups that are."
        )
    return np.flatnonzero(~same & ~of_group), remark
