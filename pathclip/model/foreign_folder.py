"""Describes dual encoders that open_clip saved, or transformers as CLIPModel or SiglipModel.

Read are JSON, text and safetensors; a folder that has its weights as a pickle only is left to
`pathclip import`, and a config that asks for code or for files from elsewhere is refused. No hub is asked,
and torch is not needed here.
"""

from __future__ import annotations

from pathlib import Path

from pathclip.errors import ModelFolderError
from pathclip.model.foreign_open_clip import OPEN_CLIP, describe_open_clip, open_clip_weights
from pathclip.model.foreign_transformers import TRANSFORMERS, describe_transformers, transformers_weights
from pathclip.model.foreign_types import ForeignFolder, TextRules
from pathclip.model_folder import CARD, hint_of_model

__all__ = ["ForeignFolder", "TextRules", "open_foreign_folder", "weight_files"]


def open_foreign_folder(path: str | Path, pickles: bool = False) -> ForeignFolder:
    """Describes a folder of open_clip or of transformers' CLIPModel or SiglipModel.

    Args:
        path: the folder.
        pickles: describe one that has its weights as a pickle only, too.

    Raises:
        ModelFolderError: no such folder, neither of the two, weights as a pickle only, a missing file, or a
            config that is malformed, asks for code, or cannot be expressed; in one line, with the file.
    """
    path = Path(path)
    if not path.is_dir():
        raise ModelFolderError(f"{path}: no such folder; a model is a folder with a {CARD} in it")
    if (path / OPEN_CLIP).is_file():
        return describe_open_clip(path, pickles)
    if (path / TRANSFORMERS).is_file():
        return describe_transformers(path, pickles)
    raise ModelFolderError(
        f"{path}: no model folder: neither {CARD} (pathclip) nor {OPEN_CLIP} (open_clip) nor {TRANSFORMERS} "
        f"(transformers' CLIPModel, SiglipModel) is in it.{hint_of_model(path)}"
    )


def weight_files(path: Path, pickles: bool = False) -> tuple[str, ...]:
    """The files of weights of such a folder by their names alone; nothing but a list of parts is read.

    Raises:
        ModelFolderError: it has none, or a pickle only where these are not allowed.
    """
    if (path / OPEN_CLIP).is_file():
        return (open_clip_weights(path, pickles),)
    return transformers_weights(path, pickles)
