"""The recipe search of one tower: a few stages, each of which varies one thing about the best recipe so far.

Every candidate is judged on the selection set (`objective`) and timed against fp32 (`speed`). The one taken
is the fastest of those nearly as faithful as the best (`pareto.choose`); the held-out set of the gate has no
part in it.
"""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pathclip.errors import PathclipError
from pathclip.export.objective import Fidelity, Objective
from pathclip.export.pareto import choose, front
from pathclip.export.quantize import Quantised
from pathclip.export.recipe import Recipe
from pathclip.export.samples import BATCH
from pathclip.export.sensitivity import Sensitivity, sensitivities
from pathclip.export.speed import speed_ratio
from pathclip.export.stages import Mode, stages
from pathclip.export.tower import Tower

# Layers that may go back to fp32, one trial each, and trials without gain after which it ends.
MOST_RETURNED = {"quick": 4, "full": 16}
PATIENCE = 2


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate and what it came to.

    Attributes:
        stage: of the search.
        recipe: what was tried.
        quantised: its int8 graph and the layers that stayed in fp32; the file is gone if others beat it.
        fidelity: on the selection set.
        speed: samples per second over those of fp32, onnxruntime, batch 16.
        size: bytes of the int8 file.
    """

    stage: str
    recipe: Recipe
    quantised: Quantised
    fidelity: Fidelity
    speed: float
    size: int

    @property
    def faithful(self) -> float:
        """Fidelity as one number."""
        return self.fidelity.value

    def describe(self) -> str:
        """The recipe in words, with the number of layers in fp32."""
        kept = len(self.quantised.kept_fp32)
        layers = "1 layer" if kept == 1 else f"{kept} layers"
        return self.recipe.describe() + (f", {layers} in fp32" if kept else "")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The trial that was taken, beside all others.

    Attributes:
        trials: in the order they were made.
        number: of the one taken.
        fp32: the graph it was made of; its nodes have the names of the int8 graph's.
        sensitivities: cost of each layer alone, the costliest first; empty where none was measured.
        failed: candidates that could not be made: recipe in words → why.
        seconds: that the search took.
    """

    trials: tuple[Trial, ...]
    number: int
    fp32: Path
    sensitivities: tuple[Sensitivity, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def trial(self) -> Trial:
        """The one taken."""
        return self.trials[self.number]

    @property
    def quantised(self) -> Quantised:
        """Its int8 graph."""
        return self.trial.quantised

    @property
    def recipe(self) -> Recipe:
        """Its recipe."""
        return self.trial.recipe

    def front(self) -> list[int]:
        """Numbers of the trials on the Pareto front."""
        return front(self.trials)


def search(
    tower: Tower,
    objective: Objective,
    base: Recipe,
    mode: Mode | None = None,
    tolerance: float = 0.0,
    seconds: float = math.inf,
) -> Chosen:
    """Tries recipes on a tower and takes one.

    Args:
        tower: what is quantised.
        objective: what candidates are judged by.
        base: tried first; what others are variations of.
        mode: how many variations: None for none, 'quick' for a handful, 'full' for all that is known.
        tolerance: fidelity that may be given up for speed; in 'quick', where the best one loses no more
            than this, no layer's sensitivity is measured.
        seconds: no candidate is begun after this.

    Raises:
        PathclipError: the base recipe cannot be made.
    """
    started = time.monotonic()
    run = _Search(tower, objective, started + seconds)
    best = run.attempt("base", base)
    assert best is not None, "the first candidate is always made"
    found: tuple[Sensitivity, ...] = ()
    if mode:
        for stage, vary in stages(mode, run.operators):
            for recipe in vary(best.recipe):
                trial = run.attempt(stage, recipe)
                if trial is not None and trial.faithful > best.faithful:
                    best = trial
        if mode == "full" or best.fidelity.loss > tolerance:
            found = _return_to_fp32(run, best, MOST_RETURNED[mode])
    number = choose(run.trials, tolerance)
    taken = run.trials[number].recipe
    spent = time.monotonic() - started
    return Chosen(tuple(run.trials), number, tower.graph(taken), found, run.failed, spent)


class _Search:
    """The trials so far, and what they have in common."""

    def __init__(self, tower: Tower, objective: Objective, ends: float) -> None:
        self.tower = tower
        self.objective = objective
        self.ends = ends
        self.trials: list[Trial] = []
        self.failed: dict[str, str] = {}
        self.operators: tuple[str, ...] = ()
        self._tried: set[tuple[str, tuple[str, ...]]] = set()
        self._made: set[str] = set()
        self._speeds: dict[tuple[str, ...], float] = {}

    def attempt(self, stage: str, recipe: Recipe, keep: Mapping[str, str] | None = None) -> Trial | None:
        """Makes and judges a candidate; None if time is over, it was tried before or cannot be made."""
        known = (repr(recipe), tuple(keep or ()))
        if known in self._tried or (self.trials and time.monotonic() > self.ends):
            return None
        self._tried.add(known)
        file = self.tower.work / f"{self.tower.name}_trial_{len(self._tried)}.onnx"
        try:
            made = self.tower.quantise(recipe, file, dict(keep or {}))
        except PathclipError as error:
            if not self.trials:
                raise
            self.failed[recipe.describe()] = str(error)
            return None
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if digest in self._made:  # what was varied has no hold on this tower
            file.unlink()
            return None
        self._made.add(digest)
        trial = Trial(
            stage,
            recipe,
            made,
            self.objective.measure(self.tower.name, file),
            self._speed(file),
            file.stat().st_size,
        )
        self.trials.append(trial)
        self._drop_beaten()
        _say(self.tower.name, trial)
        return trial

    def _speed(self, file: Path) -> float:
        """Timed once for all graphs of the same nodes: other constants make them no faster."""
        nodes = _nodes(file)
        self.operators = self.operators or _weighted(file)
        if nodes not in self._speeds:
            feed = next(self.tower.selection.part(0, BATCH).feeds(self.tower.name))
            self._speeds[nodes] = speed_ratio(self.tower.fp32, file, feed)
        return self._speeds[nodes]

    def _drop_beaten(self) -> None:
        """Frees the disk of candidates that can no longer be taken; a tower may have hundreds of MB."""
        alive = set(front(self.trials))
        for number, trial in enumerate(self.trials):
            if number not in alive:
                trial.quantised.file.unlink(missing_ok=True)


def _return_to_fp32(run: _Search, best: Trial, most: int) -> tuple[Sensitivity, ...]:
    """Puts the costliest layers back one after another, as long as the loss falls faster than the speed.

    A step is worth it if loss / speed falls: halving the loss may cost half the speed, and no more.
    """
    tower = run.tower
    samples = tower.selection.part(0, BATCH)
    found = sensitivities(
        tower.graph(best.recipe), best.quantised.file, tower.name, samples, _middle(run.ends)
    )
    kept: dict[str, str] = {}
    idle = 0
    for place, one in enumerate(found[:most]):
        step = kept | {one.name: f"sensitivity: costs {one.cost:.4f} of cosine alone, no. {place + 1}"}
        trial = run.attempt("sensitive in fp32", best.recipe, step)
        if trial is None:
            break
        if trial.fidelity.loss / trial.speed < best.fidelity.loss / best.speed:
            best, kept, idle = trial, step, 0
            continue
        idle += 1
        if idle == PATIENCE:
            break
    return found


def _middle(ends: float) -> float:
    """Half the time that is left: the other half is for trials with what was found."""
    now = time.monotonic()
    return ends if math.isinf(ends) else now + max(ends - now, 0.0) / 2


def _nodes(file: Path) -> tuple[str, ...]:
    import onnx

    return tuple(f"{node.op_type} {node.name}" for node in onnx.load(file).graph.node)


def _weighted(file: Path) -> tuple[str, ...]:
    from pathclip.export.qdq import Graph, quantised_layers

    return tuple(layer.node.op_type for layer in quantised_layers(Graph(file)))


def _say(tower: str, trial: Trial) -> None:
    figures = f"fidelity {trial.faithful:.4f}, {trial.speed:.2f} × fp32"
    print(f"{tower} tower, {trial.stage}: {trial.describe()}: {figures}", file=sys.stderr)
