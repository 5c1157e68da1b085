"""Trains the image tower of a model folder with a linear head, for `fine_tuning`."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pathclip.errors import ConfigError, DataError
from pathclip.evaluate.features import colour
from pathclip.evaluate.task import Split
from pathclip.model.towers import load_towers
from pathclip.model_folder import ModelFolder
from pathclip.progress import track
from pathclip.runtime.preprocess import Preprocess, open_image

Pixels = NDArray[np.uint8]


class TunedTower:
    """An image tower and a linear head, which every training starts anew from the folder's weights.

    Args:
        folder: a verified model folder with torch weights.
        preprocess: normalises the pixels.
        classes: outputs of the head.
        options: epochs, pictures per step at most, weight decay.
        device: 'cpu', 'cuda', or 'auto': cuda where there is one.

    Raises:
        ConfigError: 'cuda' without one.
    """

    def __init__(
        self,
        folder: ModelFolder,
        preprocess: Preprocess,
        classes: int,
        options: tuple[int, int, float],
        device: str = "auto",
    ):
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device: there is no cuda here; take device=cpu or auto")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(device)
        with torch.random.fork_rng(devices=[]):  # modules draw their first weights, which are not kept
            towers = load_towers(folder)
            self._head = nn.Linear(towers.embed_dim, classes).to(self._device)
        self._model: Any = towers.model.to(self._device)
        self._start = {name: value.clone() for name, value in self._model.visual.state_dict().items()}
        self._preprocess = preprocess
        self._epochs, self._batch_size, self._weight_decay = options

    def train(
        self, pixels: Pixels, numbers: NDArray[Any], truth: NDArray[Any], rate: float, seed: int
    ) -> Iterator[None]:
        """Trains on some rows of `pixels`, and yields after each step.

        Args:
            pixels: uint8 [n, h, w, 3].
            numbers: int64 [m], the rows to train on.
            truth: their classes int64 [m].
            rate: learning rate at the first step; it falls to 0 as half a cosine.
            seed: of the head, the order and dropout; the same seed gives the same weights.
        """
        cuda = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(seed)
            self._model.visual.load_state_dict(self._start)
            self._head.reset_parameters()
            parameters = [*self._model.visual.parameters(), *self._head.parameters()]
            optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=self._weight_decay)
            parts = -(-len(numbers) // self._batch_size)
            self._model.train()
            for epoch in range(self._epochs):
                # Parts of about one size: none is left with a single picture, which batch norm cannot take.
                for number, part in enumerate(torch.randperm(len(numbers)).tensor_split(parts)):
                    done = (epoch * parts + number) / (self._epochs * parts)
                    for group in optimizer.param_groups:
                        group["lr"] = rate * (1 + math.cos(math.pi * done)) / 2
                    rows = part.numpy()
                    target = torch.from_numpy(truth[rows]).to(self._device)
                    loss = nn.functional.cross_entropy(self._forward(pixels[numbers[rows]]), target)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    yield None

    @torch.no_grad()
    def logits(self, pixels: Pixels, numbers: NDArray[Any]) -> NDArray[np.float32]:
        """Of some rows of `pixels`, float32 [m, classes]."""
        self._model.eval()
        parts = [
            self._forward(pixels[numbers[start : start + self._batch_size]]).cpu().numpy()
            for start in range(0, len(numbers), self._batch_size)
        ]
        return np.concatenate(parts)

    def _forward(self, pixels: Pixels) -> Tensor:
        prepared = torch.from_numpy(self._preprocess.normalise(np.asarray(pixels))).to(self._device)
        logits: Tensor = self._head(self._model.encode_image(prepared))
        return logits


def pixels_of(split: Split, preprocess: Preprocess, variant: str, seed: int) -> Pixels:
    """Pictures as a model takes them, before normalisation: uint8 [n, h, w, 3] in a temporary file.

    Raises:
        DataError: a picture cannot be read, or there is no room for the file.
    """
    shape = (len(split.images), *preprocess.size, 3)
    with tempfile.TemporaryFile() as file:
        try:
            # Without room, writing to a mapped file would end the process.
            os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)))
        except OSError as error:
            raise DataError(
                f"fine-tuning: no room for {np.prod(shape) / 1e6:.0f} MB of pixels in "
                f"{tempfile.gettempdir()} ({error.strerror}); let TMPDIR name a folder with more"
            ) from None
        found = np.memmap(file, np.uint8, "r+", shape=shape)
    named = zip(split.images.paths, split.encoded.sha256, split.images.contents(range(shape[0])), strict=True)
    for row, (name, digest, content) in enumerate(track(named, "decoding", shape[0])):
        if variant == "randomised_colour":
            whole = open_image(content, name=name)
            image = colour.randomise_colour(whole, colour.picture_seed(digest, seed))
        else:
            image = preprocess.open(content, name)
        found[row] = preprocess.pixels(image, name)
    return found
