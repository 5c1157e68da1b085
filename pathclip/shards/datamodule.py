"""Shards as Lightning sees them: a training stream that can be resumed, and validation in order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from pathclip.errors import ConfigError, DataError
from pathclip.runtime.preprocess import Preprocess
from pathclip.runtime.tokenizer import Tokenizer
from pathclip.shards.reader import IMAGE_SUFFIXES, read_manifest, read_samples, shard_sizes
from pathclip.shards.stream import Position, Raw, ShardStream, StreamLoader
from pathclip.shards.transforms import Augment, decode, normalise
from pathclip.shards.writer import MANIFEST


@dataclass(slots=True)
class Batch:
    """What one training step gets.

    Attributes:
        pixels: normalised, float32 [n, 3, h, w].
        tokens: int64 [n, context_length].
        group: int64 [n]; equal numbers are pairs that belong together.
        caption: int64 [n]; equal numbers are equal texts.
        position: of this batch in the stream.
    """

    pixels: Tensor
    tokens: Tensor
    group: Tensor
    caption: Tensor
    position: Position

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device | str, **kwargs: Any) -> Batch:
        """The batch on another device; Lightning calls this."""
        pixels, tokens, group, caption = (
            tensor.to(device, **kwargs) for tensor in (self.pixels, self.tokens, self.group, self.caption)
        )
        return Batch(pixels, tokens, group, caption, self.position)


@dataclass
class Collate:
    """Makes a `Batch` from raw samples: decodes, augments (or not), tokenises."""

    preprocess: Preprocess
    tokenizer: Tokenizer
    augment: Augment | None

    def __call__(self, samples: Sequence[Raw], position: Position, seed: int) -> Batch:
        """Every random draw comes from `seed`, so that the batch does not depend on who makes it."""
        height, _ = self.preprocess.size
        if self.augment:
            generator = torch.Generator().manual_seed(seed)
            images = [decode(_image(s), s["__key__"], 2 * height) for s in samples]
            pixels = normalise(
                self.augment(images, height, generator), list(self.preprocess.mean), list(self.preprocess.std)
            )
        else:
            pixels = torch.from_numpy(
                self.preprocess.batch([decode(_image(s), s["__key__"]) for s in samples])
            )
        texts = [_text(s) for s in samples]
        groups = [_group(s) for s in samples]
        return Batch(
            pixels,
            torch.from_numpy(self.tokenizer(texts)),
            torch.tensor([_number(group) for group in groups]),
            torch.tensor([_number(text) for text in texts]),
            position,
        )


def _image(sample: Raw) -> bytes:
    for suffix in IMAGE_SUFFIXES:
        if suffix in sample:
            return sample[suffix]
    raise _bad(sample, "no image in it")


def _text(sample: Raw) -> str:
    try:
        return sample["txt"].decode("utf-8")
    except KeyError:
        raise _bad(sample, "no .txt in it") from None
    except UnicodeDecodeError:
        raise _bad(sample, "its text is not UTF-8") from None


def _group(sample: Raw) -> str:
    """The group of a sample; one without metadata, of shards made elsewhere, is a group of its own."""
    try:
        return str(json.loads(sample.get("json", b"{}")).get("group") or sample["__key__"])
    except (ValueError, AttributeError):
        raise _bad(sample, "its .json is no JSON object") from None


def _bad(sample: Raw, what: str) -> DataError:
    return DataError(f"{sample.get('__url__', 'shards')}: sample '{sample['__key__']}': {what}")


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


class PairsDataModule(lightning.LightningDataModule):
    """Training and validation pairs of folders of shards.

    Args:
        train: folder of shards, or several.
        val: folder of shards; no validation if None.
        batch_size: the global batch, over all processes.
        workers: loader processes per rank; 0 loads in the training process.
        shuffle_buffer: samples held for shuffling.
        augment: what happens to training pictures; None for the evaluation transform.
        seed: of order and augmentation.
        limit: use only the first so many training samples; of the validation samples as many.
        preprocess: of the model.
        tokenizer: of the model.
    """

    def __init__(
        self,
        train: str | Sequence[str],
        preprocess: Preprocess,
        tokenizer: Tokenizer,
        val: str | None = None,
        batch_size: int = 64,
        workers: int = 2,
        shuffle_buffer: int = 2000,
        augment: Augment | None = None,
        seed: int = 0,
        limit: int | None = None,
    ):
        super().__init__()
        self.train_folders = [train] if isinstance(train, str) else list(train)
        self.val_folder = val
        self.batch_size, self.workers, self.shuffle_buffer = batch_size, workers, shuffle_buffer
        self.seed, self.limit = seed, limit
        self.position = Position()
        self._train_collate = Collate(preprocess, tokenizer, augment)
        self._val_collate = Collate(preprocess, tokenizer, None)
        for folder in [*self.train_folders, *([val] if val else [])]:
            shard_sizes(folder)  # a wrong folder fails now, not after the model is built

    def train_dataloader(self) -> StreamLoader:
        """The resumable stream of this rank."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return StreamLoader(self.stream(rank, world), lambda: self.position, self.workers)

    def stream(self, rank: int = 0, world: int = 1) -> ShardStream:
        """The training stream of one rank.

        Raises:
            ConfigError: the global batch does not divide by the number of processes.
        """
        if self.batch_size % world:
            raise ConfigError(f"data.batch_size={self.batch_size} must divide by the {world} processes")
        return ShardStream(
            self.train_folders,
            self.batch_size // world,
            self._train_collate,
            self.seed,
            self.shuffle_buffer,
            rank,
            world,
            self.limit,
        )

    def val_dataloader(self) -> Any:
        """Validation batches in the order of the shards; every rank sees all of them."""
        if self.val_folder is None:
            return []
        samples = [
            {"__key__": s.key, "jpg": s.image, "txt": s.text.encode(), "json": json.dumps(dict(s.meta))}
            for s in read_samples(self.val_folder, self.limit)
        ]
        return torch.utils.data.DataLoader(
            _Listed(samples, self.batch_size, self._val_collate), batch_size=None
        )

    def describe(self) -> dict[str, Any]:
        """For the model card: the folders of training pairs, how many are used, and the hash of each folder.

        The hash is that of the manifest beside the shards; None where shards made elsewhere have none.
        """
        return {
            "shards": [str(Path(folder)) for folder in self.train_folders],
            "pairs": self.stream().samples,
            "data_hash": [_data_hash(folder) for folder in self.train_folders],
        }

    def state_dict(self) -> dict[str, Any]:
        """The next batch to train on, and what its meaning depends on; part of every checkpoint."""
        return {"epoch": self.position.epoch, "batch": self.position.batch, "order": self._order()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues where the checkpoint was.

        Raises:
            ConfigError: the checkpoint was made with something else that decides the order of the stream.
        """
        began = state_dict["order"]
        for key, now in self._order().items():
            if began[key] != now:
                raise ConfigError(
                    f"{key}={now}, but the run began with {began[key]}; a run goes on with what it began "
                    "with, or its stream would repeat some pairs and leave out others"
                )
        self.position = Position(int(state_dict["epoch"]), int(state_dict["batch"]))

    def _order(self) -> dict[str, Any]:
        """What decides which pairs stand in which batch, by its key in the config."""
        return {
            "data.batch_size": self.batch_size,
            "data.shuffle_buffer": self.shuffle_buffer,
            "seed": self.seed,
            "limit": self.limit,
            "the hash of data.train": [_data_hash(folder) for folder in self.train_folders],
        }


def _data_hash(folder: str) -> str | None:
    return read_manifest(folder).hash if (Path(folder) / MANIFEST).is_file() else None


class _Listed(torch.utils.data.Dataset):
    """Batches of a list of samples that fits in memory."""

    def __init__(self, samples: list[Raw], batch_size: int, collate: Collate):
        self.samples, self.batch_size, self.collate = samples, batch_size, collate

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < len(self):
            raise IndexError(index)
        chunk = self.samples[index * self.batch_size : (index + 1) * self.batch_size]
        return self.collate(chunk, Position(0, index), 0)
