"""Rows of embeddings as exact numbers, read a block at a time.

Whether two items are equally similar to a query must not depend on where a block was cut, on the order in
which a library adds, or on its threads. So components are rounded to multiples of 2^-24 (an error of at most
half the last bit of a float32 between 1/2 and 1): the products of two rows of length 1 are then multiples of
2^-48 below 2 in size, which float64 adds without rounding, in any order.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import DataError

# Less than the distance of two similarities that are not equal.
HALF_STEP = 2.0**-49
_GRID = 2.0**24
# float16 keeps the length of a row to a thousandth.
_LONGEST = 1.01
_AT_ONCE = 4_000_000


def fixed_point(vectors: NDArray[Any], start: int, stop: int) -> NDArray[np.float64]:
    """Rows start … stop-1 as float64 multiples of 2^-24; of a memory map no page stays in memory.

    Raises:
        DataError: a row is not a number, or longer than 1.
    """
    return _fixed_point(vectors, np.s_[start:stop], start)


def products(
    left: NDArray[np.float64],
    left_rows: NDArray[np.int64],
    right: NDArray[Any],
    right_rows: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Similarity of row pairs, equal to the last bit to those of a matrix product.

    Args:
        left: from `fixed_point`.
        left_rows: int64 [p].
        right: embeddings as they come.
        right_rows: int64 [p].

    Returns:
        float64 [p].
    """
    found = np.empty(len(left_rows))
    step = max(1, _AT_ONCE // max(1, left.shape[1]))
    for start in range(0, len(found), step):
        piece = slice(start, start + step)
        rows = _fixed_point(right, right_rows[piece], None)
        found[piece] = np.einsum("pd,pd->p", left[left_rows[piece]], rows)
    return found


def _fixed_point(vectors: NDArray[Any], rows: Any, start: int | None) -> NDArray[np.float64]:
    block = np.array(vectors[rows], np.float64)
    _release(vectors)
    length = np.sqrt(np.einsum("pd,pd->p", block, block))
    good = length <= _LONGEST  # False for NaN too
    if not good.all():
        bad = int(np.argmin(good))
        number = bad + start if start is not None else int(rows[bad])
        what = (
            f"has the length {length[bad]:.3g} and not 1" if np.isfinite(length[bad]) else "is not a number"
        )
        raise DataError(f"embeddings: row {number} of {len(vectors)} {what}")
    block *= _GRID
    np.rint(block, out=block)
    block /= _GRID
    return block


def _release(vectors: NDArray[Any]) -> None:
    """Pages of a mapped file that were read count as the process's memory until they are given back."""
    mapped = getattr(vectors, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mapped, "madvise") and vectors.mode == "r":  # type: ignore[attr-defined]
        mapped.madvise(mmap.MADV_DONTNEED)
