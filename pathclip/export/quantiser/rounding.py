"""AdaRound: each weight is rounded up or down so that its layer's output changes least."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pathclip.export.quantiser.bias import Biases
from pathclip.export.quantiser.moments import Feeds, second_moments
from pathclip.export.quantiser.prepare import attribute, constants, weighted
from pathclip.progress import track

ITERATIONS = 300
LEAST_ITERATIONS = 40
# Floating-point operations for all layers together: about two minutes of two cores.
BUDGET = 1.5e13
STEP = 0.3  # of Adam
PUSH = 0.2  # weight of the term that drives every rounding to 0 or 1


@dataclass(slots=True)
class AdaRound:
    """Rounds the weights of a QDQ graph (Nagel et al. 2020, arXiv:2004.10568), layer by layer.

    A layer's squared output error is Δw M Δwᵀ, with M the second moments of its fp32 input, so the samples
    are needed once and not in every step. Activation ranges have no part in it: what was found is kept
    and serves every recipe that rounds the same weights to the same scales.

    Attributes:
        graph: the fp32 graph.
        feeds: gives the calibration batches, anew at each call.
        bits: 7 or 8; 7 keeps integers within [-64, 64].
        centred: biases are corrected afterwards, where a layer has one.
    """

    graph: Path
    feeds: Feeds
    bits: int
    centred: bool
    _found: dict[str, np.ndarray] = field(default_factory=dict, init=False)

    def __call__(self, model: Any, quantised: Any) -> None:
        """Replaces the integer weights of `quantised` in place.

        Args:
            model: the fp32 graph, loaded.
            quantised: its QDQ graph.
        """
        from onnx import numpy_helper

        sources = _weight_sources(model, quantised)
        floats, integers = constants(model), constants(quantised)
        new = [node for node in weighted(model) if node.name in sources and node.name not in self._found]
        steps = iterations([_operations(node, floats) for node in new])
        biases = Biases(quantised)
        # A layer without a bias keeps its error's mean, which must then count.
        corrected = {node.name for node in quantised.graph.node if self.centred and biases.has(node)}
        layers = second_moments(self.graph, model, new, self.feeds, corrected)
        for node, moments in track(layers, "Rounding weights", total=len(new)):
            exact = numpy_helper.to_array(floats[node.input[1]]).astype(np.float32)
            source = sources[node.name]
            nearest = numpy_helper.to_array(integers[source.input[0]])
            ratio = exact / _steps(source, integers, exact.shape)
            groups = len(moments)
            rounded = adaround(
                as_rows(node, ratio, groups),
                as_rows(node, nearest, groups),
                moments,
                2 ** (self.bits - 1),
                steps,
            )
            self._found[node.name] = from_rows(node, rounded, exact.shape).astype(np.int8)
        for name, source in sources.items():
            tensor = integers[source.input[0]]
            tensor.CopyFrom(numpy_helper.from_array(self._found[name], tensor.name))


def adaround(
    ratio: np.ndarray, nearest: np.ndarray, moments: np.ndarray, limit: int, steps: int
) -> np.ndarray:
    """Integers near `ratio` with the least error e M eᵀ, e being what rounding changes.

    Args:
        ratio: weights over their step, float32 [groups, channels out, k].
        nearest: the same rounded to the nearest, within the limits; an output channel keeps it where the
            search found nothing better.
        moments: M, float32 [groups, k, k].
        limit: largest absolute integer; of 128 the largest is 127.
        steps: iterations of Adam.

    Returns:
        float32, of the shape of `ratio`.
    """
    import torch

    exact, plain = torch.from_numpy(ratio), torch.from_numpy(nearest.astype(np.float32))
    weight = torch.from_numpy(moments / max(float(np.einsum("gkk->gk", moments).mean()), 1e-30))
    high = min(limit, 127)
    floor = exact.floor().clamp(-high, high - 1)
    # h = clip(1.2 sigmoid(v) - 0.1, 0, 1) is what is added to the floor; it starts at the exact value.
    v = torch.logit(((exact - floor).clamp(0, 1) + 0.1) / 1.2).requires_grad_()
    adam = torch.optim.Adam([v], lr=STEP)
    for step in range(steps):
        with torch.no_grad():
            soft = torch.sigmoid(v)
            h = (1.2 * soft - 0.1).clamp(0, 1)
            slope = 2 * (floor + h - exact) @ weight
            if step >= steps // 5:
                # Of 1 - |2h - 1|^b; b falls, so that at last every h is near 0 or 1.
                b = 20 - 18 * (step / steps - 0.2) / 0.8
                away = 2 * h - 1
                slope -= PUSH * 2 * b * away.abs() ** (b - 1) * away.sign()
            v.grad = slope * 1.2 * soft * (1 - soft)
        adam.step()
    with torch.no_grad():
        rounded = floor + (v > 0)
        better = _error(rounded - exact, weight) < _error(plain - exact, weight)
        return np.asarray(torch.where(better[..., None], rounded, plain).numpy())


def iterations(operations: list[float]) -> int:
    """Steps that a tower's layers get, so that all of them together stay within `BUDGET`.

    Args:
        operations: of one step, for each layer.
    """
    return int(np.clip(BUDGET / max(sum(operations), 1.0), LEAST_ITERATIONS, ITERATIONS))


def as_rows(node: Any, weight: np.ndarray, groups: int) -> np.ndarray:
    """A layer's weight as [groups, channels out per group, k]."""
    if node.op_type != "Conv" and not attribute(node, "transB", 0):
        weight = weight.T
    return np.ascontiguousarray(weight.reshape(groups, weight.shape[0] // groups, -1))


def from_rows(node: Any, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The opposite of `as_rows`."""
    if node.op_type != "Conv" and not attribute(node, "transB", 0):
        return np.ascontiguousarray(rows.reshape(shape[::-1]).T)
    return rows.reshape(shape)


def _error(change: Any, weight: Any) -> Any:
    return ((change @ weight) * change).sum(dim=-1)


def _operations(node: Any, known: Any) -> float:
    dims = list(known[node.input[1]].dims)
    per_channel = (
        np.prod(dims[1:]) if node.op_type == "Conv" else dims[0 if not attribute(node, "transB", 0) else 1]
    )
    return 2.0 * float(np.prod(dims)) * float(per_channel)


def _weight_sources(model: Any, quantised: Any) -> dict[str, Any]:
    """Node name → the DequantizeLinear of its constant int8 matrix or filters."""
    known = constants(quantised)
    writers = {name: node for node in quantised.graph.node for name in node.output}
    names = {node.name for node in weighted(model)}
    sources = {}
    for node in quantised.graph.node:
        source = writers.get(node.input[1]) if node.name in names else None
        if source is None or source.op_type != "DequantizeLinear" or source.input[0] not in known:
            continue
        if node.op_type == "Conv" or len(known[source.input[0]].dims) == 2:
            sources[node.name] = source
    return sources


def _steps(source: Any, known: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The scale of every weight."""
    from onnx import numpy_helper

    scale = numpy_helper.to_array(known[source.input[1]])
    if scale.ndim == 1 and scale.size > 1:
        along = [1] * len(shape)
        along[attribute(source, "axis", 1)] = -1
        scale = scale.reshape(along)
    return np.broadcast_to(scale, shape)
