"""Which samples an epoch holds and in which order: decided by sizes, factors, seed and epoch alone.

Nothing is read here; a sample is a `Reference` until its turn comes.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pathclip.errors import ConfigError
from pathclip.shards import storage
from pathclip.shards.reader import shard_sizes

# A folder of shards, several, or each with how often an epoch shall show it.
Folders = str | Path | Sequence[str | Path] | Mapping[str, float]


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed from several parts; unlike a sum, no two combinations meet."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


class Reference(NamedTuple):
    """One sample: its shard, and how many samples lie before it there."""

    shard: str
    number: int


@dataclass(frozen=True, slots=True)
class Source:
    """A folder of shards and how often an epoch shows its samples.

    Attributes:
        folder: where the shards lie.
        sizes: shard, with its folder → samples of it that are used.
        factor: an epoch holds round(factor × samples) of them.
    """

    folder: str
    sizes: Mapping[str, int]
    factor: float = 1.0

    @property
    def samples(self) -> int:
        """Different samples."""
        return sum(self.sizes.values())

    @property
    def samples_per_epoch(self) -> int:
        """Samples that an epoch shows, repeated ones counted."""
        return round(self.factor * self.samples)

    def references(self, seed: int) -> Iterator[Reference]:
        """As many as an epoch shows, pass by pass, every pass with its shards in another order.

        A pass that is not complete begins anywhere, so that no epoch shows only what lies at the front.
        """
        left = self.samples_per_epoch
        number = 0
        while left > 0:
            rng = random.Random(derived_seed(seed, number))
            order = list(self.sizes)
            rng.shuffle(order)
            whole = [(shard, range(self.sizes[shard])) for shard in order]
            parts = whole if left >= self.samples else _rotated(whole, rng.randrange(self.samples))
            for shard, numbers in parts:
                taken = numbers[:left]
                left -= len(taken)
                yield from (Reference(shard, place) for place in taken)
            number += 1


def find_sources(folders: Folders, limit: int | None = None) -> list[Source]:
    """The sources of a training stream.

    Args:
        folders: paths or addresses; a mapping gives their factors, otherwise each is 1.
        limit: use only the first so many samples, in the order of the folders and their shards.

    Raises:
        ConfigError: no folder, one named twice, a factor that is no number above 0 or shows nothing.
        DataError: a folder holds no shards.
    """
    factors = folder_factors(folders)
    if not factors:
        raise ConfigError("data.train names no folder of shards")
    left = math.inf if limit is None else limit
    sources = []
    for folder, factor in factors.items():
        used = {}
        for name, size in shard_sizes(folder).items():
            if left > 0:
                used[storage.join(folder, name)] = int(min(size, left))
                left -= size
        source = Source(folder, used, factor)
        if source.samples and not source.samples_per_epoch:
            raise ConfigError(f"data.train: {factor:g} × {source.samples} samples of {folder} are none")
        sources.append(source)
    return sources


def folder_factors(folders: Folders) -> dict[str, float]:
    """Folder → factor, in the order given.

    Raises:
        ConfigError: a folder named twice, or a factor that is no number above 0.
    """
    if isinstance(folders, Mapping):
        for folder, factor in folders.items():
            if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < math.inf:
                hint = ""
                if isinstance(factor, str):  # Hydra ends the name of the folder at its first colon
                    hint = r" (on the command line, write an address as s3\://bucket/folder)"
                raise ConfigError(
                    f"data.train: the factor of {folder} is {factor!r}, not a number above 0{hint}"
                )
        factors = [(storage.folder_name(folder), float(factor)) for folder, factor in folders.items()]
    else:
        listed = [folders] if isinstance(folders, str | Path) else folders
        factors = [(storage.folder_name(folder), 1.0) for folder in listed]
    names = [name for name, _ in factors]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"data.train names {twice} twice; data.train={{{twice}: 2}} shows its pairs twice an epoch"
        )
    return dict(factors)


def mixed(sources: Sequence[Source], seed: int) -> Iterator[Reference]:
    """The samples of an epoch; the next source is drawn in proportion to what is left of each.

    So every order in which the sources can follow each other is equally likely, and the counts are exact.
    """
    rng = random.Random(derived_seed(seed, "sources"))
    left = [source.samples_per_epoch for source in sources]
    streams = [source.references(derived_seed(seed, "shards", n)) for n, source in enumerate(sources)]
    for remaining in range(sum(left), 0, -1):
        place = rng.randrange(remaining)
        chosen = 0
        while place >= left[chosen]:
            place -= left[chosen]
            chosen += 1
        left[chosen] -= 1
        yield next(streams[chosen])


def shuffled(references: Iterable[Reference], size: int, seed: int) -> Iterator[Reference]:
    """Holds `size` references and gives out a random one for each that comes in."""
    rng = random.Random(seed)
    held: list[Reference] = []
    for reference in references:
        if len(held) < size:
            held.append(reference)
            continue
        if held:
            place = rng.randrange(len(held))
            reference, held[place] = held[place], reference
        yield reference
    rng.shuffle(held)
    yield from held


def _rotated(parts: list[tuple[str, range]], start: int) -> list[tuple[str, range]]:
    """The same samples, beginning with the one at `start` and ending with the one before it."""
    for place, (shard, numbers) in enumerate(parts):
        if start < len(numbers):
            first, rest = (shard, numbers[start:]), (shard, numbers[:start])
            return [first, *parts[place + 1 :], *parts[:place], rest]
        start -= len(numbers)
    raise ValueError("the start lies behind the last sample")
