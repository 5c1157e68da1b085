"""A second quantiser: NNCF's, on the same graph and the same calibration samples."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pathclip.errors import PathclipError
from pathclip.export.calibration.samples import Samples
from pathclip.export.quantiser.bias import Biases, dequantised, mean_shift, picture_sizes
from pathclip.export.quantiser.prepare import constants, weighted
from pathclip.export.quantiser.quantize import Quantised, hold_in_fp32, kept_nodes, left_out
from pathclip.export.quantiser.ranges import Statistics
from pathclip.export.quantiser.recipe import Recipe

TELEMETRY = "openvino_telemetry"
RANGES = {"minmax": "MINMAX", "percentile": "MEAN_QUANTILE", "mse": "HISTOGRAM"}


class NncfError(PathclipError):
    """NNCF is not installed, or cannot quantise a tower; another recipe may."""


def quantize_with_nncf(
    graph: Path,
    file: Path,
    tower: str,
    calibration: Samples,
    statistics: Statistics,
    recipe: Recipe,
    keep: Mapping[str, str] | None = None,
) -> Quantised:
    """Quantises a prepared fp32 graph with NNCF: its ranges, its SmoothQuant, its fast bias correction.

    NNCF smooths transformers alone (`smooths`). Its ranges are read off every place of a text, padding too,
    where those of `measure` are of words alone; its percentile is the mean over samples of each one's own.

    Args:
        graph: from `prepare` or `equalise`; not smoothed, as NNCF does that.
        file: where the int8 graph goes.
        tower: 'image' or 'text'.
        calibration: samples that ranges are read off.
        statistics: from `measure` on the same graph and samples.
        recipe: how; with `quantizer='nncf'`.
        keep: further nodes that stay in fp32 → why.

    Raises:
        NncfError: NNCF is not installed or cannot do it.
        ConfigError: `keep` names a node that the graph lacks.
    """
    import onnx

    nncf = import_nncf()
    model = onnx.load(graph)
    reasons = kept_nodes(model, recipe.keep_fp32, keep)
    ignored = [*reasons, *left_out(model, recipe)]
    shown = onnx.load(graph)
    # One sample per step: NNCF takes the first axis of a statistic for the sample.
    singles = [
        {name: value[row : row + 1] for name, value in feed.items()}
        for feed in calibration.feeds(tower)
        for row in range(len(next(iter(feed.values()))))
    ]
    try:
        with _quiet():
            quantised = nncf.quantize(
                shown,
                nncf.Dataset(singles),
                subset_size=len(singles),
                fast_bias_correction=True,
                model_type=nncf.ModelType.TRANSFORMER if smooths(model) else None,
                ignored_scope=nncf.IgnoredScope(names=ignored) if ignored else None,
                advanced_parameters=_parameters(recipe),
            )
    except Exception as error:  # NNCF raises a dozen kinds, down to AssertionError
        line = " ".join(str(error).split()) or type(error).__name__
        raise NncfError(
            f"{tower} tower: nncf cannot quantise it ({line}); take recipe.quantizer=onnxruntime"
        ) from error
    activations_as_uint8(quantised)
    if recipe.weight_bits == 7:
        halve_weights(model, quantised, statistics if recipe.bias_correction else None)
    hold_in_fp32(quantised, reasons)
    onnx.save(quantised, file)
    return Quantised(file, len(weighted(model)), tuple(reasons), reasons)


def import_nncf() -> Any:
    """The module `nncf`, which then reports nothing to anybody.

    Without the package `openvino_telemetry` NNCF has nothing to report with; it is hidden while NNCF is
    imported. Its own opt-out is a file in the home folder, written after the first report.

    Raises:
        NncfError: it is not installed.
    """
    if sys.modules.get("nncf") is None:
        hidden = sys.modules.get(TELEMETRY)
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]
        try:
            with _quiet():
                import nncf
        except ImportError as error:
            raise NncfError(
                f"recipe.quantizer=nncf: nncf is not usable here ({error}); pip install 'pathclip[nncf]'"
            ) from error
        finally:
            if hidden is None:
                sys.modules.pop(TELEMETRY, None)
            else:
                sys.modules[TELEMETRY] = hidden
    import nncf

    return nncf


def activations_as_uint8(quantised: Any) -> None:
    """Makes int8 activations uint8, 128 higher: the same values, as CPU kernels multiply with int8 weights.

    Args:
        quantised: QDQ graph, changed in place.
    """
    from onnx import numpy_helper

    known = constants(quantised)
    moved: set[str] = set()
    for node in quantised.graph.node:
        written = node.op_type == "QuantizeLinear"
        if not written and not (node.op_type == "DequantizeLinear" and node.input[0] in moved):
            continue
        zero = numpy_helper.to_array(known[node.input[2]])
        if zero.dtype != np.int8:
            continue
        name = f"{node.input[2]}_uint8"
        if name not in known:
            higher = (zero.astype(np.int16) + 128).astype(np.uint8)
            known[name] = numpy_helper.from_array(higher, name)
            quantised.graph.initializer.append(known[name])
        node.input[2] = name
        if written:
            moved.add(node.output[0])
    kept = [info for info in quantised.graph.value_info if info.name not in moved]
    del quantised.graph.value_info[:]
    quantised.graph.value_info.extend(kept)


def halve_weights(model: Any, quantised: Any, statistics: Statistics | None) -> int:
    """Rounds weights beyond [-64, 64] again, with a larger step.

    NNCF's overflow fix leaves out depthwise convolutions and embeddings.

    Args:
        model: the fp32 graph.
        quantised: its QDQ graph, changed in place.
        statistics: of the fp32 graph; None leaves biases as they are.

    Returns:
        Number of tensors changed.
    """
    from onnx import numpy_helper

    known, floats, sizes = constants(quantised), constants(model), picture_sizes(model)
    originals = {node.name: node for node in model.graph.node}
    biases = Biases(quantised)
    changed = 0
    for source in [node for node in quantised.graph.node if node.op_type == "DequantizeLinear"]:
        tensor = known.get(source.input[0])
        values = numpy_helper.to_array(tensor) if tensor is not None else np.zeros(1, np.int8)
        if values.dtype != np.int8 or np.abs(values.astype(np.int16)).max() <= 64:
            continue
        reader = next(node for node in quantised.graph.node if source.output[0] in node.input)
        original = originals.get(reader.name)
        before = dequantised(source, known)
        step = float(numpy_helper.to_array(known[source.input[1]]).max())
        _round_again(quantised, source, known, _exact(original, floats, before, step))
        if statistics is not None and original is not None and original.op_type == "Conv":
            lost = before - dequantised(source, known)
            mean = statistics.channels[original.input[0]].mean
            biases.add(reader, mean_shift(original, lost, mean, sizes))
        changed += 1
    return changed


def _round_again(quantised: Any, source: Any, known: dict[str, Any], exact: np.ndarray) -> None:
    """Gives the constant behind a DequantizeLinear a step of 127/64 and rounds `exact` to it."""
    from onnx import numpy_helper

    name = f"{source.input[1]}_halved"
    if name not in known:
        step = numpy_helper.to_array(known[source.input[1]]) * np.float32(127 / 64)
        known[name] = numpy_helper.from_array(np.asarray(step, np.float32), name)
        quantised.graph.initializer.append(known[name])
    source.input[1] = name
    tensor = known[source.input[0]]
    ones = np.ones(tuple(tensor.dims), np.int8)
    tensor.CopyFrom(numpy_helper.from_array(ones, tensor.name))
    steps = dequantised(source, known)
    rounded = np.clip(np.round(exact / steps), -64, 64).astype(np.int8)
    tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))


def _exact(node: Any, floats: Mapping[str, Any], old: np.ndarray, step: float) -> np.ndarray:
    """The fp32 weight if NNCF rounded that one; else (smoothed) what it gave, which is then rounded twice."""
    from onnx import numpy_helper

    tensor = floats.get(node.input[1 if node.op_type != "Gather" else 0]) if node is not None else None
    if tensor is None or tuple(tensor.dims) != old.shape:
        return old
    exact = numpy_helper.to_array(tensor)
    return exact if np.abs(exact - old).max() <= step else old


def _range(recipe: Recipe) -> Any:
    """How NNCF reads a range; 'percentile' cuts equally much from both ends, as in `value_range`."""
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    estimator = getattr(RangeEstimatorParametersSet, RANGES[recipe.calibration])
    if recipe.calibration != "percentile":
        return estimator
    outside = (100.0 - recipe.percentile) / 200.0
    return dataclasses.replace(
        estimator,
        min=dataclasses.replace(estimator.min, quantile_outlier_prob=outside),
        max=dataclasses.replace(estimator.max, quantile_outlier_prob=outside),
    )


def _parameters(recipe: Recipe) -> Any:
    from nncf.common.quantization.structs import QuantizationScheme
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        AdvancedSmoothQuantParameters,
        OverflowFix,
        QuantizationParameters,
    )

    return AdvancedQuantizationParameters(
        # Half the range for weights: the same as 7 bits, but not for all; `halve_weights` does the others.
        overflow_fix=OverflowFix.ENABLE if recipe.weight_bits == 7 else OverflowFix.DISABLE,
        disable_bias_correction=not recipe.bias_correction,
        # NNCF gives inputs of depthwise convolutions a scale per channel, which onnxruntime runs in fp32.
        activations_quantization_params=QuantizationParameters(
            mode=QuantizationScheme.ASYMMETRIC, per_channel=False
        ),
        weights_quantization_params=QuantizationParameters(per_channel=recipe.per_channel),
        activations_range_estimator_params=_range(recipe),
        smooth_quant_alphas=AdvancedSmoothQuantParameters(matmul=recipe.smoothing or -1),
    )


def smooths(model: Any) -> bool:
    """Whether NNCF smooths this graph: it must be told that it is a transformer, by its layer norms.

    Args:
        model: the fp32 graph, loaded.
    """
    return any(node.op_type == "LayerNormalization" for node in model.graph.node)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNCF logs and draws bars of its own; torch, which it imports, looks for a GPU's compiler aloud."""
    loggers = [logging.getLogger(name) for name in ("nncf", "torch.utils.cpp_extension")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
