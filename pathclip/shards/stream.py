"""The training stream: shards in, whole batches out, in an order that seed and epoch alone decide.

Every consumer (rank × worker) walks the same order of references and reads what is its own. So the number of
workers never changes a batch, a killed run continues with the batch that it would have seen next, more
consumers than shards is no problem, and two ranks see the two halves of what one rank would see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from pathclip.errors import ConfigError, DataError, PathclipError
from pathclip.shards.groups import BATCHES, Groups
from pathclip.shards.order import Folders, Reference, derived_seed, find_sources, mixed
from pathclip.shards.samples import Raw, SampleReader
from pathclip.shards.unlabelled import UnlabelledPictures

__all__ = ["Fault", "Position", "Raw", "ShardStream", "StreamLoader", "derived_seed"]


@dataclass(frozen=True, slots=True)
class Position:
    """Where in the stream a run is: the next batch is `batch` of `epoch`."""

    epoch: int = 0
    batch: int = 0


class ShardStream(IterableDataset):
    """Batches of one rank for one epoch.

    Args:
        folders: each with shards and `sizes.json`: paths or addresses in object stores. A mapping gives
            each a factor; an epoch shows round(factor × samples) of it.
        batch_size: of this rank.
        collate: makes a batch of `batch_size` raw samples; it gets (samples, position, seed of the global
            batch, place of the first sample in the global batch, size of the global batch), and where there
            are pictures without texts, those of this process.
        seed: of order and augmentation.
        shuffle_buffer: window of samples within which the order is shuffled; 0 keeps the order of the
            (permuted) shards.
        rank: of this process.
        world: number of processes.
        limit: use only the first so many samples, in the order of the folders and their shards; every
            epoch shows the same ones.
        groups: which samples of the window share a global batch: 'any'; 'together', those of one group;
            'apart', none of one group.
        unlabelled: pictures without texts to stand beside the pairs.

    Raises:
        ConfigError: a batch of one, a limit below 1, a window below 0, or factors that are none.
        DataError: no shards, or fewer samples than one global batch.
    """

    def __init__(
        self,
        folders: Folders,
        batch_size: int,
        collate: Callable[..., Any],
        seed: int = 0,
        shuffle_buffer: int = 2000,
        rank: int = 0,
        world: int = 1,
        limit: int | None = None,
        groups: Groups = "any",
        unlabelled: UnlabelledPictures | None = None,
    ):
        super().__init__()
        if batch_size < 2:
            raise ConfigError(f"data.batch_size is {batch_size}; a contrastive batch needs at least 2 pairs")
        if limit is not None and limit < 1:
            raise ConfigError(f"limit is {limit}; it must be at least 1, or null for all pairs")
        if shuffle_buffer < 0:
            raise ConfigError(f"data.shuffle_buffer is {shuffle_buffer}; 0 is the least")
        self.sources = find_sources(folders, limit)
        self.batch_size, self.collate = batch_size, collate
        self.seed, self.shuffle_buffer, self.groups = seed, shuffle_buffer, groups
        self.rank, self.world, self.unlabelled = rank, world, unlabelled
        sizes = {shard: size for source in self.sources for shard, size in source.sizes.items()}
        self._reader = SampleReader(sizes, with_groups=groups != "any")
        # In shared memory: worker processes outlive an epoch and must learn where the next one begins.
        self._place = torch.zeros(2, dtype=torch.int64).share_memory_()
        where = ", ".join(source.folder for source in self.sources)
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
        """Samples in an epoch, repeated ones counted, before the last incomplete batch is left out."""
        return sum(source.samples_per_epoch for source in self.sources)

    @property
    def steps(self) -> int:
        """Batches in an epoch, the same on every rank; the incomplete one at the end is left out."""
        return self.samples // (self.batch_size * self.world)

    def global_batches(self, epoch: int) -> Iterator[list[Reference]]:
        """The batches over all ranks of an epoch, as references: rank r has the r-th part of each.

        Raises:
            DataError: a shard cannot be read, where groups must be known.
        """
        return BATCHES[self.groups](
            mixed(self.sources, derived_seed(self.seed, epoch, "order")),
            self.batch_size * self.world,
            self.shuffle_buffer,
            derived_seed(self.seed, epoch, "samples"),
            self._reader.group,
        )

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
        offset, total = self.rank * self.batch_size, self.world * self.batch_size
        for index, batch in enumerate(self.global_batches(start.epoch)):
            # The loader takes from its workers in turn, beginning with the first: so count from the start.
            if index < start.batch or (index - start.batch) % count != number:
                continue
            samples = self._reader.read(batch[offset : offset + self.batch_size])
            seed = derived_seed(self.seed, start.epoch, index, "augment")
            beside = []
            if self.unlabelled:
                beside = [self.unlabelled.read(start.epoch * self.steps + index, self.rank, self.world)]
            yield self.collate(samples, Position(start.epoch, index), seed, offset, total, *beside)


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
        pinned: batches lie in memory that a GPU reads by itself.
    """

    def __init__(
        self,
        stream: ShardStream,
        position: Callable[[], Position],
        workers: int = 0,
        pinned: bool = False,
    ):
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
            pin_memory=pinned,
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
