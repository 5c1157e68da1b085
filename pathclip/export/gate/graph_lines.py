"""Lines of the gate about the graphs themselves: size, integers, speed, what the runtime makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathclip.export.calibration.samples import Samples
from pathclip.export.gate.answers import joined
from pathclip.export.gate.reference import check_layers
from pathclip.export.gate.saturation import saturation
from pathclip.export.gate.verdict import ROUNDING, Line, at_most
from pathclip.export.graphs.session import embed
from pathclip.export.graphs.speed import EQUALLY_FAST, time_in_turn
from pathclip.runtime.cpu import cpu

RUNTIME_SAMPLES = 32
NAMED = 3  # layers that a note names
# Mean cosine to fp32 by which the graph as run may fall behind the graph as written and be called as near:
# two roundings of one network differ by about as much, to either side.
AS_NEAR = 0.0005


@dataclass(frozen=True, slots=True)
class Both:
    """Embeddings of the same samples by both precisions.

    Attributes:
        fp32: L2-normalised [n, d].
        int8: the same samples.
    """

    fp32: NDArray[np.float32]
    int8: NDArray[np.float32]


def speed_line(tower: str, fp32: Path, int8: Path, samples: Samples) -> Line:
    """Samples per second int8 over fp32 at batch 16, both timed in turn; for information only."""
    feed = next(samples.feeds(tower))
    speeds = time_in_turn(fp32, int8, feed)
    n = len(next(iter(feed.values())))
    note = f"{n / speeds.first:.0f} → {n / speeds.second:.0f} per second, onnxruntime on {cpu().name}"
    if speeds.ratio < 1 + EQUALLY_FAST:
        note += "; no faster here, the gain is size alone"
    return Line(f"{tower} speed, int8 / fp32", speeds.ratio, n=n, note=note)


def size_line(fp32: Mapping[str, Path], int8: Mapping[str, Path], limit: float) -> Line:
    """Bytes of the int8 towers over those of the fp32 ones."""
    before, after = (sum(file.stat().st_size for file in files.values()) for files in (fp32, int8))
    note = f"{before / 1e6:.1f} MB → {after / 1e6:.1f} MB"
    return at_most("size, int8 / fp32", after / before, limit, note=note)


def saturation_line(tower: str, int8: Path, limit: float) -> Line:
    """Layers whose weights saturate on CPUs without VNNI, whatever this machine has."""
    name = f"{tower} layers that saturate without VNNI"
    layers = saturation(int8)
    if not layers:
        return Line(name, None, note="no layer runs in integers")
    unsafe = [layer for layer in layers if not layer.safe]
    note = f"of {len(layers)} layers that run in integers"
    if unsafe:
        worst = max(layer.worst for layer in unsafe)
        named = ", ".join(layer.name for layer in unsafe[:NAMED]) + (", …" if len(unsafe) > NAMED else "")
        note += (
            f": {named}; two products may add up to {worst}, over 32767, and CPUs without VNNI cut that off "
            "silently: take recipe.weight_bits=7"
        )
        if any(layer.rewritten for layer in unsafe):
            note += "; onnxruntime quantises some that the file keeps in fp32"
    return at_most(name, float(len(unsafe)), limit, len(layers), note)


def reference_line(tower: str, int8: Path, held_out: Samples, limit: float) -> Line:
    """Quantised layers as this machine's onnxruntime computes them, beside exact integers."""
    name = f"{tower} outputs off the integer reference"
    checks = check_layers(int8, tower, held_out)
    outputs = sum(check.outputs for check in checks)
    if not outputs:
        return Line(name, None, note="no layer runs in integers")
    wrong = [check for check in checks if check.differ]
    note = f"{len(checks)} layers, {outputs} outputs, largest difference "
    note += f"{max(check.largest for check in checks):.3g} steps"
    if wrong:
        note += ": " + ", ".join(check.name for check in wrong[:NAMED])
    return at_most(name, sum(check.differ for check in wrong) / outputs, limit, outputs, note)


def runtime_line(tower: str, int8: Path, held_out: Samples, rows: Both, limit: float) -> Line:
    """The graph as onnxruntime rewrites and fuses it, beside the graph as it is written.

    onnxruntime's optimiser quantises float weights that stand between quantised tensors, per tensor and
    with 8 bits (its WeightBiasQuantization), so a layer kept in fp32 may not be in fp32 when it runs. What is
    left where all is well are values that lie on the border of two steps and fall to either side.

    Args:
        tower: 'image' or 'text'.
        int8: its ONNX file.
        held_out: pairs; the first 32 are run again as written.
        rows: the embeddings of the held-out pairs by both precisions, as run.
        limit: of the mean cosine similarity; see `as_written_line`.
    """
    few = held_out.part(0, RUNTIME_SAMPLES)
    written = embed(int8, tower, few, optimise=False)
    name = f"{tower} cosine to the graph as written"
    return as_written_line(name, rows.int8[: len(few)], written, rows.fp32[: len(few)], limit)


def as_written_line(
    name: str,
    run: NDArray[np.float32],
    written: NDArray[np.float32],
    exact: NDArray[np.float32],
    limit: float,
) -> Line:
    """Whether the graph as run is the graph as written, or another rounding of it that is as good.

    Over a deep network two correct roundings part: each value on the border of two steps falls to one side,
    and what follows from it spreads. So a mean cosine below the limit passes where the graph as run is, but
    for 0.0005 of mean cosine, as near to fp32 as the graph as written; a graph that was rewritten for the
    worse is not.

    Args:
        name: of the line.
        run: L2-normalised embeddings [n, d] of the graph as onnxruntime rewrites it.
        written: of the graph as it is written.
        exact: of fp32.
        limit: of the mean cosine of `run` to `written`.
    """
    cosine = (run * written).sum(axis=1)
    value, least = float(cosine.mean()), f"least {cosine.min():.4f}"
    if value >= limit - ROUNDING:
        return Line(name, value, limit, True, len(run), least)
    near, asked = (float((rows * exact).sum(axis=1).mean()) for rows in (run, written))
    against = f"({near:.4f} against {asked:.4f})"
    if near >= asked - AS_NEAR:
        why = f"two roundings of one network: as run it is no farther from fp32 {against}"
        return Line(name, value, limit, True, len(run), joined(least, why))
    return Line(
        name, value, limit, False, len(run), joined(least, f"as run it is farther from fp32 {against}")
    )
