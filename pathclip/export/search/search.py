"""The recipe search of one tower: a few stages, each of which varies one thing about the best recipe so far.

Every candidate is judged on the selection set (`objective`) and timed against fp32 (`speed`). The one taken
is the fastest of those nearly as faithful as the best (`pareto.choose`), among those that cannot saturate on
CPUs without VNNI, if there are any; the held-out set of the gate has no part in it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pathclip.errors import PathclipError
from pathclip.export.calibration.samples import BATCH
from pathclip.export.gate.saturation import saturation
from pathclip.export.graphs.speed import time_in_turn
from pathclip.export.quantiser.quantize import Quantised
from pathclip.export.quantiser.recipe import Recipe
from pathclip.export.quantiser.tower import Tower
from pathclip.export.search.objective import Fidelity, Objective
from pathclip.export.search.pareto import best, choose, front
from pathclip.export.search.sensitivity import Sensitivity, sensitivities
from pathclip.export.search.stages import Mode, stages

# Layers that may go back to fp32, one trial each, and trials without gain after which it ends.
MOST_RETURNED = {"quick": 4, "full": 16}
PATIENCE = 2


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate and what it came to.

    Attributes:
        stage: of the search.
        recipe: what was tried, without what has no hold on the tower.
        quantised: its int8 graph and the layers that stayed in fp32; the file is gone if others beat it.
        fidelity: on the selection set.
        speed: samples per second over those of fp32, onnxruntime, batch 16.
        size: bytes of the int8 file.
        unsafe: layers whose 16-bit sums can saturate on a CPU without VNNI.
    """

    stage: str
    recipe: Recipe
    quantised: Quantised
    fidelity: Fidelity
    speed: float
    size: int
    unsafe: int = 0

    @property
    def faithful(self) -> float:
        """Fidelity as one number."""
        return self.fidelity.value

    @property
    def safe(self) -> bool:
        """Whether no layer can saturate."""
        return not self.unsafe

    def describe(self) -> str:
        """The recipe in words, with the number of layers in fp32 and of those that can saturate."""
        kept = len(self.quantised.kept_fp32)
        said = self.recipe.describe() + (f", {_layers(kept)} in fp32" if kept else "")
        return said + (f", {_layers(self.unsafe)} unsafe without VNNI" if self.unsafe else "")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The trial that was taken, beside all others.

    Attributes:
        trials: in the order they were made.
        number: of the one taken.
        fp32: the graph it was made of; its nodes have the names of the int8 graph's.
        sensitivities: cost of each layer alone, the costliest first; empty where none was measured.
        layers: that there were to measure; more than `sensitivities` has if time was over before.
        failed: candidates that could not be made: recipe in words → why.
        seconds: that the search took.
    """

    trials: tuple[Trial, ...]
    number: int
    fp32: Path
    sensitivities: tuple[Sensitivity, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    layers: int = 0

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
    run.attempt("base", base)
    found: tuple[Sensitivity, ...] = ()
    layers = 0
    if mode:
        for stage, vary in stages(mode, run.operators):
            for recipe in vary(run.best.recipe):
                run.attempt(stage, recipe)
        if mode == "full" or run.best.fidelity.loss > tolerance:
            found, layers = _return_to_fp32(run, run.best, MOST_RETURNED[mode])
    number = choose(run.trials, tolerance)
    taken = run.trials[number].recipe
    spent = time.monotonic() - started
    return Chosen(tuple(run.trials), number, tower.graph(taken), found, run.failed, spent, layers)


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

    @property
    def best(self) -> Trial:
        """What the next stage starts from; it lies on the front, so its file is there."""
        return self.trials[best(self.trials)]

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
            self.tower.applied(recipe),
            made,
            self.objective.measure(self.tower.name, file),
            self._speed(file),
            file.stat().st_size,
            sum(not layer.safe for layer in saturation(file)),
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
            self._speeds[nodes] = time_in_turn(self.tower.fp32, file, feed).ratio
        return self._speeds[nodes]

    def _drop_beaten(self) -> None:
        """Frees the disk of candidates that can no longer be taken; a tower may have hundreds of MB."""
        alive = set(front(self.trials))
        for number, trial in enumerate(self.trials):
            if number not in alive:
                trial.quantised.file.unlink(missing_ok=True)


def _return_to_fp32(run: _Search, start: Trial, most: int) -> tuple[tuple[Sensitivity, ...], int]:
    """Puts the costliest layers back one after another, as long as the loss falls faster than the speed.

    A step is worth it if loss / speed falls: halving the loss may cost half the speed, and no more.
    """
    tower, last = run.tower, start
    samples = tower.selection.part(0, BATCH)
    recipe, file = start.recipe, start.quantised.file
    if recipe.quantizer == "nncf":
        # It smooths within its own graph, whose weights do not fit the fp32 one that single layers stand in.
        recipe = dataclasses.replace(recipe, quantizer="onnxruntime")
        file = tower.quantise(recipe, file.with_name(f"{tower.name}_for_sensitivity.onnx")).file
    found, layers = sensitivities(tower.graph(recipe), file, tower.name, samples, _middle(run.ends))
    among = f" of {len(found)} measured of {layers}" if len(found) < layers else ""
    kept: dict[str, str] = {}
    idle = 0
    for place, one in enumerate(found[:most]):
        step = kept | {one.name: f"sensitivity: costs {one.cost:.4f} of cosine alone, no. {place + 1}{among}"}
        trial = run.attempt("sensitive in fp32", start.recipe, step)
        if trial is None:
            break
        if trial.fidelity.loss / trial.speed < last.fidelity.loss / last.speed:
            last, kept, idle = trial, step, 0
            continue
        idle += 1
        if idle == PATIENCE:
            break
    return found, layers


def _middle(ends: float) -> float:
    """Half the time that is left: the other half is for trials with what was found."""
    now = time.monotonic()
    return ends if math.isinf(ends) else now + max(ends - now, 0.0) / 2


def _nodes(file: Path) -> tuple[str, ...]:
    import onnx

    return tuple(f"{node.op_type} {node.name}" for node in onnx.load(file).graph.node)


def _weighted(file: Path) -> tuple[str, ...]:
    from pathclip.export.graphs.qdq import Graph, quantised_layers

    return tuple(layer.node.op_type for layer in quantised_layers(Graph(file)))


def _layers(number: int) -> str:
    return "1 layer" if number == 1 else f"{number} layers"


def _say(tower: str, trial: Trial) -> None:
    figures = f"fidelity {trial.faithful:.4f}, {trial.speed:.2f} × fp32"
    print(f"{tower} tower, {trial.stage}: {trial.describe()}: {figures}", file=sys.stderr)
