"""What a recipe search varies, in which order."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal

from pathclip.errors import ConfigError
from pathclip.export.quantiser.recipe import Recipe

Mode = Literal["quick", "full"]
Vary = Callable[[Recipe], Sequence[Recipe]]
FEW_PRODUCTS = 2  # smoothing for a single projection is not worth its pass over the samples


def stages(mode: Mode, operators: Sequence[str]) -> list[tuple[str, Vary]]:
    """What is varied, in order; each stage starts from the best recipe of those before.

    8-bit weights are never among it: they saturate on CPUs without VNNI, so they are for who asks for them,
    and even then 7 bits are tried.

    Args:
        mode: 'quick' or 'full'.
        operators: type of every node with a constant weight.
    """
    full = mode == "full"
    convolutions = "Conv" in operators
    products = sum(name in ("MatMul", "Gemm") for name in operators) > FEW_PRODUCTS
    plan: list[tuple[str, Vary]] = [("7-bit weights", _in_seven_bits), ("ranges", _with_ranges(full))]
    if products:
        strengths = (0.0, 0.5, 0.85) if full else (0.0,)
        plan.append(("smoothing", lambda best: [_with(best, smoothing=one) for one in strengths]))
    if convolutions and not products:
        plan.append(("equalisation", lambda best: [_with(best, equalisation=not best.equalisation)]))
    plan.append(("bias correction", lambda best: [_with(best, bias_correction=not best.bias_correction)]))
    if full:
        plan.append(("rounding", lambda best: _each(best, {"rounding": "adaround"})))
    if full and find_spec("nncf"):
        plan.append(("nncf", _by_nncf))
    if operators.count("Conv") > 1 and full:
        plan.append(("depthwise in fp32", lambda best: [_with(best, keep_fp32=("stem", "depthwise"))]))
    if products:
        plan.append(("attention", _with_attention(full)))
    plan.append(("nothing in fp32", lambda best: [_with(best, keep_fp32=())]))
    return plan


def _in_seven_bits(best: Recipe) -> list[Recipe]:
    return [_with(best, weight_bits=7)] if best.weight_bits == 8 else []


def _with_ranges(full: bool) -> Vary:
    changes: list[dict[str, Any]] = [{"calibration": one} for one in ("mse", "minmax", "percentile")]
    if full:
        shares = (99.9, 99.99, 99.999)
        changes += [{"calibration": "percentile", "percentile": one} for one in shares]
        changes.append({"calibration": "entropy"})
    return lambda best: _each(best, *changes)


def _with_attention(full: bool) -> Vary:
    def vary(best: Recipe) -> list[Recipe]:
        return [_with(best, attention=not best.attention)] if full or best.attention else []

    return vary


def _by_nncf(best: Recipe) -> list[Recipe]:
    calibration = "minmax" if best.calibration == "entropy" else best.calibration
    return [_with(best, quantizer="nncf", rounding="nearest", calibration=calibration)]


def _each(best: Recipe, *changes: Mapping[str, Any]) -> list[Recipe]:
    """The recipe with each change; without those that do not go together with the rest of it."""
    found = []
    for change in changes:
        with contextlib.suppress(ConfigError):
            found.append(_with(best, **change))
    return found


def _with(recipe: Recipe, **changes: Any) -> Recipe:
    return dataclasses.replace(recipe, **changes)
