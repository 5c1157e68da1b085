"""Which encoders a run measures: every precision that the model folder holds, and the untrained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import pathclip
from pathclip.errors import ConfigError, ModelFolderError
from pathclip.evaluate.leaks import seen_pictures
from pathclip.model_folder import CARD, WEIGHTS, ModelFolder, open_model_folder
from pathclip.runtime.encoder import Encoder, available_precisions
from pathclip.train.training_pictures import TrainingPictures, no_pictures

Role = Literal["model", "untrained"]


@dataclass(frozen=True, slots=True)
class Subject:
    """One encoder to measure.

    Attributes:
        role: 'model', or 'untrained' for the one it is compared with.
        encoder: what encodes.
        model_hash: names the weights; see `ModelFolder.hash`.
        seen: hashes of the pictures it was trained on; None if they are not known.
    """

    role: Role
    encoder: Encoder
    model_hash: str = ""
    seen: TrainingPictures | None = None

    @property
    def key(self) -> str:
        """'model int8', 'untrained fp32' …: unique in a run."""
        return f"{self.role} {self.encoder.precision}"

    @property
    def title(self) -> str:
        """For people: the model's own name, its precision and runtime."""
        name = self.encoder.name
        if self.role == "untrained" and "untrained" not in name:
            name += ", untrained"
        return f"{name} ({self.encoder.precision}, {self.encoder.runtime})"


def load_subjects(
    folder: str, runtime: str = "auto", precision: str = "all", untrained: str | None = None
) -> list[Subject]:
    """Loads the encoders of a run.

    Args:
        folder: a model folder of pathclip, or one of open_clip or of transformers' CLIPModel, which run by
            torch in fp32.
        runtime: 'onnx', 'openvino', 'torch', or 'auto': int8 by onnxruntime, fp32 by it too where the folder
            has ONNX in fp32, else by torch.
        precision: 'int8', 'fp32', or 'all' that the folder holds.
        untrained: folder of the model before training, measured in fp32 where it has that. Unless it lists
            pictures that it was trained on, or its card names a training, it counts as having seen none.

    Returns:
        int8 before fp32, the untrained model last.

    Raises:
        ModelFolderError: no model folder, a changed file, or it lacks the precision or runtime.
        ConfigError: an unknown runtime or precision.
    """
    for name, value, known in (
        ("runtime", runtime, ("auto", "onnx", "openvino", "torch")),
        ("precision", precision, ("all", "int8", "fp32")),
    ):
        if value not in known:
            raise ConfigError(f"{name}: '{value}' is none of {', '.join(known)}")
    subjects = _load(folder, "model", runtime, precision)
    return subjects + (_load(untrained, "untrained", runtime, "all")[-1:] if untrained else [])


def _load(path: str, role: Role, runtime: str, precision: str) -> list[Subject]:
    if not (Path(path) / CARD).is_file():
        return [_foreign(path, role, runtime, precision)]
    folder = open_model_folder(path, verify=False)
    precisions: Sequence[str] = [precision] if precision != "all" else _held(folder, runtime)
    seen = seen_pictures(folder)
    if seen is None and role == "untrained" and not folder.card.get("training"):
        seen = no_pictures()
    return [
        Subject(
            role,
            pathclip.load(path, runtime=_runtime(folder, runtime, one), precision=one),  # type: ignore[arg-type]
            folder.hash,
            seen,
        )
        for one in precisions
    ]


def _foreign(path: str, role: Role, runtime: str, precision: str) -> Subject:
    """What another library saved; which pictures it was trained on is not known."""
    if find_spec("torch") is None:
        open_model_folder(path)  # which says what is missing
    from pathclip.model.foreign_folder import open_foreign_folder

    described = open_foreign_folder(path)
    if runtime in ("onnx", "openvino") or precision == "int8":
        raise ModelFolderError(
            f"{path}: saved by {described.kind}, so it runs by torch in fp32 only, not in another "
            "runtime or precision"
        )
    from pathclip.model.foreign_encoder import ForeignEncoder

    encoder = ForeignEncoder(described)
    return Subject(role, encoder, encoder.folder.hash, no_pictures() if role == "untrained" else None)


def _held(folder: ModelFolder, runtime: str) -> list[str]:
    """Precisions that can run here; at least one, so that `pathclip.load` says what is missing."""
    onnx: list[str] = [] if runtime == "torch" else list(available_precisions(folder))
    torch = runtime in ("auto", "torch") and folder.has(WEIGHTS) and find_spec("torch") is not None
    held: list[str] = [one for one in ("int8", "fp32") if one in onnx or (one == "fp32" and torch)]
    return held or ["fp32"]


def _runtime(folder: ModelFolder, runtime: str, precision: str) -> str:
    if runtime != "auto":
        return runtime
    if precision in available_precisions(folder) or not folder.has(WEIGHTS):
        return "onnx"
    return "torch" if precision == "fp32" else "onnx"
