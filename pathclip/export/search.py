"""Tries a few recipes on one tower and takes the one whose embeddings stay nearest to fp32."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pathclip.export.quantize import Quantised
from pathclip.export.recipe import Recipe
from pathclip.export.session import embed
from pathclip.export.tower import Tower
from pathclip.progress import track


@dataclass(frozen=True, slots=True)
class Trial:
    """One recipe and how near it stayed to fp32.

    Attributes:
        recipe: what was tried.
        cosine: mean cosine similarity to the fp32 embeddings of the selection samples.
        size: bytes of the int8 file.
    """

    recipe: Recipe
    cosine: float
    size: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """The best recipe of a tower.

    Attributes:
        quantised: its int8 file.
        recipe: the recipe.
        trials: everything that was tried, in order.
    """

    quantised: Quantised
    recipe: Recipe
    trials: tuple[Trial, ...]


def variants(recipe: Recipe) -> list[Recipe]:
    """The recipe itself and the same with the other ways to calibrate; these cost one second each."""
    others = [
        dataclasses.replace(recipe, calibration="mse"),
        dataclasses.replace(recipe, calibration="minmax"),
        dataclasses.replace(recipe, calibration="percentile"),
    ]
    return [recipe, *(other for other in others if other.calibration != recipe.calibration)]


def quantize_best(tower: Tower, file: Path, recipes: Sequence[Recipe]) -> Chosen:
    """Quantises a tower with each recipe; the highest mean cosine to fp32 wins.

    Ranges come from the tower's calibration samples, the choice is made on its selection samples, so that
    the held-out samples of the gate have seen neither.

    Args:
        tower: what is quantised.
        file: where the int8 file goes.
        recipes: candidates.
    """
    expected = embed(tower.fp32, tower.name, tower.selection)
    best: tuple[float, Recipe, Quantised] | None = None
    trials = []
    for place, recipe in enumerate(track(recipes, f"Quantising the {tower.name} tower")):
        made = tower.quantise(recipe, tower.work / f"{tower.name}_{place}.onnx")
        cosine = float((embed(made.file, tower.name, tower.selection) * expected).sum(axis=1).mean())
        trials.append(Trial(recipe, cosine, made.file.stat().st_size))
        if best is None or cosine > best[0]:
            best = (cosine, recipe, made)
    assert best is not None, "at least one recipe"
    shutil.copyfile(best[2].file, file)
    return Chosen(dataclasses.replace(best[2], file=file), best[1], tuple(trials))
