"""An exact index: a folder with every vector, searched by one matrix product; for up to 100,000 pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip import atomic
from pathclip.errors import DataError
from pathclip.types import Hit

SCHEMA_VERSION = 1
META, ENTRIES, VECTORS = "meta.json", "entries.jsonl", "vectors.npy"
# Rows scored at a time: bounds the memory of a search and keeps pages of the mapped file short-lived.
BLOCK = 65_536


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture of an index.

    Attributes:
        id: unique within the index.
        path: of the file, relative to the index's `root`; None if there is none.
        sha256: of the file's bytes in hex, or ''.
    """

    id: str
    path: str | None = None
    sha256: str = ""


class ExactIndex:
    """Vectors with their entries, in memory or mapped from a folder.

    Args:
        vectors: float32 [n, d], L2-normalised.
        entries: n entries in the same order, each id once.
        model_hash: of the model that made the vectors.
        root: folder that the entries' paths are relative to; '' for the current one.
        model: what else is worth knowing of the model: 'path', 'name', 'precision', 'runtime'.

    Raises:
        DataError: the numbers of vectors and entries differ, or an id occurs twice.
    """

    def __init__(
        self,
        vectors: NDArray[np.float32],
        entries: Sequence[Entry],
        model_hash: str,
        root: str | Path = "",
        model: Mapping[str, Any] | None = None,
    ) -> None:
        if vectors.ndim != 2 or len(vectors) != len(entries):
            raise DataError(f"an index of {len(entries)} entries cannot have vectors {list(vectors.shape)}")
        if len({entry.id for entry in entries}) < len(entries):
            raise DataError("an index needs each id once")
        self.vectors = vectors
        self.entries = tuple(entries)
        self.model_hash = model_hash
        self.root = Path(root)
        self.model = dict(model or {})

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.vectors.shape[1])

    def __len__(self) -> int:
        return len(self.entries)

    def search(self, query: NDArray[Any], k: int, model_hash: str | None = None) -> list[Hit]:
        """The k pictures nearest to a query, the nearest first; equals in the order of the index.

        Args:
            query: [d] or [1, d], L2-normalised, from the text or the image tower.
            k: hits at most.
            model_hash: of the query's model, if it is to be checked.

        Raises:
            DataError: k below 1, a query of another length, or one by another model.
        """
        if model_hash is not None:
            self.require_model(model_hash)
        return self.search_many(np.atleast_2d(query), k)[0]

    def search_many(self, queries: NDArray[np.float32], k: int) -> list[list[Hit]]:
        """As `search`, for queries [q, d]; one list of hits per query."""
        if k < 1:
            raise DataError(f"k must be at least 1, not {k}")
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise DataError(
                f"the query has shape {list(queries.shape)}, the index holds vectors of {self.dim}"
            )
        queries = np.asarray(queries, np.float32)
        best = np.zeros((len(queries), 0), np.float32)
        rows = np.zeros((len(queries), 0), np.int64)
        for start in range(0, len(self), BLOCK):
            scores = queries @ np.asarray(self.vectors[start : start + BLOCK]).T
            # Earlier rows stand first, and the sort is stable: equals keep the order of the index.
            best = np.concatenate([best, scores], axis=1)
            rows = np.concatenate(
                [rows, np.tile(np.arange(scores.shape[1]) + start, (len(queries), 1))], axis=1
            )
            best, rows = _top(best, rows, k)
        return [
            [
                self._hit(rank, int(row), float(score))
                for rank, (row, score) in enumerate(zip(*pair, strict=True), 1)
            ]
            for pair in zip(rows, best, strict=True)
        ]

    def require_model(self, model_hash: str) -> None:
        """Raises DataError unless the index was made by the model: vectors of two models do not compare."""
        if model_hash != self.model_hash:
            made_by = self.model.get("path") or self.model.get("name") or "another"
            raise DataError(
                f"the index was made by model {made_by} ({self.model_hash[:12]}), the query comes from "
                f"{model_hash[:12]}; search with that model, or index the pictures again with this one"
            )

    def write(self, path: str | Path) -> None:
        """Writes the folder; an earlier one is replaced whole, or stays if writing fails.

        Raises:
            DataError: something stands at `path` that is no index.
        """
        path = Path(path)
        check_replaceable(path)
        lines = "".join(json.dumps(asdict(entry)) + "\n" for entry in self.entries)
        buffer = BytesIO()
        np.save(buffer, np.ascontiguousarray(self.vectors, np.float32), allow_pickle=False)
        with atomic.staged_folder(path) as folder:
            (folder / VECTORS).write_bytes(buffer.getbuffer())
            (folder / ENTRIES).write_text(lines, encoding="utf-8")
            meta = {
                "schema_version": SCHEMA_VERSION,
                "n": len(self),
                "dim": self.dim,
                "model_hash": self.model_hash,
                "model": self.model,
                "root": str(self.root),
            }
            atomic.write_json(folder / META, meta)

    def _hit(self, rank: int, row: int, score: float) -> Hit:
        entry = self.entries[row]
        path = str(self.root / entry.path) if entry.path is not None else None
        return Hit(rank, entry.id, score, path)


