"""Which pictures a model was trained on, as hashes: what tells later that a test picture was among them.

They lie in the model folder as `training_pictures.safetensors`, 40 bytes for each: the SHA-256 of its bytes
and its 64-bit perceptual hash. The picture itself cannot be made from them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tarfile import TarError
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pathclip.curate.images import DRAFT_TO, perceptual_hashes
from pathclip.errors import DataError, ModelFolderError
from pathclip.model_folder import TRAINING_PICTURES, ModelFolder
from pathclip.progress import track
from pathclip.runtime.cores import available_cores
from pathclip.runtime.images import open_image
from pathclip.shards import storage
from pathclip.shards.reader import IMAGE_SUFFIXES, MAX_MEMBER_BYTES
from pathclip.shards.tar import Member, members
from pathclip.shards.unlabelled import UnlabelledFolder

MOST_DECODED = 50_000  # about four minutes of one core; curated shards have the hashes of all theirs
MAX_PICTURES = 1 << 26


@dataclass(frozen=True, slots=True)
class TrainingPictures:
    """Hashes of n different pictures, in the order of their SHA-256.

    Attributes:
        sha256: of the bytes of each, uint8 [n, 32].
        perceptual: perceptual hash of each as it lies, uint64 [n]; 0 where it is not known.
    """

    sha256: NDArray[np.uint8]
    perceptual: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.sha256)

    @property
    def perceptual_known(self) -> int:
        """How many have a perceptual hash."""
        return int(np.count_nonzero(self.perceptual))

    def to_bytes(self) -> bytes:
        """Content of `training_pictures.safetensors`."""
        from safetensors.numpy import save

        return save({"sha256": self.sha256, "phash": self.perceptual.view(np.int64)})

    def joined(self, other: TrainingPictures) -> TrainingPictures:
        """The pictures of both."""
        return _distinct(
            np.concatenate([self.sha256, other.sha256]), np.concatenate([self.perceptual, other.perceptual])
        )


def no_pictures() -> TrainingPictures:
    """Of a model that was not trained."""
    return TrainingPictures(np.empty((0, 32), np.uint8), np.empty(0, np.uint64))


def from_hashes(sha256: Iterable[str], perceptual: Iterable[int] | None = None) -> TrainingPictures:
    """Of SHA-256 in hex, and of perceptual hashes in the same order where they are known.

    >>> len(from_hashes(["00" * 32, "ff" * 32, "00" * 32]))
    2
    """
    digests = np.frombuffer(b"".join(map(bytes.fromhex, sha256)), np.uint8).reshape(-1, 32)
    if perceptual is None:
        return _distinct(digests, np.zeros(len(digests), np.uint64))
    return _distinct(digests, np.fromiter(perceptual, np.uint64, len(digests)))


def read_training_pictures(folder: ModelFolder) -> TrainingPictures | None:
    """What the model folder says; None where it does not, as a folder of an earlier version.

    Raises:
        ModelFolderError: the file was changed, or is malformed.
    """
    if not folder.has(TRAINING_PICTURES):
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = folder.verified(TRAINING_PICTURES)
    try:
        tensors = load_file(file)
        sha256, perceptual = tensors["sha256"], tensors["phash"]
    except (SafetensorError, KeyError) as error:
        raise ModelFolderError(f"{file}: no hashes of pictures ({error})") from None
    good = sha256.ndim == 2 and sha256.shape[1] == 32 and perceptual.shape == sha256.shape[:1]
    if not good or sha256.dtype != np.uint8 or perceptual.dtype != np.int64 or len(sha256) > MAX_PICTURES:
        raise ModelFolderError(
            f"{file}: expected sha256 uint8 [n, 32] and phash int64 [n], found {sha256.dtype} "
            f"{list(sha256.shape)} and {perceptual.dtype} {list(perceptual.shape)}"
        )
    return _distinct(sha256, perceptual.view(np.uint64))


def pictures_of_shards(
    sizes: Mapping[str, int], most_decoded: int = MOST_DECODED, description: str = "hashes of the pictures"
) -> TrainingPictures:
    """The pictures of shards, from the samples' JSON where `image_sha256` and `phash` stand there.

    What is missing is computed from the picture; perceptual hashes, for which it must be decoded, of the
    first so many only. A picture that cannot be decoded has none.

    Args:
        sizes: shard, with its folder → how many samples of it, from the first on.
        most_decoded: pictures to decode at most.
        description: of the progress bar.

    Raises:
        DataError: a shard is malformed or gone.
    """
    digests: list[bytes] = []
    hashes: list[int] = []
    left = most_decoded
    waiting: deque[Future[tuple[bytes, int]]] = deque()
    cores = available_cores()

    def take() -> None:
        digest, value = waiting.popleft().result()
        digests.append(digest)
        hashes.append(value)

    with ThreadPoolExecutor(cores) as pool:
        samples = ((shard, one) for shard, count in sizes.items() for one in _first(shard, count))
        for shard, (sha256, phash, read) in track(samples, description, sum(sizes.values())):
            if sha256 is not None and (phash is not None or left <= 0):
                digests.append(sha256)
                hashes.append(phash or 0)
                continue
            decode = phash is None and left > 0
            left -= decode
            waiting.append(pool.submit(_computed, read(), shard, phash, decode))
            if len(waiting) > 4 * cores:
                take()
        while waiting:
            take()
    rows = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    return _distinct(rows, np.array(hashes, np.uint64))


def pictures_without_texts(folders: Iterable[UnlabelledFolder]) -> TrainingPictures:
    """The pictures of `data.unlabelled`; of files all perceptual hashes are computed, up to `MOST_DECODED`.

    Raises:
        DataError: a shard is malformed or gone.
        OSError: a file is.
    """
    folders = list(folders)
    seen = no_pictures()
    sizes = {shard: size for one in folders for shard, size in one.sizes.items()}
    if sizes:
        seen = pictures_of_shards(sizes, description="hashes of the pictures without texts")
    files = [file for one in folders for file in one.files]
    if not files:
        return seen

    def hashed(numbered: tuple[int, Path]) -> tuple[bytes, int]:
        number, file = numbered
        return _computed(file.read_bytes(), str(file), None, number < MOST_DECODED)

    with ThreadPoolExecutor(available_cores()) as pool:
        found = list(
            track(pool.map(hashed, enumerate(files)), "hashes of the pictures without texts", len(files))
        )
    digests = np.frombuffer(b"".join(digest for digest, _ in found), np.uint8).reshape(-1, 32)
    return seen.joined(_distinct(digests, np.array([value for _, value in found], np.uint64)))


# SHA-256 and perceptual hash as the JSON has them, and what reads the picture.
_Sample = tuple[bytes | None, int | None, Callable[[], bytes]]


def _first(shard: str, count: int) -> Iterator[_Sample]:
    """The first `count` samples of a shard; only their JSON is read."""
    try:
        with storage.open_for_scan(shard) as (file, length):
            parts: dict[str, Member] = {}
            key = ""
            for member in members(file, length):
                if member.size > MAX_MEMBER_BYTES:
                    raise DataError(f"{shard}: member '{member.name}' is larger than 256 MiB")
                stem, _, suffix = Path(member.name).name.partition(".")
                if stem != key and parts:
                    if count <= 0:
                        return
                    count -= 1
                    yield _sample(shard, key, parts, file)
                    parts = {}
                key = stem
                parts[suffix.lower()] = member
            if parts and count > 0:
                yield _sample(shard, key, parts, file)
    except (TarError, OSError) as error:
        raise DataError(f"{shard}: not a readable tar ({error}); write the shards again") from None


def _sample(shard: str, key: str, parts: Mapping[str, Member], file: IO[bytes]) -> _Sample:
    image = next((parts[suffix] for suffix in IMAGE_SUFFIXES if suffix in parts), None)
    if image is None:
        raise DataError(f"{shard}: sample '{key}' has no image; it has {sorted(parts)}")

    def read() -> bytes:
        return _content(file, image)

    meta: Any = {}
    if "json" in parts:
        with contextlib.suppress(ValueError):
            meta = json.loads(_content(file, parts["json"]))
    if not isinstance(meta, dict):
        meta = {}
    return _hex(meta.get("image_sha256"), 32), _number(_hex(meta.get("phash"), 8)), read


def _content(file: IO[bytes], member: Member) -> bytes:
    file.seek(member.data)
    content = b""
    while len(content) < member.size:
        more = file.read(member.size - len(content))  # without a buffer, a read may give less
        if not more:
            raise OSError("unexpected end of data")
        content += more
    return content


def _hex(value: Any, n: int) -> bytes | None:
    try:
        found = bytes.fromhex(value)
    except (TypeError, ValueError):
        return None
    return found if len(found) == n else None


def _number(value: bytes | None) -> int | None:
    return None if value is None else int.from_bytes(value, "big")


def _computed(content: bytes, shard: str, phash: int | None, decode: bool) -> tuple[bytes, int]:
    digest = hashlib.sha256(content).digest()
    if not decode:
        return digest, phash or 0
    try:
        return digest, perceptual_hashes(open_image(content, draft_to=DRAFT_TO, name=shard))[0]
    except DataError:
        return digest, 0


def _distinct(sha256: NDArray[np.uint8], perceptual: NDArray[np.uint64]) -> TrainingPictures:
    """One row for each picture, a known perceptual hash before an unknown one."""
    if len(sha256) == 0:
        return no_pictures()
    # Of equal length, so that numpy's rule on zeros at the end of such values cannot mistake one for another.
    names = np.ascontiguousarray(sha256).view("S32").ravel()
    order = np.lexsort((perceptual == 0, names))
    names = names[order]
    kept = order[np.append(True, names[1:] != names[:-1])]
    return TrainingPictures(np.ascontiguousarray(sha256[kept]), perceptual[kept])
