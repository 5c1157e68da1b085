"""How a tower is quantised, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pathclip.errors import ConfigError

Calibration = Literal["minmax", "percentile", "mse", "entropy"]
Quantizer = Literal["onnxruntime", "nncf"]
Rounding = Literal["nearest", "adaround"]
CHOICES: dict[str, tuple[Any, ...]] = {
    "calibration": ("minmax", "percentile", "mse", "entropy"),
    "quantizer": ("onnxruntime", "nncf"),
    "rounding": ("nearest", "adaround"),
    "weight_bits": (7, 8),
}
OPERATORS = ("Conv", "Clip", "Relu", "MatMul", "Gemm", "Gather")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Static quantisation of one tower: uint8 activations, int8 weights, int32 sums.

    Attributes:
        calibration: how an activation's range is read off its values: 'minmax'; 'percentile'; 'mse', the
            least squared error; or 'entropy', the least Kullback-Leibler divergence.
        percentile: share of values in per cent that stays inside the range, for 'percentile'.
        weight_bits: 7 keeps weights within [-64, 64], so that the 16-bit sums of two products of CPUs
            without VNNI cannot saturate (255 · 64 · 2 < 2¹⁵); 8 is exact only on CPUs with VNNI.
        per_channel: one scale per output channel of a weight, else one per tensor.
        bias_correction: cancels the mean shift that rounding the weights causes (Nagel et al. 2019,
            arXiv:1906.04721, section 4.2).
        smoothing: moves outlier channels from activations into weights of matrix products, with this
            exponent in [0, 1) (SmoothQuant, Xiao et al. 2023, arXiv:2211.10438); 0 leaves it out. Of 'nncf'
            for transformers alone.
        equalisation: evens out the weights' ranges of two convolutions that follow each other (Nagel et
            al. 2019, section 4.1); not across a capped ReLU, which such scaling would change.
        rounding: of weights: 'nearest', or 'adaround', which rounds each up or down so that the layer's
            output changes least (Nagel et al. 2020, arXiv:2004.10568); slow, for minutes on a large tower.
        keep_fp32: layers that stay in fp32: 'stem' (the first convolution and the depthwise one after
            it; not a transformer's patch embedding, its only convolution), 'depthwise' (all), or the
            beginning of node names.
        operators: ONNX operators that are quantised; of 'onnxruntime' alone.
        attention: quantise the products of two activations too, uint8 by uint8. They are 1 % of the work of
            a ViT-B/32, which was nearer and no slower with them in fp32 (docs/performance.md).
        quantizer: whose graph is taken: 'onnxruntime', or 'nncf' (its own smoothing and bias correction).
    """

    calibration: Calibration = "mse"
    percentile: float = 99.99
    weight_bits: int = 7
    per_channel: bool = True
    bias_correction: bool = True
    smoothing: float = 0.7
    equalisation: bool = False
    rounding: Rounding = "nearest"
    keep_fp32: Sequence[str] = ("stem",)
    operators: Sequence[str] = OPERATORS
    attention: bool = False
    quantizer: Quantizer = "onnxruntime"

    def __post_init__(self) -> None:
        """Refuses values out of range, and those that do not go together."""
        for key, known in CHOICES.items():
            value = getattr(self, key)
            if value not in known:
                raise ConfigError(f"recipe.{key}: '{value}' is none of {', '.join(map(str, known))}")
        if not 50.0 < self.percentile <= 100.0:
            raise ConfigError(f"recipe.percentile: {self.percentile} is not within (50, 100]")
        if not 0.0 <= self.smoothing < 1.0:
            raise ConfigError(f"recipe.smoothing: {self.smoothing} is not within [0, 1)")
        unknown = sorted(set(self.operators) - set(OPERATORS))
        if unknown:
            raise ConfigError(f"recipe.operators: {', '.join(unknown)}; known are {', '.join(OPERATORS)}")
        if self.quantizer == "nncf":
            self._check_nncf()

    def _check_nncf(self) -> None:
        lacking = {
            "calibration=entropy": self.calibration == "entropy",
            "rounding=adaround": self.rounding == "adaround",
        }
        for setting, asked in lacking.items():
            if asked:
                raise ConfigError(
                    f"recipe.{setting}: nncf has none for ONNX; take another or recipe.quantizer=onnxruntime"
                )

    def describe(self) -> str:
        """One line for the report."""
        parts = [self.calibration if self.calibration != "percentile" else f"percentile {self.percentile:g}"]
        parts.append(f"{self.weight_bits}-bit weights" + ("" if self.per_channel else " per tensor"))
        if self.smoothing:
            parts.append(f"smoothing {self.smoothing:g}")
        if self.equalisation:
            parts.append("equalisation")
        if self.rounding == "adaround":
            parts.append("AdaRound")
        if self.attention:
            parts.append("int8 attention")
        if self.bias_correction:
            parts.append("bias correction")
        return ", ".join(parts) + (" by nncf" if self.quantizer == "nncf" else "")
