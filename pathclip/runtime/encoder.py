"""The Encoder protocol, which everything downstream takes, and its onnxruntime implementation."""

from __future__ import annotations

import math
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import ModelFolderError
from pathclip.model_folder import WEIGHTS, ModelFolder
from pathclip.runtime.cores import available_cores
from pathclip.runtime.preprocess import Preprocess
from pathclip.runtime.tokenizer import Tokenizer
from pathclip.runtime.tower import OUTPUT, Tower, brief, check_names, verified_tower

if TYPE_CHECKING:
    from PIL import Image

Precision = Literal["fp32", "int8"]


@runtime_checkable
class Encoder(Protocol):
    """Pictures and texts to vectors of one space."""

    @property
    def name(self) -> str:
        """Of the model, as its card has it."""

    @property
    def folder(self) -> ModelFolder:
        """Where it came from; `folder.hash` names the weights."""

    @property
    def dim(self) -> int:
        """Length of an embedding."""

    @property
    def logit_scale(self) -> float:
        """Factor of the cosine similarity before a softmax (the factor itself, not its logarithm)."""

    @property
    def preprocess(self) -> Preprocess:
        """What turns a picture into the model's input."""

    @property
    def precision(self) -> str:
        """'fp32' or 'int8' (of OpenVINO in `pathclip bench` also 'bf16')."""

    @property
    def runtime(self) -> str:
        """'onnx', 'openvino' or 'torch'."""

    def encode_images(
        self, images: Sequence[Image.Image] | NDArray[np.uint8], batch_size: int = 32
    ) -> NDArray[np.float32]:
        """Images, or uint8 [n, h, w, 3], to L2-normalised float32 [n, dim]."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts to L2-normalised float32 [n, dim]."""


class TowerEncoder(ABC):
    """Runs the folder's ONNX towers on the CPU. Each tower is verified and loaded when first used.

    Several threads may use one encoder at once, from the first call on. After `os.fork`, as by
    `multiprocessing` with its method 'fork', the child loads the towers again at its first call: the
    threads of the parent's are not there. (A child that you fork yourself must end by `os._exit`, as those
    of `multiprocessing` do: with onnxruntime imported it hangs on any other way out.) Embeddings do not
    depend on what else is in a batch, up to 1e-4 and mostly not at all.

    Args:
        folder: an open model folder.
        precision: 'int8' or 'fp32', of the image tower. With 'int8' the text tower is int8 too, or
            fp32 where the folder has only that.
        threads: of one matrix product; by default the physical cores that the process may use.

    Raises:
        ModelFolderError: the folder lacks the precision, or the card's logit_scale or preprocess is
            malformed.
    """

    runtime: str
    library: str  # as messages call it

    def __init__(
        self, folder: ModelFolder, precision: Precision = "int8", threads: int | None = None
    ) -> None:
        self.folder = folder
        self.precision: str = precision
        self._files = {
            "pixels": _choose(folder, "image", [precision]),
            "tokens": _choose(folder, "text", ["int8", "fp32"] if precision == "int8" else ["fp32"]),
        }
        self._threads = threads or available_cores()
        self.name = str(folder.card.get("name", folder.path.name))
        self.dim = int(folder.card["embed_dim"])
        self.logit_scale = _logit_scale(folder)
        self.preprocess = Preprocess.from_card(folder.card.get("preprocess") or {})
        self._context_length = int(folder.card["context_length"])
        self._start_afresh()
        _living.add(self)

    def encode_images(
        self, images: Sequence[Image.Image] | NDArray[np.uint8], batch_size: int = 32
    ) -> NDArray[np.float32]:
        """Images, or uint8 [n, h, w, 3], to L2-normalised float32 [n, dim].

        Raises:
            ModelFolderError: the tower was changed, keeps weights in another file, cannot be loaded, or
                does not give [n, dim].
            DataError: a picture is too thin; see `Preprocess.pixels`.
        """
        parts = [
            self._run("pixels", self.preprocess.batch(images[start : start + batch_size]))
            for start in range(0, len(images), batch_size)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), np.float32)

    def encode_texts(self, texts: Sequence[str], batch_size: int = 64) -> NDArray[np.float32]:
        """Texts to L2-normalised float32 [n, dim]; raises ModelFolderError as `encode_images`."""
        tokens = self._tokens(texts) if texts else np.zeros((0, self._context_length), np.int64)
        parts = [
            self._run("tokens", tokens[start : start + batch_size])
            for start in range(0, len(tokens), batch_size)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), np.float32)

    @abstractmethod
    def _open(self, listed: str, name: str) -> Tower:
        """Verifies and loads a tower; raises ModelFolderError where it cannot.

        Args:
            listed: its file, as the card lists it.
            name: of its input.
        """

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._towers: dict[str, Tower] = {}
        self._tokenizer: Tokenizer | None = None

    def _tower(self, name: str) -> Tower:
        if name not in self._towers:
            with self._lock:
                if name not in self._towers:
                    self._towers[name] = self._open(self._files[name], name)
        return self._towers[name]

    def _tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = Tokenizer.of_folder(self.folder)
        return self._tokenizer(texts)

    def _run(self, name: str, values: NDArray[Any]) -> NDArray[np.float32]:
        tower = self._tower(name)
        try:
            output = tower(values)
        except Exception as error:  # the runtimes' exceptions share no base class but this
            raise ModelFolderError(f"{self.folder.path}: {self.library} failed: {brief(error)}") from error
        if output.shape != (len(values), self.dim):
            raise ModelFolderError(
                f"{self.folder.path}: the tower for '{name}' gives {list(output.shape)}, "
                f"the card says [{len(values)}, {self.dim}]"
            )
        if not np.isfinite(output).all():
            raise ModelFolderError(f"{self.folder.path}: the tower for '{name}' gives infinite values")
        return normalise(output)


