"""One pass over the pictures: each is decoded once, recoloured, and encoded by every model.

While a model encodes, threads read, decode and prepare what comes next. What an earlier run found out of the
same bytes comes from a cache, if there is one; then nothing is decoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import ConfigError, DataError
from pathclip.evaluate.datasets import Contents
from pathclip.evaluate.features.feature_cache import FeatureCache, open_cache
from pathclip.evaluate.features.feature_column import Column
from pathclip.evaluate.features.feature_keys import COLOUR_FEATURES, HASHES, shelves
from pathclip.evaluate.features.lookahead import in_threads
from pathclip.evaluate.features.pictures import VARIANTS, Picture, Prepared, Variant, prepare
from pathclip.evaluate.profile import Profile, measured
from pathclip.evaluate.subjects import Subject
from pathclip.progress import track
from pathclip.runtime.cores import available_cores
from pathclip.runtime.preprocess import Preprocess

__all__ = ["VARIANTS", "Encoded", "Variant", "data_hash", "encode_dataset", "encode_pictures"]

MANY = 1000  # pictures from which on tables for turning hues are worth the second they take


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the pass leaves of n pictures.

    Attributes:
        embeddings: subject's key → variant → L2-normalised float32 [n, d].
        colours: variant → colour features float64 [n, 54].
        sha256: of each picture's bytes, in hex.
        perceptual: perceptual hashes of each in its 8 flips and rotations, the first as it lies; uint64
            [n, 8], from `pathclip.curate.images.perceptual_hashes`.
    """

    embeddings: Mapping[str, Mapping[str, NDArray[np.float32]]]
    colours: Mapping[str, NDArray[np.float64]]
    sha256: tuple[str, ...]
    perceptual: NDArray[np.uint64]


class Dataset(Protocol):
    """Pictures of any task: `LabelledImages`, `MultiLabelImages`, `TextPairs`."""

    @property
    def paths(self) -> tuple[str, ...]:
        """What messages call each picture."""

    @property
    def contents(self) -> Contents:
        """Yields their bytes."""


class RunSettings(Protocol):
    """What the pass takes of a run's settings; `pathclip.evaluate.task.Settings` has it."""

    @property
    def batch_size(self) -> int:
        """Pictures per call of an encoder."""

    @property
    def seed(self) -> int:
        """Of the random colours."""

    @property
    def cache(self) -> str | None:
        """Folder of features of earlier runs."""

    @property
    def cache_limit(self) -> float:
        """GiB that it may grow to."""

    @property
    def profile(self) -> Profile | None:
        """Takes the times."""


def encode_dataset(
    images: Dataset,
    subjects: Sequence[Subject],
    variants: Sequence[str],
    settings: RunSettings,
    description: str = "encoding",
) -> Encoded:
    """`encode_pictures` of a dataset as a run's settings say."""
    return encode_pictures(
        images.contents,
        images.paths,
        subjects,
        variants,
        settings.batch_size,
        settings.seed,
        description,
        open_cache(settings.cache, settings.cache_limit),
        settings.profile,
    )


def encode_pictures(
    contents: Contents,
    names: Sequence[str],
    subjects: Sequence[Subject],
    variants: Sequence[str] = VARIANTS,
    batch_size: int = 32,
    seed: int = 0,
    description: str = "encoding",
    cache: FeatureCache | None = None,
    profile: Profile | None = None,
) -> Encoded:
    """Encodes pictures with every subject in every variant; memory holds three batches of them.

    Args:
        contents: yields the encoded bytes, see `LabelledImages`.
        names: what messages call each picture; their number is how many are read.
        subjects: the models; none gives colour features alone.
        variants: of 'plain' and 'randomised_colour'.
        batch_size: pictures per call of an encoder.
        seed: of the random colours, with the picture's own bytes.
        description: of the progress bar.
        cache: features of earlier runs, and where new ones are kept.
        profile: takes the time of each step.

    Raises:
        DataError: a picture cannot be decoded, or a model gives NaN for it, or there are no longer as many as
            names; names the picture.
        ConfigError: an unknown variant, or none.
    """
    for variant in variants or [""]:
        if variant not in VARIANTS:
            raise ConfigError(f"variants: '{variant}' is none of {', '.join(VARIANTS)}")
    with measured(profile, "feature cache"):
        run = _Pass(contents, names, subjects, variants, batch_size, seed, cache, profile)
    try:
        run.encode(description)
    finally:  # a later run takes up what this one found out, even if it was stopped
        with measured(profile, "feature cache"):
            run.keep()
    return run.result()


def data_hash(sha256: Sequence[str], *columns: Sequence[str]) -> str:
    """Names the data: SHA-256 over the pictures' hashes and what belongs to each (labels, texts, groups).

    The order of the pictures does not matter.
    """
    rows = sorted("\x1f".join(row) for row in zip(sha256, *columns, strict=True))
    return hashlib.sha256("\x1e".join(rows).encode()).hexdigest()


