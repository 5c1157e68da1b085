"""Whether a model was trained on the very pictures that it is tested on.

The card of a model names the shards it was trained on; where they still lie there, the pictures in them
are compared by the SHA-256 of their bytes. Near-duplicates are not found this way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pathclip.progress import track
from pathclip.shards.reader import read_samples, shard_sizes

MOST_PICTURES = 200_000  # reading the tars of more takes longer than the evaluation


def training_pictures(card: Mapping[str, Any]) -> frozenset[str] | None:
    """SHA-256 of every training picture of a model.

    Args:
        card: the model's; `training.shards` are the folders.

    Returns:
        Hashes in hex; None if the card names no folders, one of them is gone, or they are too large.

    Raises:
        DataError: a shard is malformed.
    """
    folders = (card.get("training") or {}).get("shards") or []
    if not folders or not all((Path(folder) / "sizes.json").is_file() for folder in folders):
        return None
    total = sum(sum(shard_sizes(folder).values()) for folder in folders)
    if total > MOST_PICTURES:
        return None
    samples = (sample for folder in folders for sample in read_samples(folder))
    return frozenset(
        str(sample.meta.get("image_sha256") or hashlib.sha256(sample.image).hexdigest())
        for sample in track(samples, "leak check", total)
    )


def leaked(seen: frozenset[str] | None, sha256: Sequence[str]) -> int | None:
    """How many test pictures were trained on; None if that cannot be known."""
    return None if seen is None else sum(digest in seen for digest in sha256)


def leak_remarks(name: str, count: int | None, n: int) -> list[str]:
    """What a reader must be told about a model's leak, if anything."""
    if count is None:
        return [f"{name}: its training shards are not at hand, so a leak could not be looked for."]
    if count:
        return [f"LEAK: {name} was trained on {count} of these {n} pictures; so its figures say little."]
    return []
