"""Pictures without texts beside the pairs: which of them stand in which batch is decided by number alone.

They are what a student is shown beside the pairs it learns from. Nothing is kept of where a run was but the
number of its next batch: from that and the seed follow the pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from pathclip.errors import ConfigError, DataError
from pathclip.runtime.images import find_images
from pathclip.shards import storage
from pathclip.shards.decode import Encoded
from pathclip.shards.order import Reference, derived_seed
from pathclip.shards.reader import MAX_MEMBER_BYTES, data_hash, shard_sizes
from pathclip.shards.samples import SampleReader, image_of
from pathclip.shards.writer import SIZES


@dataclass(frozen=True, slots=True)
class UnlabelledFolder:
    """A folder of pictures, or of shards whose texts are not looked at.

    Attributes:
        folder: path, or address in an object store.
        files: its picture files; empty for shards.
        sizes: shard, with its folder → samples; empty for pictures.
        hash: names the content: of shards by their manifest, else of names and sizes.
    """

    folder: str
    files: tuple[Path, ...]
    sizes: dict[str, int]
    hash: str

    def __len__(self) -> int:
        return len(self.files) + sum(self.sizes.values())


class UnlabelledPictures:
    """An endless row of pictures, pass by pass, every pass in another order; a batch is a part of it.

    Args:
        folders: each with pictures, in it or below, or with shards; the latter may lie in object stores.
        per_batch: pictures beside a global batch of pairs.
        seed: of the order.

    Raises:
        ConfigError: a folder named twice, or none.
        DataError: a folder that is missing or holds no pictures.
    """

    def __init__(self, folders: str | Sequence[str], per_batch: int, seed: int = 0):
        self.folders = find_unlabelled(folders)
        self.per_batch, self.seed = per_batch, seed
        # Cheap for files, which are known already; of shards every sample is a name and a number.
        self._places: list[Path | Reference] = []
        for one in self.folders:
            self._places += one.files
            self._places += (Reference(s, n) for s, size in one.sizes.items() for n in range(size))
        self._reader = SampleReader({s: size for one in self.folders for s, size in one.sizes.items()})
        self._pass: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        """Different pictures."""
        return len(self._places)

    def read(self, batch: int, rank: int = 0, world: int = 1) -> list[Encoded]:
        """The pictures of one process beside a global batch.

        Args:
            batch: number of the global batch since the run began, over all epochs.
            rank: of the process.
            world: number of processes; `per_batch` divides by it.

        Raises:
            DataError: a picture or a shard cannot be read.
        """
        own = self.per_batch // world
        chosen = list(islice(self._from(batch * self.per_batch + rank * own), own))
        references = [place for place in chosen if isinstance(place, Reference)]
        samples = iter(self._reader.read(references))
        return [
            _file(place) if isinstance(place, Path) else _sample(next(samples), place) for place in chosen
        ]

    def _from(self, number: int) -> Iterator[Path | Reference]:
        while True:
            passed, place = divmod(number, len(self))
            yield self._places[self._order(passed)[place]]
            number += 1

    def _order(self, number: int) -> list[int]:
        if self._pass[0] != number:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, "unlabelled", number))
            self._pass = number, torch.randperm(len(self), generator=generator).tolist()
        return self._pass[1]


def find_unlabelled(folders: str | Sequence[str]) -> list[UnlabelledFolder]:
    """The folders of `data.unlabelled` with what is in them; raises as `UnlabelledPictures`."""
    named = [storage.folder_name(folder) for folder in ([folders] if isinstance(folders, str) else folders)]
    if not named:
        raise ConfigError("data.unlabelled names no folder; null is for pairs alone")
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"data.unlabelled names {twice} twice")
    return [_of_shards(name) if _holds_shards(name) else _of_files(name) for name in named]


def _holds_shards(folder: str) -> bool:
    return storage.is_address(folder) or (Path(folder) / SIZES).is_file()


def _of_shards(folder: str) -> UnlabelledFolder:
    sizes = {storage.join(folder, name): size for name, size in shard_sizes(folder).items()}
    if not sum(sizes.values()):
        raise DataError(f"data.unlabelled: {folder} holds no pictures")
    named = data_hash(folder) or _digest(f"{Path(shard).name}\0{size}" for shard, size in sizes.items())
    return UnlabelledFolder(folder, (), sizes, named)


def _of_files(folder: str) -> UnlabelledFolder:
    path = Path(folder)
    if not path.is_dir():
        raise DataError(f"data.unlabelled: {folder}: no such folder of pictures or of shards")
    files = find_images(path)
    if not files:
        hint = next((str(file.parent) for file in sorted(path.glob(f"*/{SIZES}"))), None)
        raise DataError(
            f"data.unlabelled: {folder} holds no pictures"
            + (f"; the shards lie in its folders, such as {hint}" if hint else "")
        )
    named = _digest(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}" for file in files)
    return UnlabelledFolder(folder, tuple(files), {}, named)


def _digest(lines: Iterator[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def _file(path: Path) -> Encoded:
    try:
        if path.stat().st_size > MAX_MEMBER_BYTES:
            raise DataError(f"{path}: larger than 256 MiB")
        return Encoded(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _sample(sample: dict[str, object], place: Reference) -> Encoded:
    return Encoded(image_of(sample), f"{place.shard}: {sample['__key__']}")