class OnnxEncoder(TowerEncoder):
    """Runs the towers in onnxruntime; see `TowerEncoder`."""

    runtime = "onnx"
    library = "onnxruntime"

    def _open(self, listed: str, name: str) -> Tower:
        import onnxruntime

        # By its path: bytes would be held twice, 140 MB more at the peak for a ViT-B/32.
        file = verified_tower(self.folder, listed)
        onnxruntime.set_default_logger_severity(3)  # its warnings on graph optimisation are no news to a user
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        # Threads that wait spin by default: on a busy two-core machine that cost a third of the speed, and a
        # cold start half as much processor time again.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no base class but this
            raise ModelFolderError(f"{file}: onnxruntime cannot load it: {brief(error)}") from error
        inputs = [given.name for given in session.get_inputs()]
        check_names(file, name, inputs, [given.name for given in session.get_outputs()])

        def tower(values: NDArray[Any]) -> NDArray[Any]:
            return session.run([OUTPUT], {name: values})[0]

        return tower


# Encoders whose towers a forked child must load again.
_living: weakref.WeakSet[TowerEncoder] = weakref.WeakSet()


def _after_fork() -> None:
    """In the child: a tower's threads are not there, and so it can neither be run nor be closed."""
    import ctypes

    for encoder in list(_living):
        for tower in encoder._towers.values():
            # One reference more than there are, so that it is never closed: that would wait for its threads.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(tower))
        encoder._start_afresh()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def normalise(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Rows [..., d] divided by their L2 norm; a zero row stays zero."""
    vectors = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(norms, np.float32(1e-12))


def available_precisions(folder: ModelFolder) -> list[str]:
    """The precisions of the folder's ONNX image towers, the smaller first."""
    return [precision for precision in ("int8", "fp32") if folder.has(f"onnx/image_{precision}.onnx")]


def _choose(folder: ModelFolder, tower: str, precisions: Sequence[str]) -> str:
    for precision in precisions:
        if folder.has(name := f"onnx/{tower}_{precision}.onnx"):
            return name
    found = sorted(Path(name).name for name in folder.card["files"] if name.startswith("onnx/"))
    # Only what has weights of torch can be exported.
    named = folder.path if folder.has(WEIGHTS) else "the-trained-folder"
    raise ModelFolderError(
        f"{folder.path}: no {tower} tower in {' or '.join(precisions)}; "
        f"it has {', '.join(found) or 'no ONNX'}. "
        f"To make one: pathclip export model={named} out={folder.path.name}-int8"
        f"{' keep_fp32=true' if 'int8' not in precisions else ''}"
    )


def _logit_scale(folder: ModelFolder) -> float:
    value: Any = folder.card.get("logit_scale")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        raise ModelFolderError(f"{folder.path}: the card's logit_scale must be a number, not {value!r}")
    return float(value)
