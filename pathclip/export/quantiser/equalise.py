"""Evens out the weight ranges of convolutions that follow each other, without changing what they compute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathclip.export.quantiser.prepare import attribute, constants

SWEEPS = 8  # a chain of layers passes changes on by one place per sweep


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two convolutions, the second of which alone reads the first, through nothing but a ReLU."""

    first: Any
    second: Any


def equalise(prepared: Path, equalised: Path) -> int:
    """Scales channel i of a convolution by 1/s_i and the next convolution's weights for it by s_i.

    s_i = sqrt(r1_i / r2_i), with r the largest absolute weight of the channel on either side, makes both
    ranges equal (Nagel et al. 2019, arXiv:1906.04721, section 4.1). It is exact across a ReLU, where
    f(s x) = s f(x) for s > 0. A Clip with an upper end, such as ReLU6, has that only below its cap, and its
    cap is one number for all channels: such pairs are left alone. Factors are powers of two, so the fp32
    graph computes the same to the bit.

    Args:
        prepared: fp32 ONNX file.
        equalised: where the result goes; not written where there is nothing to even out.

    Returns:
        Number of pairs of convolutions evened out.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(prepared)
    pairs = _pairs(model)
    if not pairs:
        return 0
    known = constants(model)
    names = {name for pair in pairs for node in (pair.first, pair.second) for name in node.input[1:]}
    values = {name: numpy_helper.to_array(known[name]).astype(np.float32) for name in names if name}
    for _ in range(SWEEPS):
        # A list, not a generator: every pair is scaled in each sweep.
        if not any([_even_out(pair, values) for pair in pairs]):
            break
    for name, array in values.items():
        known[name].CopyFrom(numpy_helper.from_array(array, name))
    onnx.save(model, equalised)
    return len(pairs)


def _even_out(pair: _Pair, values: dict[str, np.ndarray]) -> bool:
    """Scales one pair in place; whether any factor was not 1."""
    first, second = values[pair.first.input[1]], values[pair.second.input[1]]
    depthwise = attribute(pair.second, "group", 1) > 1
    ahead = np.abs(first).reshape(len(first), -1).max(axis=1)
    after = np.abs(second if depthwise else second.swapaxes(0, 1)).reshape(len(first), -1).max(axis=1)
    used = (ahead > 0) & (after > 0)
    ratio = np.where(used, ahead, 1.0) / np.where(used, after, 1.0)
    factors = np.exp2(np.round(np.log2(np.sqrt(ratio)).clip(-16, 16))).astype(np.float32)
    if (factors == 1.0).all():
        return False
    first /= factors[:, None, None, None]
    if len(pair.first.input) > 2 and pair.first.input[2]:
        values[pair.first.input[2]] /= factors
    second *= factors[:, None, None, None] if depthwise else factors[None, :, None, None]
    return True


def _pairs(model: Any) -> list[_Pair]:
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    known, public = constants(model), {value.name for value in model.graph.output}

    def sole_reader(name: str) -> Any:
        found = readers.get(name, [])
        return found[0] if len(found) == 1 and name not in public else None

    def scalable(node: Any) -> bool:
        parameters = [name for name in node.input[1:] if name]
        own = all(name in known and len(readers[name]) == 1 for name in parameters)
        return node.op_type == "Conv" and own and len(known[node.input[1]].dims) == 4

    pairs = []
    for node in model.graph.node:
        if not scalable(node):
            continue
        after = sole_reader(node.output[0])
        if after is not None and (after.op_type == "Relu" or _uncapped(after, known)):
            after = sole_reader(after.output[0])
        # The data input alone: a weight that is computed is no constant to scale.
        if after is not None and scalable(after) and _channels_match(node, after, known):
            pairs.append(_Pair(node, after))
    return pairs


def _uncapped(node: Any, known: dict[str, Any]) -> bool:
    """Whether a Clip is a ReLU: from zero, with no upper end."""
    from onnx import numpy_helper

    if node.op_type != "Clip" or len(node.input) < 2 or node.input[1] not in known:
        return False
    capped = len(node.input) > 2 and bool(node.input[2])
    return not capped and float(numpy_helper.to_array(known[node.input[1]])) == 0.0


def _channels_match(first: Any, second: Any, known: dict[str, Any]) -> bool:
    """The second convolution is dense, or depthwise with one filter per channel."""
    channels = known[first.input[1]].dims[0]
    group, dims = attribute(second, "group", 1), known[second.input[1]].dims
    return bool(group == 1 and dims[1] == channels) or bool(group == channels == dims[0] and dims[1] == 1)
