"""Whether the pictures of a task were trained on: the very files, or near-duplicates of them.

A model folder holds the SHA-256 and the perceptual hash of every picture it was trained on (see
`pathclip.train.training_pictures`); of folders of earlier versions the shards are read, where they still lie
where the card says. Near-duplicates are found by pHash (Zauner 2010) in any of the 8 flips and rotations.

How far near may be is measured on 5,209 pictures of LC25000, oral_oscc, slides of the pathology atlas and
histolab's tiles. Of 195 million comparisons of pictures from different data sets or source tiles, none came
within 6 bits, 2 within 8, 19 within 10 and 252 within 12: a tenth for every two bits less. Of copies of 400
pictures, within 6 bits lay all that were compressed again as JPEG of quality 30, halved, turned or made grey,
99 % of those cropped by 2 % and 78 % of those cropped by 4 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pathclip.curate.near import near_any
from pathclip.model_folder import ModelFolder
from pathclip.shards.reader import shard_sizes
from pathclip.train.training_pictures import (
    TrainingPictures,
    from_hashes,
    pictures_of_shards,
    read_training_pictures,
)

if TYPE_CHECKING:
    from pathclip.evaluate.features.encode import Encoded
    from pathclip.evaluate.task import Split

MOST_PICTURES = 200_000  # reading the tars of more takes longer than the evaluation
DISTANCE = 6  # bits of 64, as curation takes it
CHANCE = 1e-9  # that two pictures with nothing in common are that near: a tenth of what was seen for 8 bits
# Mean standard deviation of R, G, B in 0–255 below which a perceptual hash is one of noise: blank tiles have
# 0.5 to 3.6, those with the least tissue 10.7 and more.
FLAT = 4.0
LEAST_BITS = 24  # a hash has 32 of 64 bits set but where many coefficients are equal, as in a flat picture


@dataclass(frozen=True, slots=True)
class Leak:
    """What is known of n test pictures.

    Attributes:
        exact: how many were trained on, byte for byte; None if that cannot be known.
        near: how many others have a near-duplicate among the training pictures; None if that cannot be known.
        mask: which, exact or near, bool [n]; all False where nothing is known.
    """

    exact: int | None
    near: int | None
    mask: NDArray[np.bool_]


def seen_pictures(folder: ModelFolder) -> TrainingPictures | None:
    """The training pictures of a model: from its folder, else from the shards that its card names.

    Raises:
        ModelFolderError: the file was changed, or is malformed.
        DataError: a shard is malformed.
    """
    found = read_training_pictures(folder)
    return found if found is not None else _of_shards(folder.card)


def _of_shards(card: Mapping[str, Any]) -> TrainingPictures | None:
    folders = (card.get("training") or {}).get("shards") or []
    if not folders or not all((Path(folder) / "sizes.json").is_file() for folder in folders):
        return None
    sizes = {
        str(Path(folder) / name): count for folder in folders for name, count in shard_sizes(folder).items()
    }
    if sum(sizes.values()) > MOST_PICTURES:
        return None
    return pictures_of_shards(sizes, description="leak check")


def find_leak(
    seen: TrainingPictures | None,
    sha256: Sequence[str],
    perceptual: NDArray[np.uint64],
    telling: NDArray[np.bool_] | None = None,
) -> Leak:
    """Which test pictures were trained on.

    Args:
        seen: what was trained on; None if that is not known.
        sha256: of each test picture, in hex.
        perceptual: hashes of each in its flips and rotations, uint64 [n, 8].
        telling: whose perceptual hashes tell something, [n]; all if None. See `telling_hashes`.
    """
    n = len(sha256)
    if seen is None:
        return Leak(None, None, np.zeros(n, np.bool_))
    exact = _among(_names(from_rows(sha256)), _names(seen.sha256))
    known = np.sort(seen.perceptual[np.bitwise_count(seen.perceptual) >= LEAST_BITS])
    known = known[np.append(True, known[1:] != known[:-1])[: len(known)]]
    if len(seen) and not len(known):
        return Leak(int(exact.sum()), None, exact)
    near = near_any(perceptual.ravel(), known, DISTANCE).reshape(perceptual.shape).any(axis=1) & ~exact
    if telling is not None:
        near &= telling
    return Leak(int(exact.sum()), int(near.sum()), exact | near)


def from_rows(sha256: Sequence[str]) -> NDArray[np.uint8]:
    """SHA-256 in hex as uint8 [n, 32]."""
    return np.frombuffer(b"".join(map(bytes.fromhex, sha256)), np.uint8).reshape(-1, 32)


def telling_hashes(encoded: Encoded) -> NDArray[np.bool_]:
    """Whose perceptual hash tells something: not of a blank tile, which is near to any other. Bool [n]."""
    telling = np.bitwise_count(encoded.perceptual[:, 0]) >= LEAST_BITS
    if "plain" in encoded.colours:
        telling &= encoded.colours["plain"][:, 3:6].mean(axis=1) >= FLAT
    return telling


def beyond_chance(leak: Leak, n_test: int, n_seen: int) -> bool:
    """Whether test pictures were seen, or more of them nearly so than chance brings (a Poisson count).

    Args:
        leak: what was found.
        n_test: pictures that were looked for, each in 8 flips and rotations.
        n_seen: pictures they were looked for among.
    """
    return bool(leak.exact) or near_beyond_chance(leak, n_test, n_seen)


def near_beyond_chance(leak: Leak, n_test: int, n_seen: int) -> bool:
    """As `beyond_chance`, of near-duplicates alone."""
    expected = n_test * 8 * n_seen * CHANCE
    return (leak.near or 0) > expected + 3 * math.sqrt(expected)


def leak_remarks(name: str, leak: Leak, seen: TrainingPictures | None = None) -> list[str]:
    """What a reader must be told about a model's leak, if anything.

    Args:
        name: of the model.
        leak: that of the task's test pictures.
        seen: what it was trained on: of what lies near, chance may have brought some.
    """
    n = len(leak.mask)
    if leak.exact is None:
        return [f"{name}: the pictures it was trained on are not known, so a leak could not be looked for."]
    found = []
    if leak.exact:
        found.append(f"{leak.exact} of these {n} pictures")
    if leak.near:
        chance = n * 8 * len(seen or ()) * CHANCE
        expected = f" (about {chance:.0f} of them by chance)" if chance >= 1 else ""
        of = "more" if found else f"of these {n} pictures"
        found.append(f"near-duplicates of {leak.near} {of}{expected}")
    lines = []
    if found:
        lines.append(f"LEAK: {name} was trained on {' and '.join(found)}; so its figures say little.")
    if seen is not None and seen.perceptual_known < len(seen):
        lines.append(
            f"{name}: near-duplicates could be looked for among {seen.perceptual_known} of its "
            f"{len(seen)} training pictures only."
        )
    return lines


def split_leaks(train: Split, test: Split, what: str = "training rows") -> tuple[Leak, list[str]]:
    """Which test pictures of a task stand, as they are or nearly, in other rows of it; and remarks.

    Colour baselines, probes and whatever else learns from those rows has seen them. Of near-duplicates no
    more than chance brings nothing is said.

    Args:
        train: the rows that are learnt from.
        test: those that are measured on.
        what: the former are called.
    """
    seen = from_hashes(train.encoded.sha256, map(int, train.encoded.perceptual[:, 0]))
    test_sha256 = test.encoded.sha256
    leak = find_leak(seen, test_sha256, test.encoded.perceptual, telling_hashes(test.encoded))
    if not beyond_chance(leak, len(test_sha256), len(seen)):
        return leak, []
    found = [f"{leak.exact} as they are"] if leak.exact else []
    found += [f"{leak.near} nearly"] if leak.near else []
    return leak, [
        f"LEAK: of the {len(test_sha256)} test pictures {' and '.join(found)} stand in the task's own "
        f"{what}; what learns from those rows has seen them."
    ]


def apart(split: Split, others: Sequence[Split]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows of a split must not be used beside others: bool [n] each.

    Returns:
        Those whose very bytes are in one of the others; those of which only the group is, where known.
    """
    known = {digest for other in others for digest in other.encoded.sha256}
    groups = {group for other in others for group in other.images.groups if group}
    same = np.array([digest in known for digest in split.encoded.sha256], bool)
    of_group = np.array([group in groups for group in split.images.groups], bool) & ~same
    return same, of_group


def learnt_leaks(train: Split, test: Split) -> bool:
    """Whether near-duplicates of test pictures are, beyond chance, in the rows that a measure learns from.

    Those are the training rows without the test pictures themselves and without their groups.
    """
    kept = np.flatnonzero(~np.logical_or(*apart(train, [test])))
    sha256 = [train.encoded.sha256[number] for number in kept]
    seen = from_hashes(sha256, map(int, train.encoded.perceptual[kept, 0]))
    leak = find_leak(seen, test.encoded.sha256, test.encoded.perceptual, telling_hashes(test.encoded))
    return near_beyond_chance(leak, len(leak.mask), len(seen))


def _among(values: NDArray[np.bytes_], known: NDArray[np.bytes_]) -> NDArray[np.bool_]:
    """Which values are among the sorted ones."""
    place = np.minimum(np.searchsorted(known, values), max(0, len(known) - 1))
    return known[place] == values if len(known) else np.zeros(len(values), np.bool_)


def _names(rows: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """Rows of 32 bytes as one value each."""
    return np.ascontiguousarray(rows).view("S32").ravel() if len(rows) else np.empty(0, "S32")
