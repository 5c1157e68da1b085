"""Validation rows without what is tested on: a threshold fitted on the very test pictures flatters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate.features.encode import Encoded
from pathclip.evaluate.leaks import find_leak, near_beyond_chance, telling_hashes
from pathclip.train.training_pictures import from_hashes


class Grouped(Protocol):
    """Pictures of any task: `LabelledImages`, `MultiLabelImages`."""

    @property
    def groups(self) -> tuple[str, ...]:
        """What must not be split, of each; '' where it is not known."""


class Rows(Protocol):
    """A split of any task: `task.Split`, `MultiLabelSplit`."""

    @property
    def images(self) -> Grouped:
        """What they are."""

    @property
    def encoded(self) -> Encoded:
        """Their hashes."""


def apart_from_test(validation: Rows, test: Rows) -> tuple[NDArray[np.int64], list[str]]:
    """Which validation rows may be fitted on, int64 [m] ascending, and a remark on those that may not.

    A row is left out if its bytes are those of a test picture, if it is nearly one (where there are more of
    those than chance brings), or if its group, where that is known, is among the test rows.
    """
    mine, tested = validation.encoded, test.encoded
    known, groups = {*tested.sha256}, {*filter(None, test.images.groups)}
    same = np.array([digest in known for digest in mine.sha256], np.bool_)
    seen = from_hashes(tested.sha256, map(int, tested.perceptual[:, 0]))
    leak = find_leak(seen, mine.sha256, mine.perceptual, telling_hashes(mine))
    near = leak.mask & ~same & near_beyond_chance(leak, len(same), len(seen))
    of_group = np.array([group in groups for group in validation.images.groups], np.bool_) & ~same & ~near
    left_out = same | near | of_group
    remarks = []
    if left_out.any():
        remarks.append(
            f"Leaking split: {left_out.sum()} of {len(same)} validation pictures were left out: {same.sum()} "
            f"are themselves among the pictures to test on, {near.sum()} are near-duplicates of such, and "
            f"{of_group.sum()} more are of groups that are tested on."
        )
    return np.flatnonzero(~left_out), remarks


def encoded_part(encoded: Encoded, kept: Sequence[int] | NDArray[np.int64]) -> Encoded:
    """Of the pictures with the given numbers."""
    kept = np.asarray(kept, np.int64)
    return Encoded(
        {
            key: {variant: rows[kept] for variant, rows in variants.items()}
            for key, variants in encoded.embeddings.items()
        },
        {variant: rows[kept] for variant, rows in encoded.colours.items()},
        tuple(encoded.sha256[number] for number in kept),
        encoded.perceptual[kept],
    )
