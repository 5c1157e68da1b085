"""One fp32 tower on its way to int8: what every recipe shares is computed once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pathclip.export import ranges
from pathclip.export.prepare import prepare, smooth
from pathclip.export.quantize import Quantised, quantize_tower
from pathclip.export.recipe import Recipe
from pathclip.export.samples import Samples

_FOR_PEAKS = 32  # samples: peaks per channel are all that smoothing needs, and few show them


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
    _prepared: Path | None = field(default=None, init=False)
    _graphs: dict[float, tuple[Path, ranges.Statistics]] = field(default_factory=dict, init=False)

    def quantise(self, recipe: Recipe, file: Path) -> Quantised:
        """Writes the int8 graph of a recipe to `file`."""
        graph, statistics = self.graph(recipe)
        return quantize_tower(graph, file, statistics, recipe)

    def graph(self, recipe: Recipe) -> tuple[Path, ranges.Statistics]:
        """The fp32 graph that the recipe quantises, and what its tensors hold on the calibration samples."""
        if recipe.smoothing not in self._graphs:
            self._graphs[recipe.smoothing] = self._smoothed(recipe)
        return self._graphs[recipe.smoothing]

    def _smoothed(self, recipe: Recipe) -> tuple[Path, ranges.Statistics]:
        graph = self._prepare()
        if recipe.smoothing:
            peaks = ranges.measure(
                graph, self.calibration.part(0, _FOR_PEAKS).feeds(self.name), recipe.operators
            )
            smoothed = self.work / f"{self.name}_smooth_{recipe.smoothing:g}.onnx"
            if smooth(graph, smoothed, peaks, recipe.smoothing):
                graph = smoothed
        return graph, ranges.measure(graph, self.calibration.feeds(self.name), recipe.operators)

    def _prepare(self) -> Path:
        if self._prepared is None:
            self._prepared = self.work / f"{self.name}_prepared.onnx"
            prepare(self.fp32, self._prepared)
        return self._prepared
