"""A finished model that a student learns from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pathclip.errors import ConfigError, ModelFolderError
from pathclip.model.torch_encoder import load_torch_model
from pathclip.model_folder import WEIGHTS, ModelFolder, open_model_folder
from pathclip.runtime.preprocess import Preprocess
from pathclip.runtime.tokenizer import Tokenizer

# Texts whose embeddings are kept, for captions come again every epoch: 100 MB at 512 numbers.
MAX_HELD = 50_000


class Teacher:
    """A model folder, frozen, that embeds the pictures which the student is shown.

    A folder with torch weights runs in torch, on the device of the pixels; one that was exported without
    them runs in onnxruntime on the CPU, in fp32 where it has that.

    No `nn.Module`, so that it becomes no part of the student's weights and checkpoints.

    Attributes:
        tokenizer: of the teacher; its rows are `teacher_tokens`.
        scale: the teacher's logit scale, the factor itself.
        dim: length of its embeddings.
        size: (height, width) of its pictures.
    """

    def __init__(self, path: str | Path, student: Preprocess):
        """Loads the folder.

        Args:
            path: a model folder, as `pathclip train`, `import` or `export` writes it.
            student: how the pixels that come are normalised.

        Raises:
            ConfigError: the folder is missing, incomplete or changed.
        """
        try:
            folder = open_model_folder(path)
            self._own = Preprocess.from_card(folder.card["preprocess"])
            self.tokenizer = Tokenizer.of_folder(folder)
            self._towers: _Towers = _InTorch(folder) if folder.has(WEIGHTS) else _InOnnx(folder, self._own)
        except ModelFolderError as error:
            raise ConfigError(f"teacher: {error}") from error
        self._student = student
        self._texts: dict[str, Tensor] = {}
        self.scale = self._towers.scale
        self.dim = int(folder.card["embed_dim"])
        self.size = self._own.size

    def __deepcopy__(self, _: Any) -> Teacher:
        """Itself: an average of the student's weights copies the task, and the teacher does not change."""
        return self

    @torch.no_grad()
    def __call__(self, pixels: Tensor, tokens: Tensor, texts: Sequence[str]) -> tuple[Tensor, Tensor, float]:
        """What the teacher makes of a batch.

        Args:
            pixels: normalised for the student, float [n, 3, h, w] of any size, augmented as it sees them.
            tokens: int64 [n, length] by the teacher's tokenizer.
            texts: those that the tokens stand for.

        Returns:
            L2-normalised image and text embeddings, each [n, d] without gradient, and the logit scale.
        """
        return self.images(pixels), self._embed_texts(tokens, texts), self.scale

    @torch.no_grad()
    def images(self, pixels: Tensor) -> Tensor:
        """L2-normalised [n, d] of pictures as `__call__` takes them."""
        return self._towers.images(self._as_own(pixels))

    def _embed_texts(self, tokens: Tensor, texts: Sequence[str]) -> Tensor:
        if tokens.is_cuda:  # there one by one would cost more than what is spared
            return self._towers.texts(tokens, texts)
        # One by one: in company, the last bits of a row depend on who else is there, and a run that goes on
        # meets its captions in other company than the run that was not interrupted.
        fresh: dict[str, Tensor] = {}
        for row, text in enumerate(texts):
            if text not in self._texts and text not in fresh:
                fresh[text] = self._towers.texts(tokens[row : row + 1], [text])[0]
        found = torch.stack([fresh[text] if text in fresh else self._texts[text] for text in texts])
        if len(self._texts) + len(fresh) <= MAX_HELD:
            self._texts.update(fresh)
        return found

    def _as_own(self, pixels: Tensor) -> Tensor:
        """The same pictures in the teacher's size and normalisation."""
        mean, std = _channels(self._student, pixels)
        values = pixels * std + mean
        if values.shape[-2:] != self._own.size:
            # Antialiased bicubic, as PIL resizes; it overshoots at edges, which 8 bits would cut off.
            values = functional.interpolate(
                values, self._own.size, mode="bicubic", antialias=True, align_corners=False
            )
        mean, std = _channels(self._own, pixels)
        return (values.clamp(0, 1) - mean) / std


class _Towers(Protocol):
    """Both towers of a teacher."""

    scale: float

    def images(self, pixels: Tensor) -> Tensor:
        """L2-normalised [n, d] of pixels normalised for the teacher."""

    def texts(self, tokens: Tensor, texts: Sequence[str]) -> Tensor:
        """L2-normalised [n, d] of texts, of which the tokens are there too."""


class _InTorch:
    def __init__(self, folder: ModelFolder):
        self._model: Any = load_torch_model(folder).requires_grad_(False)
        self.scale = float(self._model.logit_scale.exp().mean())

    def images(self, pixels: Tensor) -> Tensor:
        embedded: Tensor = self._model.to(pixels.device).encode_image(pixels, normalize=True)
        return embedded

    def texts(self, tokens: Tensor, _: Sequence[str]) -> Tensor:
        embedded: Tensor = self._model.to(tokens.device).encode_text(tokens, normalize=True)
        return embedded


class _InOnnx:
    def __init__(self, folder: ModelFolder, preprocess: Preprocess):
        from pathclip.runtime.encoder import OnnxEncoder, Precision, available_precisions

        # int8 stands in where there is nothing else: what it answers is what users of that folder get.
        precision: Precision = "fp32" if "fp32" in available_precisions(folder) else "int8"
        self._encoder: Any = OnnxEncoder(folder, precision)
        self._preprocess = preprocess
        self.scale = float(self._encoder.logit_scale)

    def images(self, pixels: Tensor) -> Tensor:
        mean, std = _channels(self._preprocess, pixels)
        eight_bit = ((pixels * std + mean) * 255).round().to(torch.uint8)  # as pictures come in use
        embedded: np.ndarray = self._encoder.encode_images(eight_bit.permute(0, 2, 3, 1).cpu().numpy())
        return torch.from_numpy(embedded).to(pixels.device)

    def texts(self, tokens: Tensor, texts: Sequence[str]) -> Tensor:
        return torch.from_numpy(self._encoder.encode_texts(list(texts))).to(tokens.device)


def _channels(preprocess: Preprocess, like: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = (like.new_tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    return mean, std
