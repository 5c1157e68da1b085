"""Value ranges of the tensors of a graph, from one pass over calibration samples.

onnxruntime's own calibrators keep every intermediate tensor of every batch, and one calibration serves
one method. Here each tensor has one histogram of fixed size, so memory is bounded, and every method
(min-max, percentile, squared error, entropy) is read off the same pass: a search over them costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathclip.errors import ConfigError
from pathclip.export.graphs.padding import word_places, words_alone
from pathclip.export.quantiser.entropy import least_divergence_threshold

BINS = 8192
# Values per tensor and batch that enter the histogram; the minimum and maximum see all of them.
VALUES_PER_BATCH = 1 << 18


@dataclass(slots=True)
class Histogram:
    """Counts of one tensor's values over [-limit, limit] in `BINS` equal bins; it grows by doubling.

    Attributes:
        counts: int64 [BINS].
        limit: half the width that the bins cover.
        low: smallest value seen.
        high: largest value seen.
    """

    counts: np.ndarray
    limit: float
    low: float
    high: float

    @classmethod
    def empty(cls) -> Histogram:
        """A histogram that has seen nothing."""
        return cls(np.zeros(BINS, dtype=np.int64), 0.0, 0.0, 0.0)

    def add(self, values: np.ndarray) -> None:
        """Counts float values of any shape; of many, every k-th."""
        flat = values.reshape(-1)
        if flat.size == 0:
            return
        # Zero must be representable, or padding and ReLU would carry an error everywhere.
        self.low = min(self.low, float(flat.min()))
        self.high = max(self.high, float(flat.max()))
        self._cover(max(-self.low, self.high))
        if self.limit == 0.0:
            self.counts[BINS // 2] += flat.size
            return
        # An odd step cannot fall into step with an even width or number of channels.
        step = (flat.size // VALUES_PER_BATCH) | 1
        sample = flat[::step]
        places = ((sample + self.limit) * (BINS / (2 * self.limit))).astype(np.int64)
        np.clip(places, 0, BINS - 1, out=places)
        self.counts += np.bincount(places, minlength=BINS)

    def _cover(self, needed: float) -> None:
        if self.limit == 0.0:
            self.limit = needed
        while self.limit < needed:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.zeros(BINS, dtype=np.int64)
            self.counts[BINS // 4 : BINS // 4 + BINS // 2] = pairs
            self.limit *= 2

    def centres(self) -> np.ndarray:
        """Middle of every bin, float64 [BINS]."""
        return (np.arange(BINS) + 0.5) * (2 * self.limit / BINS) - self.limit


@dataclass(slots=True)
class Channels:
    """What one tensor holds per channel.

    Attributes:
        total: sum of the values, float64 [channels].
        count: values summed per channel.
        peak: largest absolute value, float32 [channels].
    """

    total: np.ndarray
    count: int
    peak: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean value, float64 [channels]."""
        return self.total / max(self.count, 1)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What one pass over the calibration samples saw.

    Attributes:
        histograms: tensor name → all its values.
        channels: name of a tensor that a weighted node reads → its values per input channel.
    """

    histograms: dict[str, Histogram]
    channels: dict[str, Channels]


def measure(
    graph: Path, feeds: Iterable[Mapping[str, np.ndarray]], op_types: Sequence[str], threads: int = 0
) -> Statistics:
    """Runs the fp32 graph over calibration batches; padding of texts does not count.

    Args:
        graph: ONNX file with type information for its inner tensors.
        feeds: batches by input name; only one is in memory at a time.
        op_types: operators whose float inputs and outputs are measured.
        threads: onnxruntime threads; 0 lets it choose.
    """
    import onnx
    import onnxruntime as ort

    model = onnx.load(graph)
    names = tensors_of(model, op_types)
    axes = channel_axes(model)
    known = {info.name: info for info in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    present = {info.name for info in model.graph.output}
    inputs = {info.name for info in model.graph.input}
    model.graph.output.extend(known[name] for name in names if name not in present | inputs)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = Statistics({name: Histogram.empty() for name in names}, {})
    inner = [name for name in names if name not in inputs]
    for feed in feeds:
        values = dict(zip(inner, session.run(inner, dict(feed)), strict=True))
        values |= {name: feed[name] for name in inputs & set(names)}
        places = word_places(model, feed)
        for name, every in values.items():
            value = words_alone(every, places)
            found.histograms[name].add(value)
            if name in axes:
                _add_channels(found.channels, name, value, axes[name])
    return found


def channel_axes(model: Any) -> dict[str, int]:
    """Axis of the input channels of every tensor that a Conv, MatMul or Gemm with constant weight reads."""
    constants = {tensor.name for tensor in model.graph.initializer}
    axes: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in ("Conv", "MatMul", "Gemm") and node.input[1] in constants:
            axes[node.input[0]] = 1 if node.op_type == "Conv" else -1
    return axes


def _add_channels(channels: dict[str, Channels], name: str, value: np.ndarray, axis: int) -> None:
    others = tuple(i for i in range(value.ndim) if i != axis % value.ndim)
    total = value.sum(axis=others, dtype=np.float64)
    peak = np.maximum(value.max(axis=others), -value.min(axis=others))
    if name not in channels:
        channels[name] = Channels(np.zeros_like(total), 0, np.zeros_like(peak))
    seen = channels[name]
    seen.total += total
    seen.count += value.size // len(total)
    seen.peak = np.maximum(seen.peak, peak)


def tensors_of(model: Any, op_types: Sequence[str]) -> list[str]:
    """Names of the float tensors, without constants, that the nodes of these types read or write."""
    import onnx

    known = {info.name: info for info in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    constants = {tensor.name for tensor in model.graph.initializer}
    found: dict[str, None] = {}
    for node in model.graph.node:
        if node.op_type in op_types:
            for name in (*node.input, *node.output):
                info = known.get(name)
                is_float = info is not None and info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
                if is_float and name not in constants:
                    found[name] = None
    return list(found)


def value_range(histogram: Histogram, method: str, percentile: float = 99.99) -> tuple[float, float]:
    """The range of values that 8 bits shall cover; it always contains zero.

    Args:
        histogram: of one tensor.
        method: 'minmax'; 'percentile', which cuts equally much from both tails; 'mse', the range with
            the least expected squared error of rounding and clipping together; or 'entropy', the range
            that changes the distribution least.
        percentile: share of the values in per cent that stays inside, for 'percentile'.

    Raises:
        ConfigError: an unknown method, or a percentile outside (50, 100].
    """
    if method == "minmax" or histogram.limit == 0.0:
        return histogram.low, histogram.high
    if method == "percentile":
        return _percentile_range(histogram, percentile)
    if method == "mse":
        return _least_error_range(histogram)
    if method == "entropy":
        return _least_divergence_range(histogram)
    raise ConfigError(f"recipe calibration: '{method}' is none of minmax, percentile, mse, entropy")


def _percentile_range(histogram: Histogram, percentile: float) -> tuple[float, float]:
    if not 50.0 < percentile <= 100.0:
        raise ConfigError(f"recipe percentile: {percentile} is not within (50, 100]")
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    cut = (100.0 - percentile) / 200.0
    width = 2 * histogram.limit / BINS
    left = int(np.searchsorted(share, cut, side="right"))
    right = int(np.searchsorted(share, 1.0 - cut))
    low = max(left * width - histogram.limit, histogram.low)
    high = min((right + 1) * width - histogram.limit, histogram.high)
    return min(low, 0.0), max(high, 0.0)


def _least_error_range(histogram: Histogram) -> tuple[float, float]:
    """Shrinks both ends independently over a grid; error = clipping error + step² / 12 for what is not 0."""
    filled = histogram.counts > 0
    weights = histogram.counts[filled] / histogram.counts.sum()
    values = histogram.centres()[filled]
    # ReLU gives exact zeros, which every range represents without error.
    rounded = 1.0 - float(histogram.counts[BINS // 2]) / histogram.counts.sum()
    best = (float("inf"), histogram.low, histogram.high)
    shares = np.concatenate([np.linspace(0.05, 0.5, 10), np.linspace(0.55, 1.0, 46)])
    # The two tails clip separately, so their errors are computed once per end and then added.
    lows, highs = shares * histogram.low, shares * histogram.high
    below = [float((weights * np.minimum(values - low, 0.0) ** 2).sum()) for low in lows]
    above = [float((weights * np.maximum(values - high, 0.0) ** 2).sum()) for high in highs]
    for low, low_error in zip(lows, below, strict=True):
        for high, high_error in zip(highs, above, strict=True):
            error = low_error + high_error + rounded * ((high - low) / 255) ** 2 / 12
            if error < best[0]:
                best = (error, float(low), float(high))
    return best[1], best[2]


def _least_divergence_range(histogram: Histogram) -> tuple[float, float]:
    two_sided = histogram.low < 0.0 < histogram.high
    bins = least_divergence_threshold(histogram.counts, two_sided)
    threshold = bins * 2 * histogram.limit / BINS
    return max(histogram.low, -threshold), min(histogram.high, threshold)
