"""The shelves of a pass: what features of pictures depend on beside the pictures' bytes.

Everything that changes a number is in a key: the weights' hash, precision, runtime and the versions of its
libraries, the preprocess, the variant with the seed of its colours, what decodes, and the source of the code
that computes.
A model whose weights have no hash is not cached at all.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate.features import colour, hues, pictures
from pathclip.evaluate.features.feature_cache import FeatureCache, Shelf
from pathclip.evaluate.subjects import Subject
from pathclip.runtime import encoder as runtime_encoder
from pathclip.runtime import images, preprocess
from pathclip.runtime.libraries import LIBRARIES, versions

COLOUR_FEATURES, HASHES = 54, 8
# Modules by name, as `_source` takes them: the first of every kind of features, the others of a runtime.
PICTURES = tuple(one.__name__ for one in (images, colour, hues, pictures))
MODELS = {"torch": ("pathclip.model.towers", "pathclip.model.modules")}
TRIAL = "0" * 64  # stands for the test picture: no file has this SHA-256
TOLERANCE = 1e-4


def embeddings_shelf(cache: FeatureCache, subject: Subject, variant: str, seed: int) -> Shelf | None:
    """Where embeddings of this model in this variant lie; None if its weights have no hash.

    The model first embeds a test picture: if the shelf has another answer to it, then the key does not say
    all that the numbers depend on (another kind of processor, say), and the shelf is not used.
    """
    encoder = subject.encoder
    if not subject.model_hash:
        return None
    key = {
        "what": "embeddings",
        "model": subject.model_hash,
        "precision": encoder.precision,
        "runtime": encoder.runtime,
        "libraries": [" ".join(one) for one in versions(*LIBRARIES.get(encoder.runtime, ())).items()],
        "preprocess": asdict(encoder.preprocess),
        "code": _source(
            type(encoder).__module__,
            preprocess.__name__,
            runtime_encoder.__name__,  # which normalises
            *MODELS.get(encoder.runtime, ()),
            *PICTURES,
        ),
        **_picture_key(variant, seed),
    }
    shelf = cache.shelf(key, encoder.dim)
    return shelf if _answers_as_before(cache, shelf, subject) else None


def colours_shelf(cache: FeatureCache, variant: str, seed: int) -> Shelf:
    """Where colour features of this variant lie."""
    key = {"what": "colour features", "code": _source(*PICTURES), **_picture_key(variant, seed)}
    return cache.shelf(key, COLOUR_FEATURES, "<f8")


def hashes_shelf(cache: FeatureCache) -> Shelf:
    """Where perceptual hashes lie."""
    code = _source(images.__name__, pictures.__name__, "pathclip.curate.images")
    return cache.shelf({"what": "perceptual hashes", "code": code, **_picture_key("plain", 0)}, HASHES, "<u8")


def _picture_key(variant: str, seed: int) -> dict[str, Any]:
    key: dict[str, Any] = {"variant": variant, "decoders": _decoders()}
    if variant == "randomised_colour":
        key |= {"seed": seed, "numpy": np.__version__}  # whose generator draws the colours
    return key


def _answers_as_before(cache: FeatureCache, shelf: Shelf, subject: Subject) -> bool:
    height, width = subject.encoder.preprocess.size
    picture = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    answer: NDArray[np.float32] = subject.encoder.encode_images(picture, batch_size=1)
    if not np.isfinite(answer).all():
        return False
    found, before = shelf.get([TRIAL])
    if not found[0]:
        if not shelf.empty:
            cache.say(f"cache {cache.folder}: what filled it for {subject.title} is not known; not used")
            return False
        shelf.add([TRIAL], answer)
        before = answer
    if np.abs(before - answer).max() > TOLERANCE:
        cache.say(
            f"cache {cache.folder}: {subject.title} answers otherwise than when it was filled; not used"
        )
        return False
    shelf.witness = TRIAL, before
    return True


@cache
def _decoders() -> dict[str, str | None]:
    import PIL
    from PIL import features

    libraries = ("jpg", "libjpeg_turbo", "webp", "libtiff", "zlib")
    found: dict[str, str | None] = {name: features.version(name) for name in libraries}
    return {"pillow": PIL.__version__, **found}


@cache
def _source(*modules: str) -> str:
    """SHA-256 over the source of modules that are imported: code that changes numbers changes the key."""
    digest = hashlib.sha256()
    for name in modules:
        file = getattr(sys.modules.get(name), "__file__", None)
        digest.update(Path(file).read_bytes() if file and Path(file).is_file() else name.encode())
    return digest.hexdigest()


def shelves(
    cache: FeatureCache | None, subjects: Sequence[Subject], variants: Sequence[str], seed: int
) -> dict[tuple[str, ...], Shelf]:
    """All shelves of a pass: ('embeddings', key, variant), ('colours', variant), ('perceptual',) → shelf."""
    if cache is None:
        return {}
    found: dict[tuple[str, ...], Shelf] = {("perceptual",): hashes_shelf(cache)}
    for variant in variants:
        found["colours", variant] = colours_shelf(cache, variant, seed)
        for subject in subjects:
            shelf = embeddings_shelf(cache, subject, variant, seed)
            if shelf is not None:
                found["embeddings", subject.key, variant] = shelf
    return found