def check_replaceable(path: Path) -> None:
    """Raises DataError if something stands at `path` that is no index: no folder is lost by a slip."""
    if path.exists() and not (path / META).is_file():
        raise DataError(f"{path}: exists and is no index, so it is not replaced; name another folder")


def open_index(path: str | Path) -> ExactIndex:
    """Opens an index folder; the vectors are mapped, not read.

    Raises:
        DataError: no index, an unknown schema, a malformed or truncated file; names the file and line.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such index; make one: pathclip index MODEL IMAGES_FOLDER --out {path}")
    if not (path / META).is_file():
        raise DataError(f"{path}: no {META} in it, so it is no index")
    meta = _read_meta(path / META)
    entries = list(_read_entries(path / ENTRIES))
    try:
        vectors = np.load(path / VECTORS, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path / VECTORS}: missing; index the pictures again") from None
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path / VECTORS}: damaged ({error}); index the pictures again") from error
    if vectors.shape != (meta["n"], meta["dim"]) or vectors.dtype != np.float32 or len(entries) != meta["n"]:
        raise DataError(
            f"{path}: {len(entries)} entries and vectors {vectors.dtype} {list(vectors.shape)}, but {META} "
            f"says {meta['n']} of {meta['dim']}; index the pictures again"
        )
    return ExactIndex(vectors, entries, meta["model_hash"], meta["root"], meta["model"])


def _top(scores: NDArray[Any], rows: NDArray[Any], k: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The k highest of each line in falling order; of equals those with the lower row."""
    if scores.shape[1] > 4 * k:
        # Everything that ties with the k-th stays in, so that the choice among equals is the stable sort's.
        kth = np.partition(scores, -k, axis=1)[:, -k]
        keep = (scores >= kth[:, None]).any(axis=0)
        scores, rows = scores[:, keep], rows[:, keep]
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def _read_meta(file: Path) -> dict[str, Any]:
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: not valid JSON ({error})") from error
    if not isinstance(meta, dict) or meta.get("schema_version") != SCHEMA_VERSION:
        found = meta.get("schema_version") if isinstance(meta, dict) else None
        raise DataError(
            f"{file}: schema_version {found!r}, this pathclip reads {SCHEMA_VERSION}; index again"
        )
    kinds = {"n": int, "dim": int, "model_hash": str, "model": dict, "root": str}
    for key, kind in kinds.items():
        if not isinstance(meta.get(key), kind):
            raise DataError(f"{file}: '{key}' is missing or malformed; index the pictures again")
    return meta


def _read_entries(file: Path) -> Iterable[Entry]:
    try:
        # A name may hold U+2028 and other marks that str.splitlines takes for the end of a line.
        with file.open(encoding="utf-8", newline="\n") as opened:
            lines = list(opened)
    except FileNotFoundError:
        raise DataError(f"{file}: missing; index the pictures again") from None
    except ValueError as error:
        raise DataError(f"{file}: not UTF-8 text ({error})") from error
    for number, line in enumerate(lines, 1):
        try:
            entry = Entry(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise DataError(f"{file}, line {number}: no entry ({error}); index the pictures again") from error
        if not isinstance(entry.id, str) or not isinstance(entry.path, str | None):
            raise DataError(f"{file}, line {number}: 'id' and 'path' must be text; index the pictures again")
        yield entry
