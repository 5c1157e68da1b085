"""One kind of features of all pictures of a pass, from the cache where it has them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from pathclip.evaluate.features.feature_cache import Shelf

KEEP_BYTES, KEEP_SECONDS = 16 << 20, 60.0  # after which new rows go to the cache


class Column:
    """One row per picture: taken from the cache, or found out now and kept there.

    Args:
        n: pictures.
        width: values per row.
        dtype: of the rows.
        shelf: of the cache, if there is one.

    Attributes:
        rows: [n, width]; zero where nothing is known yet.
        known: bool [n], what came from the cache.
    """

    def __init__(self, n: int, width: int, dtype: str, shelf: Shelf | None) -> None:
        self.rows = np.zeros((n, width), dtype)
        self.known = np.zeros(n, bool)
        self._shelf = shelf
        self._new: list[int] = []
        self._kept_at = time.monotonic()

    def look_up(self, start: int, digests: Sequence[str]) -> None:
        """Fills in what the cache has of the pictures from number `start` on."""
        if self._shelf is not None:
            here = slice(start, start + len(digests))
            self.known[here], self.rows[here] = self._shelf.get(digests)

    def put(self, numbers: list[int], rows: Any) -> None:
        """Fills in what was found out."""
        self.rows[numbers] = rows
        if self._shelf is not None:
            self._new += numbers

    def keep(self, digests: Sequence[str], all_of_it: bool = True) -> None:
        """Writes new rows to the cache; unless `all_of_it`, only if they are many or have waited long."""
        due = len(self._new) * self.rows[:1].nbytes >= KEEP_BYTES
        due = due or time.monotonic() - self._kept_at > KEEP_SECONDS
        if self._shelf is None or not self._new or not (all_of_it or due):
            return
        self._shelf.add([digests[number] for number in self._new], self.rows[self._new])
        self._new, self._kept_at = [], time.monotonic()
