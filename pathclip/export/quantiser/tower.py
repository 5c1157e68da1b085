"""One fp32 tower on its way to int8: what every recipe shares is computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pathclip.export.calibration.samples import Samples
from pathclip.export.quantiser import ranges
from pathclip.export.quantiser.equalise import equalise
from pathclip.export.quantiser.nncf_quantizer import quantize_with_nncf, smooths
from pathclip.export.quantiser.prepare import prepare, smooth
from pathclip.export.quantiser.quantize import Quantised, left_out, quantize_tower
from pathclip.export.quantiser.recipe import OPERATORS, Recipe
from pathclip.export.quantiser.rounding import AdaRound

_FOR_PEAKS = 32  # samples: peaks per channel are all that smoothing needs, and few show them


@dataclass(frozen=True, slots=True)
class Prepared:
    """An fp32 graph that recipes quantise, and what its tensors hold on the calibration samples.

    Attributes:
        graph: the ONNX file; it computes what the tower computes.
        statistics: of its tensors.
    """

    graph: Path
    statistics: ranges.Statistics


@dataclass(slots=True)
class Tower:
    """A tower to be quantised, with the graphs and value ranges that recipes have in common.

    Attributes:
        name: 'image' or 'text'.
        fp32: its fp32 ONNX file.
        calibration: samples that ranges are read off.
        selection: samples of other groups, by which recipes are compared.
        work: a folder for what lies between.
    """

    name: str
    fp32: Path
    calibration: Samples
    selection: Samples
    work: Path
    _graphs: dict[tuple[float, bool], Path] = field(default_factory=dict, init=False)
    _statistics: dict[Path, ranges.Statistics] = field(default_factory=dict, init=False)
    _rounders: dict[tuple[Path, int, bool, bool], AdaRound] = field(default_factory=dict, init=False)

    def quantise(self, recipe: Recipe, file: Path, keep: Mapping[str, str] | None = None) -> Quantised:
        """Writes the int8 graph of a recipe to `file`.

        Args:
            recipe: how.
            file: where the int8 graph goes.
            keep: nodes that stay in fp32 besides those of the recipe → why, as 'sensitivity: …'.

        Raises:
            ConfigError: `keep` names a node that the graph lacks.
            NncfError: nncf is not installed, or cannot quantise this tower.
        """
        prepared = self.graph(recipe)
        if recipe.quantizer == "nncf":
            statistics = self.statistics(prepared)
            return quantize_with_nncf(prepared, file, self.name, self.calibration, statistics, recipe, keep)
        rounder = self._rounder(prepared, recipe) if recipe.rounding == "adaround" else None
        return quantize_tower(prepared, file, self.statistics(prepared), recipe, keep, rounder)

    def graph(self, recipe: Recipe) -> Path:
        """The fp32 graph that the recipe quantises; its nodes have the names of those of the int8 graph."""
        # NNCF smooths a graph itself.
        smoothing = recipe.smoothing if recipe.quantizer == "onnxruntime" else 0.0
        wanted = (smoothing, recipe.equalisation)
        if wanted not in self._graphs:
            self._graphs[wanted] = self._changed(*wanted)
        return self._graphs[wanted]

    def applied(self, recipe: Recipe) -> Recipe:
        """The recipe without smoothing, equalisation and attention where they have no hold on this tower."""
        smoothed = recipe.smoothing > 0 and self._is_smoothed(recipe)
        equalised = recipe.equalisation and self.graph(replace(recipe, smoothing=0.0)) != self._plain()
        return replace(
            recipe,
            smoothing=recipe.smoothing if smoothed else 0.0,
            equalisation=equalised,
            attention=recipe.attention and self._has_attention(recipe),
        )

    def _has_attention(self, recipe: Recipe) -> bool:
        import onnx

        return bool(left_out(onnx.load(self.graph(recipe)), replace(recipe, attention=False)))

    def _is_smoothed(self, recipe: Recipe) -> bool:
        if recipe.quantizer == "nncf":
            import onnx

            return smooths(onnx.load(self.graph(recipe)))
        return self.graph(recipe) != self.graph(replace(recipe, smoothing=0.0))

    def statistics(self, graph: Path) -> ranges.Statistics:
        """What the tensors of a graph of this tower hold on the calibration samples."""
        if graph not in self._statistics:
            self._statistics[graph] = ranges.measure(graph, self.calibration.feeds(self.name), OPERATORS)
        return self._statistics[graph]

    def _changed(self, smoothing: float, equalisation: bool) -> Path:
        if not (smoothing or equalisation):
            plain = self.work / f"{self.name}_prepared.onnx"
            prepare(self.fp32, plain)
            return plain
        graph = self._plain()
        if equalisation:
            equalised = graph.with_name(f"{graph.stem}_equalised.onnx")
            graph = equalised if equalise(graph, equalised) else graph
        if smoothing:
            graph = self._smoothed(graph, smoothing)
        return graph

    def _plain(self) -> Path:
        if (0.0, False) not in self._graphs:
            self._graphs[0.0, False] = self._changed(0.0, False)
        return self._graphs[0.0, False]

    def _smoothed(self, graph: Path, strength: float) -> Path:
        peaks = ranges.measure(graph, self.calibration.part(0, _FOR_PEAKS).feeds(self.name), OPERATORS)
        smoothed = graph.with_name(f"{graph.stem}_smooth_{strength:g}.onnx")
        return smoothed if smooth(graph, smoothed, peaks, strength) else graph

    def _rounder(self, graph: Path, recipe: Recipe) -> AdaRound:
        key = (graph, recipe.weight_bits, recipe.per_channel, recipe.bias_correction)
        if key not in self._rounders:
            feeds = partial(self.calibration.feeds, self.name)
            self._rounders[key] = AdaRound(graph, feeds, recipe.weight_bits, recipe.bias_correction)
        return self._rounders[key]
