"""The Encoder protocol on torch: the reference that the exported model is compared with."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pathclip.errors import ModelFolderError
from pathclip.model.towers import load_towers
from pathclip.model_folder import ModelFolder
from pathclip.runtime.preprocess import Preprocess
from pathclip.runtime.tokenizer import Tokenizer


def load_torch_model(folder: ModelFolder) -> nn.Module:
    """open_clip's `CLIP` or `CustomTextCLIP` of a model folder, in eval mode on the CPU."""
    return load_towers(folder).model.eval()


class TorchEncoder:
    """Encodes with torch in fp32 on the CPU; see `pathclip.runtime.encoder.Encoder`.

    It does not work in a forked child, as of `multiprocessing` with its method 'fork': the threads that
    torch computes with stay behind, and the child would wait for them for ever. There it raises
    ModelFolderError instead, unless torch has one thread only.
    """

    precision = "fp32"
    runtime = "torch"

    def __init__(self, folder: ModelFolder, threads: int | None = None):
        """Loads the folder's safetensors.

        Args:
            folder: a verified model folder.
            threads: for torch as a whole; its own choice if None.

        Raises:
            ModelFolderError: in a forked child, see above; and as `load_towers`.
        """
        global _opened
        _require_threads(folder)
        _opened = True
        if threads:
            torch.set_num_threads(threads)
        self.folder = folder
        self.name = str(folder.card.get("name", folder.path.name))
        self.preprocess = Preprocess.from_card(folder.card["preprocess"])
        self.logit_scale = float(folder.card["logit_scale"])
        self.dim = int(folder.card["embed_dim"])
        self._model: Any = load_torch_model(folder)
        self._tokenizer = Tokenizer.of_folder(folder)

    @torch.inference_mode()
    def encode_images(self, images: Any, batch_size: int = 32) -> NDArray[np.float32]:
        """Embeds PIL images or a uint8 array [n, h, w, 3]; returns L2-normalised float32 [n, d]."""
        _require_threads(self.folder)
        parts = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(images), batch_size):
            pixels = torch.from_numpy(self.preprocess.batch(images[start : start + batch_size]))
            parts.append(self._model.encode_image(pixels, normalize=True).numpy())
        return np.concatenate(parts)

    @torch.inference_mode()
    def encode_texts(self, texts: list[str], batch_size: int = 64) -> NDArray[np.float32]:
        """Embeds texts; returns L2-normalised float32 [n, d]."""
        _require_threads(self.folder)
        parts = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(texts), batch_size):
            tokens = torch.from_numpy(self._tokenizer(texts[start : start + batch_size]))
            parts.append(self._model.encode_text(tokens, normalize=True).numpy())
        return np.concatenate(parts)


_opened = False  # whether an encoder was opened here, or in the process that this one was forked from
_threads_left = False  # whether that process is another one


def _after_fork() -> None:
    global _threads_left
    _threads_left = _opened


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _require_threads(folder: ModelFolder) -> None:
    if _threads_left and torch.get_num_threads() > 1:
        raise ModelFolderError(
            f"{folder.path}: torch's threads do not outlive a fork, so this process cannot encode with it: "
            "start processes by 'spawn', or call torch.set_num_threads(1) in them first"
        )
