"""Embeddings of prompts, computed once and kept in safetensors: what a text tower would say again.

A model folder may hold them, put there at export; then whoever asks with those prompts never loads the text
tower. What a user types is kept likewise in the user's own cache, see `pathclip.runtime.prompt_cache`.
A text counts as the same only if every letter of it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pathclip import atomic
from pathclip.errors import ModelFolderError
from pathclip.model_folder import PROMPT_EMBEDDINGS, ModelFolder

if TYPE_CHECKING:
    from pathclip.runtime.encoder import Encoder
    from pathclip.runtime.prompt_cache import PromptCache

Vectors = Mapping[str, NDArray[np.float32]]
MAX_BYTES = 256 * 1024 * 1024
_METADATA = "prompts"  # a single entry: safetensors writes several of them in no fixed order
_NORM_TOLERANCE = 1e-3


class StoreError(ValueError):
    """A file that is no store of prompts: who opens it knows what follows from that."""


def save_prompt_embeddings(file: Path, vectors: Mapping[str, Vectors]) -> None:
    """Writes prompts with their embeddings; equal content gives equal bytes.

    Args:
        file: to write, as `pathclip.model_folder.PROMPT_EMBEDDINGS` of a model folder.
        vectors: precision of the encoder ('fp32', 'int8') → prompt → L2-normalised float32 [d].
    """
    atomic.write_bytes(Path(file), pack(vectors))


def stored_embeddings(folder: ModelFolder, precision: str, dim: int) -> dict[str, NDArray[np.float32]]:
    """The prompts of which a model folder holds the embeddings: prompt → L2-normalised float32 [dim].

    Args:
        folder: its file is compared with the card before it is read.
        precision: of the encoder that asks.
        dim: length of an embedding.

    Raises:
        ModelFolderError: the file was changed, or is no store of prompts of this length.
    """
    if not folder.has(PROMPT_EMBEDDINGS):
        return {}
    file = folder.verified(PROMPT_EMBEDDINGS)
    try:
        return dict(unpack(file, precision, dim)[0])
    except StoreError as error:
        raise ModelFolderError(f"{file}: {error}; export the folder again") from None


def prompt_embeddings(
    encoder: Encoder, prompts: Sequence[str], cache: PromptCache | None = None
) -> NDArray[np.float32]:
    """Embeddings of prompts: from the model folder, else from the cache, else from the text tower.

    Args:
        encoder: its text tower runs only for prompts that neither has, each once.
        prompts: texts.
        cache: of the user; None looks in the folder alone.

    Returns:
        float32 [n, d], L2-normalised.

    Raises:
        ModelFolderError: the folder's store or text tower cannot be used.
    """
    # Whoever tries out an encoder of their own need not have a folder.
    folder = getattr(encoder, "folder", None)
    known = stored_embeddings(folder, encoder.precision, encoder.dim) if folder else {}
    missing = _missing(prompts, known)
    if missing and cache is not None:
        known |= cache.find(encoder, missing)
        missing = _missing(prompts, known)
    if missing:
        made = dict(zip(missing, encoder.encode_texts(missing), strict=True))
        if cache is not None:
            cache.keep(encoder, made)
        known |= made
    return np.stack([known[prompt] for prompt in prompts])


def pack(vectors: Mapping[str, Vectors], **more: Any) -> bytes:
    """The bytes of a store.

    Args:
        vectors: group → prompt → float32 [d].
        more: what else its metadata say; plain JSON.
    """
    from safetensors.numpy import save

    texts = {group: list(rows) for group, rows in vectors.items()}
    tensors = {
        group: np.stack([np.asarray(vector, np.float32) for vector in rows.values()])
        for group, rows in sorted(vectors.items())
        if rows
    }
    metadata = json.dumps({**more, "texts": texts}, sort_keys=True)
    return bytes(save(tensors, {_METADATA: metadata}))


def unpack(file: Path, group: str, dim: int) -> tuple[Vectors, Mapping[str, Any]]:
    """One group of a store, in its order, and the metadata of the whole; an absent group is empty.

    Raises:
        StoreError: it is no store, or its vectors are not L2-normalised float32 [dim].
    """
    from safetensors import SafetensorError, safe_open

    try:
        if file.stat().st_size > MAX_BYTES:
            raise StoreError(f"larger than {MAX_BYTES >> 20} MiB, refused")
        with safe_open(file, framework="numpy") as opened:
            metadata = json.loads((opened.metadata() or {})[_METADATA])
            texts = metadata["texts"].get(group, [])
            vectors = opened.get_tensor(group) if texts else np.zeros((0, dim), np.float32)
    except StoreError:
        raise
    except (OSError, SafetensorError, LookupError, AttributeError, TypeError, ValueError, RecursionError):
        raise StoreError("not a store of prompt embeddings") from None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise StoreError("its prompts are not texts")
    if vectors.dtype != np.float32 or vectors.shape != (len(texts), dim):
        raise StoreError(
            f"its embeddings are {vectors.dtype} {list(vectors.shape)}, not float32 {[len(texts), dim]}"
        )
    # Also false for NaN and infinity.
    if not np.all(np.abs(np.linalg.norm(vectors, axis=1) - 1) < _NORM_TOLERANCE):
        raise StoreError("its embeddings are not of length 1")
    return dict(zip(texts, vectors, strict=True)), metadata


def _missing(prompts: Iterable[str], known: Vectors) -> list[str]:
    return [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
