"""Which pictures are tested on, learnt from and fitted on, where a set does not prescribe it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pathclip.errors import DataError

TEST, TRAIN, VALIDATION = "test", "train", "validation"


def hash_share(key: str) -> float:
    """A number in [0, 1) that the key alone decides: the first 32 bits of its SHA-256 over 2^32.

    >>> round(hash_share("a"), 4)
    0.7914
    """
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32


def parts_by_hash(
    keys: Sequence[str], test_fraction: float | None, validation_fraction: float | None = None
) -> list[str]:
    """Test, train or validation of each picture.

    Args:
        keys: group of each picture, or its name where the group is not known; equal keys stay together.
        test_fraction: part of the keys that is tested on; None tests on all.
        validation_fraction: part of the remaining keys that is fitted on; None for none.

    Raises:
        DataError: a fraction is not between 0 and 1.
    """
    check_fraction("test_fraction", test_fraction)
    if test_fraction is None:
        return [TEST] * len(keys)
    parts = [TEST if hash_share(key) < test_fraction else TRAIN for key in keys]
    return with_validation(parts, keys, validation_fraction)


def with_validation(parts: Sequence[str], keys: Sequence[str], fraction: float | None) -> list[str]:
    """The parts, with this part of the keys to learn from moved to validation, chosen by another hash.

    Raises:
        DataError: the fraction is not between 0 and 1.
    """
    check_fraction("validation_fraction", fraction)
    if fraction is None:
        return list(parts)
    return [
        VALIDATION if part == TRAIN and hash_share(f"validation:{key}") < fraction else part
        for part, key in zip(parts, keys, strict=True)
    ]


def check_fraction(name: str, value: float | None) -> None:
    """Raises DataError unless the value is None or between 0 and 1."""
    if value is not None and not 0 < value < 1:
        raise DataError(f"{name}: {value} is not between 0 and 1")
