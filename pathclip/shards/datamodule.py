"""Shards as Lightning sees them: a training stream that can be resumed, and validation in order."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import lightning
import torch

from pathclip.errors import ConfigError
from pathclip.runtime.preprocess import Preprocess
from pathclip.runtime.tokenizer import Tokenizer
from pathclip.shards import storage
from pathclip.shards.captions import Captions
from pathclip.shards.collate import Batch, Collate
from pathclip.shards.groups import Groups
from pathclip.shards.order import Reference, find_sources, folder_factors
from pathclip.shards.reader import data_hash, shard_sizes
from pathclip.shards.samples import SampleReader
from pathclip.shards.stream import Position, ShardStream, StreamLoader
from pathclip.shards.transforms import Augment
from pathclip.shards.unlabelled import UnlabelledPictures


class PairsDataModule(lightning.LightningDataModule):
    """Training and validation pairs of folders of shards.

    Args:
        train: folder of shards, several, or a mapping of folder → factor: an epoch shows round(factor ×
            pairs) of it. A folder is a path or an address in an object store, such as s3://bucket/train.
        val: folder of shards; no validation if None.
        batch_size: the global batch, over all processes.
        workers: loader processes per rank; 0 loads in the training process.
        shuffle_buffer: window of samples within which the order is shuffled.
        groups: which pairs of the window share a global batch: 'any'; 'together', those of one group, so
            that a multi-positive loss meets its positives; 'apart', none of one group, so that plain
            softmax meets no false negative.
        augment: what happens to training pictures; None for the evaluation transform.
        captions: how the texts of training pairs are put; None leaves them as they are.
        unlabelled: folder of pictures without texts, or several, that a student is shown beside the pairs;
            a folder of shards has its texts ignored.
        unlabelled_per_pair: how many of them a batch holds for each of its pairs.
        seed: of order and augmentation.
        limit: use only the first so many training samples; of the validation samples as many.
        val_limit: use at most so many validation pairs, taken evenly from all; None uses all.
        resume: where a run goes on: 'step' with its next batch, 'epoch' at the beginning of its epoch.
        preprocess: of the model.
        tokenizer: of the model.
        teacher_tokenizer: of a teacher to distil from.
        teacher_size: (height, width) of its pictures.

    Raises:
        ConfigError: factors that are none, a val_limit below 1, or an unlabelled_per_pair that gives a batch
            fewer than two pictures.
        DataError: a folder holds no shards, or one of `unlabelled` no pictures.
    """

    def __init__(
        self,
        train: str | Sequence[str] | Mapping[str, float],
        preprocess: Preprocess,
        tokenizer: Tokenizer,
        val: str | None = None,
        batch_size: int = 64,
        workers: int = 2,
        shuffle_buffer: int = 2000,
        groups: Groups = "any",
        augment: Augment | None = None,
        captions: Captions | None = None,
        unlabelled: str | Sequence[str] | None = None,
        unlabelled_per_pair: float = 1.0,
        seed: int = 0,
        limit: int | None = None,
        val_limit: int | None = 10_000,
        resume: Literal["step", "epoch"] = "step",
        teacher_tokenizer: Tokenizer | None = None,
        teacher_size: tuple[int, int] | None = None,
    ):
        super().__init__()
        if val_limit is not None and val_limit < 1:
            raise ConfigError(f"data.val_limit is {val_limit}; it must be at least 1, or null for all pairs")
        self.train_folders = folder_factors(train)
        self.val_folder = val
        self.batch_size, self.workers, self.shuffle_buffer = batch_size, workers, shuffle_buffer
        self.groups, self.seed, self.limit, self.val_limit = groups, seed, limit, val_limit
        self.resume = resume
        self.position = Position()
        self.repeated = 0  # batches that were trained on a second time, after `resume=epoch`
        self._train_collate = Collate(
            preprocess, tokenizer, augment, captions, teacher_tokenizer, teacher_size
        )
        self._val_collate = Collate(preprocess, tokenizer, None, None, teacher_tokenizer)
        for folder in [*self.train_folders, *([val] if val else [])]:
            shard_sizes(folder)  # a wrong folder fails now, not after the model is built
        self.unlabelled = None
        if unlabelled is not None:
            per_batch = _per_batch(batch_size, unlabelled_per_pair)
            self.unlabelled = UnlabelledPictures(unlabelled, per_batch, seed)
        self._hashes: dict[str, str | None] = {}

    def train_dataloader(self) -> StreamLoader:
        """The resumable stream of this rank."""
        rank = self.trainer.global_rank if self.trainer else 0
        pinned = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return StreamLoader(self.stream(rank, self._world()), lambda: self.position, self.workers, pinned)

    def stream(self, rank: int = 0, world: int = 1) -> ShardStream:
        """The training stream of one rank.

        Raises:
            ConfigError: the global batch does not divide by the number of processes.
        """
        if self.batch_size % world:
            raise ConfigError(f"data.batch_size={self.batch_size} must divide by the {world} processes")
        if self.unlabelled and (self.unlabelled.per_batch % world or self.unlabelled.per_batch < 2 * world):
            raise ConfigError(
                f"data.unlabelled_per_pair: {self.unlabelled.per_batch} pictures beside a batch must divide "
                f"by the {world} processes, at least two for each"
            )
        return ShardStream(
            self.train_folders,
            self.batch_size // world,
            self._train_collate,
            self.seed,
            self.shuffle_buffer,
            rank,
            world,
            self.limit,
            self.groups,
            self.unlabelled,
        )

    def val_dataloader(self) -> Any:
        """Validation batches in the order of the shards, read when their turn comes; every rank sees all."""
        if self.val_folder is None:
            return []
        listed = ValidationPairs(
            self.val_folder, self.batch_size, self._val_collate, self.limit, self.val_limit
        )
        if listed.left_out and not (self.trainer and self.trainer.global_rank):
            print(
                f"validation uses {len(listed.references)} of {len(listed.references) + listed.left_out} "
                "pairs, taken evenly from all; data.val_limit=null uses all",
                file=sys.stderr,
            )
        return torch.utils.data.DataLoader(listed, batch_size=None)

    def describe(self) -> dict[str, Any]:
        """For the model card and the record of a run.

        Returns:
            shards: the folders of training pairs.
            factors: how often an epoch shows each of them.
            pairs: how many different ones are used.
            pairs_per_epoch: how many an epoch holds, repeated ones counted.
            data_hash: of each folder, from the manifest beside the shards; None where shards made elsewhere
                have none.
            val, val_hash: the same of the validation pairs; None without.
            unlabelled: folders, hashes and number of the pictures without texts, and how many stand beside a
                batch; only where there are any.
        """
        sources = find_sources(self.train_folders, self.limit)
        return {
            **({"unlabelled": self._described_unlabelled()} if self.unlabelled else {}),
            "shards": [source.folder for source in sources],
            "factors": [source.factor for source in sources],
            "pairs": sum(source.samples for source in sources),
            "pairs_per_epoch": sum(source.samples_per_epoch for source in sources),
            "data_hash": self._train_hashes(),
            "val": storage.folder_name(self.val_folder) if self.val_folder else None,
            "val_hash": self._hash(self.val_folder) if self.val_folder else None,
        }

    def state_dict(self) -> dict[str, Any]:
        """The next batch to train on, and what its meaning depends on; part of every checkpoint."""
        return {
            "epoch": self.position.epoch,
            "batch": self.position.batch,
            "world": self._world(),
            "repeated": self.repeated,
            "order": self._order(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues where the checkpoint was, or at the beginning of its epoch with resume='epoch'.

        Raises:
            ConfigError: the checkpoint was made with something else that decides the order of the stream,
                or with another number of processes.
        """
        if "world" not in state_dict:
            raise ConfigError("the checkpoint is of an earlier version, with another order; begin a new run")
        began = state_dict["order"]
        for key, now in self._order().items():
            if began.get(key) != now:
                raise ConfigError(
                    f"{key}={now}, but the run began with {began.get(key)}; a run goes on with what it began "
                    "with, or its stream would repeat some pairs and leave out others"
                )
        before, now = int(state_dict["world"]), self._world()
        if before != now and self.resume != "epoch":
            # The pairs and their augmentation would be the same, but not dropout, which each process draws.
            raise ConfigError(
                f"the run began on {before} process{'es' if before > 1 else ''}, now there "
                f"{'are' if now > 1 else 'is'} {now}: go on with {before}, or begin the epoch again with "
                "resume=epoch"
            )
        position = Position(int(state_dict["epoch"]), int(state_dict["batch"]))
        self.repeated = int(state_dict.get("repeated", 0))
        if self.resume == "epoch":
            beginning = self._beginning(position)
            self.repeated += position.batch if beginning.epoch == position.epoch else 0
            position = beginning
        self.position = position

    def _beginning(self, position: Position) -> Position:
        """Of the epoch that is not finished: after the last batch of one, that is the next."""
        finished = position.batch >= self.stream().steps
        return Position(position.epoch + finished, 0)

    def _world(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    def _order(self) -> dict[str, Any]:
        """What decides which pairs stand in which batch, by its key in the config."""
        return {
            "data.batch_size": self.batch_size,
            "data.shuffle_buffer": self.shuffle_buffer,
            "data.groups": self.groups,
            "seed": self.seed,
            "limit": self.limit,
            "the hash of data.train": self._train_hashes(),
            "the factors of data.train": list(self.train_folders.values()),
            **self._order_of_unlabelled(),
        }

    def _order_of_unlabelled(self) -> dict[str, Any]:
        found = self.unlabelled
        return {
            "the hash of data.unlabelled": [one.hash for one in found.folders] if found else None,
            "pictures of data.unlabelled beside a batch": found.per_batch if found else None,
        }

    def _described_unlabelled(self) -> dict[str, Any]:
        assert self.unlabelled is not None
        return {
            "folders": [one.folder for one in self.unlabelled.folders],
            "data_hash": [one.hash for one in self.unlabelled.folders],
            "pictures": len(self.unlabelled),
            "per_batch": self.unlabelled.per_batch,
        }

    def _train_hashes(self) -> list[str | None]:
        return [self._hash(folder) for folder in self.train_folders]

    def _hash(self, folder: str) -> str | None:
        # Once: it goes into every checkpoint, and a manifest may lie in an object store.
        if folder not in self._hashes:
            self._hashes[folder] = data_hash(folder)
        return self._hashes[folder]


class ValidationPairs(torch.utils.data.Dataset):
    """Batches of validation pairs in the order of their shards.

    Args:
        folder: of shards.
        batch_size: of all but the last.
        collate: makes a batch.
        first: use only the first so many pairs.
        most: of these, use at most so many, taken evenly: shards often lie in the order of time or class.
    """

    def __init__(self, folder: str, batch_size: int, collate: Collate, first: int | None, most: int | None):
        (source,) = find_sources(folder, first)
        chosen = range(source.samples) if most is None else _evenly(source.samples, most)
        everything = [Reference(shard, n) for shard, size in source.sizes.items() for n in range(size)]
        self.references = [everything[n] for n in chosen]
        self.left_out = source.samples - len(self.references)
        self.batch_size, self.collate = batch_size, collate
        self._reader = SampleReader(source.sizes)

    def __len__(self) -> int:
        return -(-len(self.references) // self.batch_size)

    def __getitem__(self, index: int) -> Batch:
        """One batch, which is read now.

        Raises:
            DataError: a shard or a sample cannot be read.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        chosen = self.references[index * self.batch_size : (index + 1) * self.batch_size]
        return self.collate(self._reader.read(chosen), Position(0, index), 0)


def _per_batch(batch_size: int, per_pair: float) -> int:
    """Pictures without texts beside a batch of pairs."""
    number = round(batch_size * per_pair) if math.isfinite(per_pair) else 0
    if number < 2:
        raise ConfigError(
            f"data.unlabelled_per_pair={per_pair}: a batch of {batch_size} pairs would have {max(number, 0)} "
            "pictures beside it; two are the least, and data.unlabelled=null takes none"
        )
    return number


def _evenly(total: int, most: int) -> Sequence[int]:
    count = min(total, most)
    return [n * total // count for n in range(count)]
