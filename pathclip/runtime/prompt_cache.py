"""Embeddings of the prompts that a user types, in the user's cache: a second call spares the text tower.

One file for each model, precision and runtime with its libraries' versions. A file is read whole, completed
and put in the place of the old one by a rename: of two processes that do so at once one may lose its rows,
which are made again when next asked for; neither sees half a file. Nothing here can fail a run: a damaged
file counts as none, and where the folder cannot be written to, nothing is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathclip import __version__, atomic
from pathclip.runtime.libraries import LIBRARIES, versions
from pathclip.runtime.prompt_store import StoreError, Vectors, pack, unpack
from pathclip.runtime.user_cache import user_cache

if TYPE_CHECKING:
    from pathclip.runtime.encoder import Encoder

MOST_PROMPTS = 4096  # of one file; the newest stay
LIMIT = 64 * 1024 * 1024  # bytes of all files; the newest stay
_GROUP = "embeddings"
_SUFFIX = ".safetensors"


class PromptCache:
    """A folder of prompt embeddings.

    Args:
        folder: made when something is first kept in it.
        limit: bytes that all files together may take.
    """

    def __init__(self, folder: str | Path, limit: int = LIMIT) -> None:
        self.folder = Path(folder)
        self._limit = limit

    @classmethod
    def of_user(cls) -> PromptCache | None:
        """The one in the user's cache; None where there is none (see `user_cache`): nothing is kept then."""
        folder = user_cache()
        return None if folder is None else cls(folder / "prompts")

    def find(self, encoder: Encoder, prompts: Iterable[str]) -> Vectors:
        """Those of the prompts that are known: prompt → L2-normalised float32 [d]."""
        known = self._read(encoder)
        return {prompt: known[prompt] for prompt in prompts if prompt in known}

    def keep(self, encoder: Encoder, vectors: Vectors) -> None:
        """Adds prompts with their embeddings, or does nothing where the folder cannot be written to."""
        together = {**self._read(encoder), **vectors}
        newest = dict(list(together.items())[-MOST_PROMPTS:])
        digest = _digest(newest)
        with contextlib.suppress(OSError):
            content = pack({_GROUP: newest}, key=_key(encoder), sha256=digest)
            atomic.write_bytes(self._file(encoder), content)
            self._trim()

    def _read(self, encoder: Encoder) -> Vectors:
        file = self._file(encoder)
        try:
            vectors, metadata = unpack(file, _GROUP, encoder.dim)
        except StoreError:
            return {}
        if metadata.get("key") != _key(encoder) or metadata.get("sha256") != _digest(vectors):
            return {}
        return vectors

    def _file(self, encoder: Encoder) -> Path:
        name = hashlib.sha256(json.dumps(_key(encoder), sort_keys=True).encode()).hexdigest()
        return self.folder / f"{name}{_SUFFIX}"

    def _trim(self) -> None:
        files = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError):  # another process was faster
                status = path.stat()
                files.append((status.st_mtime_ns, status.st_size, path))
        total = 0
        for _, size, path in sorted(files, reverse=True):
            total += size
            if total > self._limit:
                path.unlink(missing_ok=True)


def _key(encoder: Encoder) -> dict[str, Any]:
    """What the embedding of a text depends on beside the text."""
    return {
        "model": encoder.folder.hash,
        "precision": encoder.precision,
        "runtime": encoder.runtime,
        "libraries": versions(*LIBRARIES.get(encoder.runtime, ())),
        "version": __version__,
    }


def _digest(vectors: Vectors) -> str:
    digest = hashlib.sha256(json.dumps(list(vectors)).encode())
    for vector in vectors.values():
        digest.update(np.asarray(vector, "<f4").tobytes())
    return digest.hexdigest()
