"""The training stream: shards in, whole batches out, in an order that seed and epoch alone decide.

Every consumer (rank × worker) walks the same order and keeps what is its own. So the number of workers
never changes a batch, a killed run continues with the batch that it would have seen next, more
consumers than shards is no problem, and two ranks see the two halves of what one rank would see.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from pathclip.errors import ConfigError, DataError, PathclipError
from pathclip.shards.reader import shard_sizes

Raw = dict[str, Any]


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed from several parts; unlike a sum, no two combinations meet."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


@dataclass(frozen=True, slots=True)
class Position:
    """Where in the stream a run is: the next batch is `batch` of `epoch`."""

    epoch: int = 0
    batch: int = 0


class ShardStream(IterableDataset):
    """Batches of one rank for one epoch.

    Args:
        folders: each with shards and `sizes.json`.
        batch_size: of this rank.
        collate: makes a batch of `batch_size` raw samples; it gets (samples, position, generator seed).
        seed: of order and augmentation.
        shuffle_buffer: samples held for shuffling; 0 keeps the order of the (permuted) shards.
        rank: of this process.
        world: number of processes.
        limit: use only the first so many samples, in the order of the folders and their shards; every
            epoch shows the same ones.

    Raises:
        ConfigError: a batch of one, or a limit below 1.
        DataError: no shards, or fewer samples than one global batch.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        batch_size: int,
        collate: Callable[[list[Raw], Position, int], Any],
        seed: int = 0,
        shuffle_buffer: int = 2000,
        rank: int = 0,
        world: int = 1,
        limit: int | None = None,
    ):
        super().__init__()
        if batch_size < 2:
            raise ConfigError(f"data.batch_size is {batch_size}; a contrastive batch needs at least 2 pairs")
        if limit is not None and limit < 1:
            raise ConfigError(f"limit is {limit}; it must be at least 1, or null for all pairs")
        sizes = {
            str(Path(folder) / name): size for folder in folders for name, size in shard_sizes(folder).items()
        }
        self.sizes: Mapping[str, int] = _first(sizes, limit)
        self.batch_size, self.collate = batch_size, collate
        self.seed, self.shuffle_buffer = seed, shuffle_buffer
        self.rank, self.world = rank, world
        # In shared memory: worker processes outlive an epoch and must learn where the next one begins.
        self._place = torch.zeros(2, dtype=torch.int64).share_memory_()
        where = ", ".join(map(str, folders))
        if not self.samples:
            raise DataError(f"{where}: no pairs in it")
        if self.steps < 1:
            processes = f" on each of {world} processes" if world > 1 else ""
            raise DataError(
                f"{where}: {self.samples} samples are fewer than one batch of {batch_size}{processes}; "
                "lower data.batch_size"
            )

    @property
    def position(self) -> Position:
        """Where the next pass begins; set before it."""
        epoch, batch = self._place.tolist()
        return Position(epoch, batch)

    @position.setter
    def position(self, position: Position) -> None:
        self._place.copy_(torch.tensor([position.epoch, position.batch]))

    @property
    def samples(self) -> int:
        """Samples in an epoch before the last incomplete batch is left out."""
        return sum(self.sizes.values())

    @property
    def steps(self) -> int:
        """Batches in an epoch, the same on every rank; the incomplete one at the end is left out."""
        return self.samples // (self.batch_size * self.world)

    def __iter__(self) -> Iterator[Any]:
        """Batches from `position` on; a fault in the data comes out as a `Fault`, see there."""
        try:
            yield from self._own_batches()
        except PathclipError as error:
            yield Fault(type(error), str(error))

    def _own_batches(self) -> Iterator[Any]:
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        start = self.position
        own = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        for index, samples in enumerate(self._global_batches(start.epoch)):
            # The loader takes from its workers in turn, beginning with the first: so count from the start.
            if index < start.batch or (index - start.batch) % count != number:
                continue
            seed = derived_seed(self.seed, start.epoch, index, self.rank, "augment")
            yield self.collate(samples[own], Position(start.epoch, index), seed)

    def _global_batches(self, epoch: int) -> Iterator[list[Raw]]:
        import webdataset as wds

        pipeline = wds.DataPipeline(
            _ShardOrder(list(self.sizes), derived_seed(self.seed, epoch, "shards")),
            _open_shards,
            partial(wds.tariterators.tar_file_expander, handler=_name_the_shard),
            partial(wds.tariterators.group_by_keys, handler=_name_the_sample),
            _Take(self.sizes),
            _Shuffle(self.shuffle_buffer, derived_seed(self.seed, epoch, "samples")),
        )
        batch: list[Raw] = []
        size = self.batch_size * self.world
        steps = 0
        for sample in pipeline:
            batch.append(sample)
            if len(batch) == size:
                yield batch
                batch = []
                steps += 1
                if steps == self.steps:
                    return
        raise DataError(
            f"the shards hold fewer samples than sizes.json says ({steps} of {self.steps} batches); "
            "write them again or correct sizes.json"
        )


