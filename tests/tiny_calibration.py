"""What is fitted for three classes of the tiny model, and how it gets into a card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pathclip.model_folder import open_model_folder, update_card
from pathclip.runtime.calibration import Calibrated

FITTED = Calibrated(
    task="colours",
    precision="int8",
    classes={"warm": ("red", "white"), "cold": ("blue",), "other": ("green",)},
    templates=("{}", "an image of {}"),
    logit_scale=5.0,
    none_threshold=0.25,
    conformal_method="lac",
    conformal_threshold=0.7,
    coverage=0.9,
    known_pass=0.95,
    n=120,
    groups=40,
    model_hash="",
    data_hash="abc",
    code_version="0.1.0",
)


def entry(path: Path, **changes: Any) -> dict[str, Any]:
    """The card's entry, for the weights of the folder."""
    return {**FITTED.entry(), "model_hash": open_model_folder(path).hash, **changes}


def write(path: Path, calibration: Any) -> Path:
    """Sets the card's `calibration`."""
    update_card(path, calibration=calibration)
    return path
