"""The Encoder protocol, which everything downstream takes, and its onnxruntime implementation."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import ModelFolderError
from pathclip.model_folder import ModelFolder
from pathclip.runtime.cores import available_cores
from pathclip.runtime.preprocess import Preprocess
from pathclip.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from PIL import Image

Precision = Literal["fp32", "int8"]
# Eight as a protobuf varint, which may be written with idle bytes.
_LENGTH_OF_LOCATION = re.compile(rb"(?:\x08|\x88\x80*\x00)\Z")


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
        """'fp32' or 'int8'."""

    @property
    def runtime(self) -> str:
        """'onnx' or 'torch'."""

    def encode_images(
        self, images: Sequence[Image.Image] | NDArray[np.uint8], batch_size: int = 32
    ) -> NDArray[np.float32]:
        """Images, or uint8 [n, h, w, 3], to L2-normalised float32 [n, dim]."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts to L2-normalised float32 [n, dim]."""


class OnnxEncoder:
    """Runs the folder's ONNX towers on the CPU. Each tower is verified and loaded when first used.

    Args:
        folder: an open model folder.
        precision: 'int8' or 'fp32', of the image tower. With 'int8' the text tower is int8 too, or
            fp32 where the folder has only that.
        threads: of one matrix product; by default the physical cores that the process may use.

    Raises:
        ModelFolderError: the folder lacks the precision, or the card's logit_scale or preprocess is
            malformed.
    """

    runtime = "onnx"

    def __init__(
        self, folder: ModelFolder, precision: Precision = "int8", threads: int | None = None
    ) -> None:
        self.folder = folder
        self.precision: str = precision
        self._image_file = _choose(folder, "image", [precision])
        self._text_file = _choose(folder, "text", ["int8", "fp32"] if precision == "int8" else ["fp32"])
        self._threads = threads or available_cores()
        self.name = str(folder.card.get("name", folder.path.name))
        self.dim = int(folder.card["embed_dim"])
        self.logit_scale = _logit_scale(folder)
        self.preprocess = Preprocess.from_card(folder.card.get("preprocess") or {})
        self._context_length = int(folder.card["context_length"])

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
            self._run(
                self._image_session, "pixels", self.preprocess.batch(images[start : start + batch_size])
            )
            for start in range(0, len(images), batch_size)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), np.float32)

    def encode_texts(self, texts: Sequence[str], batch_size: int = 64) -> NDArray[np.float32]:
        """Texts to L2-normalised float32 [n, dim]; raises ModelFolderError as `encode_images`."""
        tokens = self._tokenizer(texts) if texts else np.zeros((0, self._context_length), np.int64)
        parts = [
            self._run(self._text_session, "tokens", tokens[start : start + batch_size])
            for start in range(0, len(tokens), batch_size)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), np.float32)

    @cached_property
    def _image_session(self) -> Any:
        return _session(self.folder.verified(self._image_file), self._threads, "pixels")

    @cached_property
    def _text_session(self) -> Any:
        return _session(self.folder.verified(self._text_file), self._threads, "tokens")

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.of_folder(self.folder)

    def _run(self, session: Any, name: str, values: NDArray[Any]) -> NDArray[np.float32]:
        try:
            (output,) = session.run(["embedding"], {name: values})
        except Exception as error:  # onnxruntime's exceptions share no base class but this
            raise ModelFolderError(f"{self.folder.path}: onnxruntime failed: {_brief(error)}") from error
        if output.shape != (len(values), self.dim):
            raise ModelFolderError(
                f"{self.folder.path}: the tower for '{name}' gives {list(output.shape)}, "
                f"the card says [{len(values)}, {self.dim}]"
            )
        if not np.isfinite(output).all():
            raise ModelFolderError(f"{self.folder.path}: the tower for '{name}' gives infinite values")
        return normalise(output)


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
    raise ModelFolderError(
        f"{folder.path}: no {tower} tower in {' or '.join(precisions)}; "
        f"it has {', '.join(found) or 'no ONNX'}. "
        f"To make one: pathclip export model={folder.path} out={folder.path.name}-int8"
        f"{' keep_fp32=true' if 'int8' not in precisions else ''}"
    )


def _logit_scale(folder: ModelFolder) -> float:
    value: Any = folder.card.get("logit_scale")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        raise ModelFolderError(f"{folder.path}: the card's logit_scale must be a number, not {value!r}")
    return float(value)


def _has_external_data(content: bytes) -> bool:
    """Whether a tensor of an ONNX file takes its values from another file, which no hash would cover.

    Such a tensor names the file under the key "location", and protobuf writes a string's length before
    it; so the bytes tell without a parser. onnxruntime would follow the name: from the folder of the
    model or, for a model handed over as bytes, from the working directory.
    """
    found = content.find(b"location")
    while found >= 0:
        if _LENGTH_OF_LOCATION.search(content, max(0, found - 10), found):
            return True
        found = content.find(b"location", found + 1)
    return False


def _session(file: Path, threads: int, name: str) -> Any:
    import onnxruntime

    if _has_external_data(file.read_bytes()):
        raise ModelFolderError(
            f"{file}: its weights lie in another file (ONNX external data), refused; save it as one file"
        )
    onnxruntime.set_default_logger_severity(3)  # its warnings on graph optimisation are no news to a user
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait spin by default: on a busy two-core machine that cost a third of the speed, and a
    # cold start half as much processor time again.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class but this
        raise ModelFolderError(f"{file}: onnxruntime cannot load it: {_brief(error)}") from error
    inputs = [given.name for given in session.get_inputs()]
    outputs = [given.name for given in session.get_outputs()]
    if inputs != [name] or "embedding" not in outputs:
        raise ModelFolderError(f"{file}: expected '{name}' to 'embedding', found {inputs} to {outputs}")
    return session


def _brief(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
