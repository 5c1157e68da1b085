"""Search by similarity over many pictures: the VectorIndex protocol; `exact` is the numpy one."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pathclip.types import Hit


@runtime_checkable
class VectorIndex(Protocol):
    """Vectors of pictures that can be asked for the nearest to a query."""

    @property
    def model_hash(self) -> str:
        """Of the model that made the vectors; see `pathclip.model_folder.ModelFolder.hash`."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    def __len__(self) -> int:
        """Number of pictures."""

    def search(self, query: NDArray[Any], k: int, model_hash: str | None = None) -> list[Hit]:
        """The k nearest to a query vector [d] or [1, d], the nearest first."""

    def search_many(self, queries: NDArray[np.float32], k: int) -> list[list[Hit]]:
        """The same for query vectors [q, d]."""
