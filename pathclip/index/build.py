"""Makes an index of a folder of pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pathclip.errors import DataError
from pathclip.index.exact import Entry, ExactIndex, check_replaceable
from pathclip.progress import track
from pathclip.runtime.cores import available_cores
from pathclip.runtime.encoder import Encoder
from pathclip.runtime.images import find_images, read_batches, require_utf8_name


def build_index(
    encoder: Encoder,
    images: Path,
    out: Path | None = None,
    on_error: Callable[[Path, DataError], None] | None = None,
    batch_size: int = 32,
    workers: int | None = None,
) -> ExactIndex:
    """Embeds every picture below a folder; an entry's id is its path in there.

    Args:
        encoder: whose image tower is used; its folder's path and hash, its precision and runtime go into
            the index.
        images: the folder, searched through.
        out: where the index is written, an earlier one replaced; None keeps it in memory.
        on_error: called with each file that cannot be read, which is then left out; by default the
            first such file ends it.
        batch_size: pictures per run of the tower.
        workers: threads that decode; by default the physical cores.

    Raises:
        DataError: no such folder, no picture in it that can be read, `out` is no index, or the path of
            the pictures or of the model is not UTF-8.
    """
    images = Path(images)
    if not images.is_dir():
        raise DataError(f"{images}: no such folder of pictures")
    for recorded in (images.resolve(), encoder.folder.path.resolve()):
        require_utf8_name(recorded)
    if out is not None:
        check_replaceable(Path(out))
    paths = find_images(images)
    if not paths:
        raise DataError(f"{images}: no pictures in it")
    vectors, entries = [], []
    workers = workers or available_cores()
    tracked = track(paths, "indexing")
    for batch in read_batches(tracked, encoder.preprocess, batch_size, workers, hashed=True):
        for path, error in batch.failed:
            (on_error or _refuse)(path, error)
        vectors.append(encoder.encode_images(batch.pixels))
        for path, digest in zip(batch.read, batch.sha256, strict=True):
            below = path.relative_to(images).as_posix()
            entries.append(Entry(below, below, digest))
    if not entries:
        raise DataError(f"{images}: no picture in it could be read")
    folder = encoder.folder
    model = {"path": str(folder.path.resolve()), "name": encoder.name}
    model |= {"precision": encoder.precision, "runtime": encoder.runtime}
    index = ExactIndex(np.concatenate(vectors), entries, folder.hash, images.resolve(), model)
    if out is not None:
        index.write(out)
    return index


def _refuse(path: Path, error: DataError) -> None:
    raise error
