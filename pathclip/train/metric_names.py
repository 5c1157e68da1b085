"""The figures of a validation by name: which there are, and whether less of one is better."""

from __future__ import annotations

from typing import Literal

from pathclip.config import nearest
from pathclip.errors import ConfigError

Mode = Literal["max", "min"]

RANKS = (1, 5, 10)
VALIDATION = (
    "val/loss",
    *(f"val/text_to_image_recall@{k}" for k in RANKS),
    *(f"val/image_to_text_recall@{k}" for k in RANKS),
    "val/zero_shot_balanced_accuracy",
)


def better(name: str, mode: Mode | None = None) -> Mode:
    """The given mode; where there is none, 'min' for a loss and 'max' for anything else."""
    return mode or ("min" if "loss" in name else "max")


def require_known(key: str, name: str) -> None:
    """Refuses a name that no validation logs, before the run and not after its first epoch.

    Raises:
        ConfigError: with the nearest name.
    """
    if name not in VALIDATION:
        raise ConfigError(f"{key}={name}: no figure of the validation.{nearest(name, VALIDATION)}")