@dataclass
class _ShardOrder:
    urls: list[str]
    seed: int

    def __call__(self) -> Iterator[Raw]:
        order = list(self.urls)
        random.Random(self.seed).shuffle(order)
        for url in order:
            yield {"url": url}


def _open_shards(source: Iterable[Raw]) -> Iterator[Raw]:
    """Opens local files only: webdataset's own opener would run a shell for 'pipe:' addresses."""
    for sample in source:
        with Path(sample["url"]).open("rb") as stream:
            yield {**sample, "stream": stream}


@dataclass
class _Take:
    """Keeps as many samples of each shard as `sizes` says: a limit may cut the last one."""

    sizes: Mapping[str, int]

    def __call__(self, source: Iterable[Raw]) -> Iterator[Raw]:
        taken: dict[str, int] = {}
        for sample in source:
            url = sample["__url__"]
            taken[url] = taken.get(url, 0) + 1
            if taken[url] <= self.sizes[url]:
                yield sample


def _first(sizes: Mapping[str, int], limit: int | None) -> dict[str, int]:
    """Shards and samples of each that hold the first `limit` samples."""
    left = sum(sizes.values()) if limit is None else limit
    first = {}
    for url, size in sizes.items():
        if left > 0:
            first[url] = min(size, left)
            left -= size
    return first


@dataclass
class _Shuffle:
    """Holds `size` samples and gives out a random one for each that comes in."""

    size: int
    seed: int

    def __call__(self, source: Iterable[Raw]) -> Iterator[Raw]:
        rng = random.Random(self.seed)
        held: list[Raw] = []
        for sample in source:
            if len(held) < self.size:
                held.append(sample)
                continue
            if not held:
                yield sample
                continue
            place = rng.randrange(len(held))
            sample, held[place] = held[place], sample
            yield sample
        rng.shuffle(held)
        yield from held


def _name_the_shard(error: BaseException) -> bool:
    # webdataset has put the shard at the end of the arguments, and the stream behind the first.
    reason = str(error.args[0]).split(" @ <")[0]
    raise DataError(f"{error.args[-1]}: not a readable shard ({reason}); write the shards again") from error


def _name_the_sample(error: BaseException) -> bool:
    raise DataError(f"{error.args[-1]}: {error.args[0]}; write the shards again") from error


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in the data, passed on as a value.

    An exception in a worker process would reach the user as that process's traceback; a value keeps the
    one line that says what is wrong.
    """

    kind: type[PathclipError]
    message: str


class StreamLoader:
    """Each pass is one epoch; the first may begin in the middle.

    Args:
        stream: of this rank.
        position: tells the next batch to train on. It is asked at the beginning of each pass, and must
            follow the batches that were trained on, not those that workers fetched ahead.
        workers: loader processes; 0 loads in this one.
    """

    def __init__(self, stream: ShardStream, position: Callable[[], Position], workers: int = 0):
        self.stream = stream
        self.position = position
        # Workers are started once: one that is forked from a process in training shares its memory, and
        # keeps a copy of every page that the training then writes to.
        self._loader = torch.utils.data.DataLoader(
            stream,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=2 if workers else None,
            persistent_workers=workers > 0,
        )

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return self.stream.steps

    def __iter__(self) -> Iterator[Any]:
        """Batches of one epoch.

        Raises:
            PathclipError: a shard or a sample cannot be read.
        """
        position = self.position()
        if position.batch >= len(self):
            position = Position(position.epoch + 1, 0)
        self.stream.position = position
        for batch in self._loader:
            if isinstance(batch, Fault):
                raise batch.kind(batch.message)
            yield batch
