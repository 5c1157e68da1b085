"""One pass over the pictures: each is decoded once, recoloured, and encoded by every model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pathclip.curate.images import perceptual_hashes
from pathclip.errors import ConfigError, DataError
from pathclip.evaluate import colour
from pathclip.evaluate.datasets import Contents
from pathclip.evaluate.subjects import Subject
from pathclip.progress import track
from pathclip.runtime.cores import available_cores
from pathclip.runtime.preprocess import Preprocess, open_image

Variant = Literal["plain", "randomised_colour"]
VARIANTS: tuple[Variant, ...] = ("plain", "randomised_colour")


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


@dataclass(frozen=True, slots=True)
class _Prepared:
    sha256: str
    colours: dict[str, NDArray[np.float64]]
    pixels: dict[tuple[str, Preprocess], NDArray[np.uint8]]
    perceptual: tuple[int, ...]


def encode_pictures(
    contents: Contents,
    names: Sequence[str],
    subjects: Sequence[Subject],
    variants: Sequence[str] = VARIANTS,
    batch_size: int = 32,
    seed: int = 0,
    description: str = "encoding",
) -> Encoded:
    """Encodes pictures with every subject in every variant; memory holds two batches of them.

    Args:
        contents: yields the encoded bytes, see `LabelledImages`.
        names: what messages call each picture; their number is how many are read.
        subjects: the models; none gives colour features alone.
        variants: of 'plain' and 'randomised_colour'.
        batch_size: pictures per call of an encoder.
        seed: of the random colours, with the picture's own bytes.
        description: of the progress bar.

    Raises:
        DataError: a picture cannot be decoded, or a model gives NaN for it; names the picture.
        ConfigError: an unknown variant, or none.
    """
    for variant in variants or [""]:
        if variant not in VARIANTS:
            raise ConfigError(f"variants: '{variant}' is none of {', '.join(VARIANTS)}")
    wanted = {subject.encoder.preprocess for subject in subjects}
    hashes: list[str] = []
    perceptual: list[tuple[int, ...]] = []
    colours: dict[str, list[NDArray[np.float64]]] = {variant: [] for variant in variants}
    vectors: dict[str, dict[str, list[NDArray[np.float32]]]] = {
        subject.key: {variant: [] for variant in variants} for subject in subjects
    }

    def prepare(name: str, content: bytes) -> _Prepared:
        return _prepare(name, content, variants, wanted, seed)

    source = zip(names, contents(range(len(names))), strict=True)
    with ThreadPoolExecutor(available_cores()) as pool:
        for batch in track(_batches(source, batch_size), description, -(-len(names) // batch_size)):
            prepared = list(pool.map(lambda item: prepare(*item), batch))
            for subject in subjects:
                for variant in variants:
                    key = (variant, subject.encoder.preprocess)
                    pixels = np.stack([one.pixels[key] for one in prepared])
                    found = subject.encoder.encode_images(pixels, batch_size=batch_size)
                    _check(subject, variant, found, [name for name, _ in batch])
                    vectors[subject.key][variant].append(found)
            for one in prepared:
                hashes.append(one.sha256)
                perceptual.append(one.perceptual)
                for variant in variants:
                    colours[variant].append(one.colours[variant])
    return Encoded(
        {
            key: {variant: np.concatenate(parts) for variant, parts in inner.items()}
            for key, inner in vectors.items()
        },
        {variant: np.stack(rows) for variant, rows in colours.items()},
        tuple(hashes),
        np.array(perceptual, np.uint64).reshape(-1, 8),
    )


def data_hash(sha256: Sequence[str], *columns: Sequence[str]) -> str:
    """Names the data: SHA-256 over the pictures' hashes and what belongs to each (labels, texts, groups).

    The order of the pictures does not matter.
    """
    rows = sorted("\x1f".join(row) for row in zip(sha256, *columns, strict=True))
    return hashlib.sha256("\x1e".join(rows).encode()).hexdigest()


def _prepare(
    name: str, content: bytes, variants: Sequence[str], wanted: set[Preprocess], seed: int
) -> _Prepared:
    digest = hashlib.sha256(content).hexdigest()
    image = open_image(content, name=name)
    colours, pixels = {}, {}
    for variant in variants:
        shown = image
        if variant == "randomised_colour":
            shown = colour.randomise_colour(image, colour.picture_seed(digest, seed))
        colours[variant] = colour.features(shown)
        for preprocess in wanted:
            pixels[variant, preprocess] = preprocess.pixels(shown, name)
    return _Prepared(digest, colours, pixels, perceptual_hashes(image))


def _batches(source: Iterator[tuple[str, bytes]], size: int) -> Iterator[list[tuple[str, bytes]]]:
    while batch := list(islice(source, size)):
        yield batch


def _check(subject: Subject, variant: str, vectors: NDArray[np.float32], names: Sequence[str]) -> None:
    good = np.isfinite(vectors).all(axis=1)
    if not good.all():
        raise DataError(
            f"{names[int(np.argmin(good))]}: its embedding by {subject.title} ({variant}) is not a number"
        )
