"""A finished model that a student learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pathclip.errors import ConfigError, ModelFolderError
from pathclip.model.torch_encoder import load_torch_model
from pathclip.model_folder import WEIGHTS, open_model_folder
from pathclip.runtime.preprocess import Preprocess
from pathclip.runtime.tokenizer import Tokenizer


class Teacher:
    """A model folder, frozen, that embeds the pictures which the student is shown.

    No `nn.Module`, so that it becomes no part of the student's weights and checkpoints; it follows the
    pixels to their device.

    Attributes:
        tokenizer: of the teacher; its rows are `teacher_tokens`.
        scale: the teacher's logit scale, the factor itself.
        dim: length of its embeddings.
    """

    def __init__(self, path: str | Path, student: Preprocess):
        """Loads the folder.

        Args:
            path: a model folder with torch weights.
            student: how the pixels that come are normalised.

        Raises:
            ConfigError: the folder is incomplete, changed, or was exported without torch weights.
        """
        try:
            folder = open_model_folder(path)
            if not folder.has(WEIGHTS):
                raise ModelFolderError(f"{path}: holds no {WEIGHTS}; name the folder that training wrote")
            self._model: Any = load_torch_model(folder).requires_grad_(False)
            self._own = Preprocess.from_card(folder.card["preprocess"])
            self.tokenizer = Tokenizer.of_folder(folder)
        except ModelFolderError as error:
            raise ConfigError(f"teacher: {error}") from error
        self._student = student
        self.scale = float(self._model.logit_scale.exp().mean())
        self.dim = int(folder.card["embed_dim"])

    def __deepcopy__(self, _: Any) -> Teacher:
        """Itself: an average of the student's weights copies the task, and the teacher does not change."""
        return self

    @torch.no_grad()
    def __call__(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, float]:
        """What the teacher makes of a batch.

        Args:
            pixels: normalised for the student, float [n, 3, h, w], augmented as it sees them.
            tokens: int64 [n, length] by the teacher's tokenizer.

        Returns:
            L2-normalised image and text embeddings, each [n, d] without gradient, and the logit scale.
        """
        self._model.to(pixels.device)
        image = self._model.encode_image(self._as_own(pixels), normalize=True)
        text = self._model.encode_text(tokens, normalize=True)
        return image, text, self.scale

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


def _channels(preprocess: Preprocess, like: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = (like.new_tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    return mean, std
