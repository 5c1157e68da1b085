"""Embeds the pictures of pairs with a model, where the config asks for near-duplicates by embedding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathclip import load
from pathclip.curate.ledger import Ledger
from pathclip.curate.look import read_again
from pathclip.errors import ModelFolderError
from pathclip.progress import track
from pathclip.runtime.encoder import Encoder
from pathclip.runtime.images import open_image
from pathclip.sources.distinct import in_batches

FILE = "embeddings.npy"
BATCH = 64
_PICTURES = "select place, box, sha256 from paired order by number"


def embed(ledger: Ledger, model: str) -> NDArray[np.float16]:
    """The embeddings of the pairs' pictures, on disk: unit length, [pairs, d], in the order of the pairs.

    Raises:
        ModelFolderError: no such model folder, or none that was exported.
    """
    file = ledger.folder / FILE
    with ledger.stage("embed") as todo:
        if todo:
            encoder = open_model(model)
            (total,) = ledger.database.execute("select count(*) from pair").fetchone()
            shape = {"descr": "<f2", "fortran_order": False, "shape": (total, encoder.dim)}
            images = track(_images(ledger), "Embedding pictures", total=total)
            # Not through a memory map: on a full disk that ends the process without a word.
            with file.open("wb") as stream:
                np.lib.format.write_array_header_1_0(stream, shape)
                for batch in in_batches(images, BATCH):
                    stream.write(encoder.encode_images(batch).astype("<f2").tobytes())
    return open_embeddings(file)


def open_model(model: str) -> Encoder:
    """The model that finds near-duplicates.

    Raises:
        ModelFolderError: no such model folder, or none that was exported.
    """
    try:
        return load(model, runtime="onnx")
    except ModelFolderError as error:
        raise ModelFolderError(f"dedup.model={model}: {error}") from None


def open_embeddings(file: Path) -> NDArray[np.float16]:
    """The table that `embed` wrote, read as it is needed."""
    table: NDArray[np.float16] = np.load(file, mmap_mode="r", allow_pickle=False)
    return table


def _images(ledger: Ledger) -> Iterator[Image.Image]:
    return (open_image(read_again(*row)) for row in ledger.rows(_PICTURES))
