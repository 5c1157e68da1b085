"""Small real encoders in numpy, for tests of everything that takes an encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathclip.runtime.encoder import normalise
from pathclip.runtime.preprocess import Preprocess

COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 60, 200), "grey": (128, 128, 128)}


class ColourEncoder:
    """Pictures by their mean colour, texts by the colour words in them, in one random space.

    `noise` blurs the pictures' vectors, so that an encoder can be worse than another; a text without a
    colour word gets a vector of its own from its bytes.
    """

    runtime = "numpy"
    logit_scale = 20.0

    def __init__(self, noise: float = 0.0, precision: str = "fp32", dim: int = 16, name: str = "colours"):
        self.noise, self.precision, self.dim, self.name = noise, precision, dim, name
        self.preprocess = Preprocess(size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
        self._projection = np.random.default_rng(0).normal(size=(4, dim))

    def encode_images(
        self, images: Sequence[Image.Image] | NDArray[np.uint8], batch_size: int = 32
    ) -> NDArray[np.float32]:
        means = self.preprocess.batch(images).mean(axis=(2, 3))
        vectors = _coordinates(means) @ self._projection
        for row, mean in zip(vectors, means, strict=True):
            rng = np.random.default_rng(_seed(mean.tobytes()))
            row += self.noise * rng.normal(size=self.dim)
        return normalise(vectors)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return normalise(np.stack([self._text(text) for text in texts]))

    def _text(self, text: str) -> Any:
        found = [
            _coordinates(np.array([rgb]) / 127.5 - 1)[0]
            for name, rgb in COLOURS.items()
            if name in text.lower().split()
        ]
        if found:
            return np.mean(found, axis=0) @ self._projection
        return np.random.default_rng(_seed(text.encode())).normal(size=self.dim)


class BrokenEncoder(ColourEncoder):
    """Gives NaN for every picture, or for texts with the given word."""

    def __init__(self, word: str | None = None):
        super().__init__(name="broken")
        self.word = word

    def encode_images(self, images, batch_size=32):
        vectors = super().encode_images(images, batch_size)
        return vectors * np.float32("nan") if self.word is None else vectors

    def encode_texts(self, texts):
        vectors = super().encode_texts(texts)
        for row, text in zip(vectors, texts, strict=True):
            if self.word is not None and self.word in text:
                row[:] = np.nan
        return vectors


class ConstantEncoder(ColourEncoder):
    """A collapsed model: the same vector for everything."""

    def encode_images(self, images, batch_size=32):
        return normalise(np.ones((len(images), self.dim)))

    def encode_texts(self, texts):
        return normalise(np.ones((len(texts), self.dim)))


def _coordinates(colours: NDArray[Any]) -> NDArray[Any]:
    """Colours in [-1, 1] with a constant beside, so that grey has a direction too."""
    return np.concatenate([colours, np.full((len(colours), 1), 0.5)], axis=1)


def _seed(content: bytes) -> int:
    return int(hashlib.sha256(content).hexdigest()[:8], 16)