class _Pass:
    """What one call of `encode_pictures` holds."""

    def __init__(
        self,
        contents: Contents,
        names: Sequence[str],
        subjects: Sequence[Subject],
        variants: Sequence[str],
        batch_size: int,
        seed: int,
        cache: FeatureCache | None,
        profile: Profile | None,
    ) -> None:
        self._contents, self._names, self._subjects, self._variants = contents, names, subjects, variants
        self._batch_size, self._seed, self._profile = batch_size, seed, profile
        self._sha256: list[str] = []
        shelf, n = shelves(cache, subjects, variants, seed), len(names)
        self._colours = {
            one: Column(n, COLOUR_FEATURES, "<f8", shelf.get(("colours", one))) for one in variants
        }
        self._hashes = Column(n, HASHES, "<u8", shelf.get(("perceptual",)))
        self._vectors = {
            (one.key, variant): Column(n, one.encoder.dim, "<f4", shelf.get(("embeddings", one.key, variant)))
            for one in subjects
            for variant in variants
        }
        self._waiting: dict[tuple[str, str], list[tuple[int, NDArray[np.uint8]]]] = {
            key: [] for key in self._vectors
        }

    def encode(self, description: str) -> None:
        """Goes through the pictures once."""
        many = len(self._names) >= MANY

        def work(picture: Picture) -> Prepared:
            try:
                return prepare(picture, self._seed, many, self._profile)
            except Exception as error:
                error.add_note(f"picture: {picture.name}")
                raise

        ahead = in_threads(self._pictures(), work, available_cores(), 2 * self._batch_size)
        with closing(ahead):  # whatever happens: no thread is left behind
            for number, prepared in enumerate(track(self._waited(ahead), description, len(self._names))):
                self._take(number, prepared)
        for subject in self._subjects:
            for variant in self._variants:
                self._encode(subject, variant)

    def keep(self, all_of_it: bool = True) -> None:
        """Puts what was found out into the cache."""
        for column in (*self._vectors.values(), *self._colours.values(), self._hashes):
            column.keep(self._sha256, all_of_it)

    def result(self) -> Encoded:
        """All of it."""
        return Encoded(
            {
                one.key: {variant: self._vectors[one.key, variant].rows for variant in self._variants}
                for one in self._subjects
            },
            {variant: column.rows for variant, column in self._colours.items()},
            tuple(self._sha256),
            self._hashes.rows,
        )

    def _pictures(self) -> Iterator[Picture]:
        """Reads and hashes pictures, and says what the cache does not know of each. Runs in one thread."""
        source = _paired(self._names, self._contents)
        start = 0
        while True:
            with measured(self._profile, "reading and hashing"):
                batch = list(islice(source, self._batch_size))
                digests = [hashlib.sha256(content).hexdigest() for _, content in batch]
            if not batch:
                return
            with measured(self._profile, "feature cache"):
                for column in (*self._vectors.values(), *self._colours.values(), self._hashes):
                    column.look_up(start, digests)
            self._sha256 += digests
            for number, ((name, content), digest) in enumerate(zip(batch, digests, strict=True), start):
                yield self._wanted(number, name, content, digest)
            start += len(batch)

    def _wanted(self, number: int, name: str, content: bytes, digest: str) -> Picture:
        pixels: dict[str, list[Preprocess]] = {}
        for subject in self._subjects:
            for variant in self._variants:
                preprocess = subject.encoder.preprocess
                wanted = pixels.setdefault(variant, [])
                if not self._vectors[subject.key, variant].known[number] and preprocess not in wanted:
                    wanted.append(preprocess)
        colours = [variant for variant, column in self._colours.items() if not column.known[number]]
        return Picture(name, digest, content, pixels, colours, not self._hashes.known[number])

    def _waited(self, ahead: Iterator[Prepared]) -> Iterator[Prepared]:
        while True:
            with measured(self._profile, "waiting for pictures"):
                prepared = next(ahead, None)
            if prepared is None:
                return
            yield prepared

    def _take(self, number: int, prepared: Prepared) -> None:
        for variant, features in prepared.colours.items():
            self._colours[variant].put([number], features)
        if prepared.perceptual:
            self._hashes.put([number], np.array(prepared.perceptual, np.uint64))
        for subject in self._subjects:
            for variant in self._variants:
                if self._vectors[subject.key, variant].known[number]:
                    continue
                waiting = self._waiting[subject.key, variant]
                waiting.append((number, prepared.pixels[variant, subject.encoder.preprocess]))
                if len(waiting) == self._batch_size:
                    self._encode(subject, variant)

    def _encode(self, subject: Subject, variant: str) -> None:
        waiting = self._waiting[subject.key, variant]
        if not waiting:
            return
        numbers = [number for number, _ in waiting]
        with measured(self._profile, "encoder", subject.key):
            pixels = np.stack([pixels for _, pixels in waiting])
            found = subject.encoder.encode_images(pixels, batch_size=self._batch_size)
        waiting.clear()
        _check(subject, variant, found, [self._names[number] for number in numbers])
        self._vectors[subject.key, variant].put(numbers, found)
        with measured(self._profile, "feature cache"):
            self.keep(all_of_it=False)


def _paired(names: Sequence[str], contents: Contents) -> Iterator[tuple[str, bytes]]:
    found = iter(contents(range(len(names))))
    for number, name in enumerate(names):
        content = next(found, None)
        if content is None:
            raise DataError(
                f"{name}: is no longer there; {number} of {len(names)} pictures could be read. Were the "
                "shards or files written again during this run? Start it again"
            )
        yield name, content


def _check(subject: Subject, variant: str, vectors: NDArray[np.float32], names: Sequence[str]) -> None:
    good = np.isfinite(vectors).all(axis=1)
    if not good.all():
        raise DataError(
            f"{names[int(np.argmin(good))]}: its embedding by {subject.title} ({variant}) is not a number"
        )
