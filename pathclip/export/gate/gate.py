"""Does the int8 model answer as the fp32 model does, on every CPU? Measured on samples nothing was fitted to.

How a figure is judged, and what its interval has to do with it, stands in `pathclip.export.gate.verdict`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.config import nearest
from pathclip.errors import ConfigError, PathclipError
from pathclip.export.calibration.captions import connected, judged_captions
from pathclip.export.calibration.samples import LabelledSamples, Samples, text_samples
from pathclip.export.gate.answers import (
    accuracy_line,
    agreement_line,
    class_vectors,
    count,
    found_at,
    joined,
    mean_interval,
    recall_line,
)
from pathclip.export.gate.graph_lines import (
    Both,
    reference_line,
    runtime_line,
    saturation_line,
    size_line,
    speed_line,
)
from pathclip.export.gate.verdict import Line, at_least
from pathclip.export.graphs.session import embed
from pathclip.runtime.cpu import cpu

TOWERS = ("image", "text")
# Fewer samples do not bound the 1 % quantile from below at 95 %: 0.99²⁹⁹ < 0.05.
ENOUGH_FOR_WORST = 299
TRAINED_ON = "pairs the model was trained on"


class ExportGateError(PathclipError):
    """The int8 model is too far from the fp32 model; nothing was written."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What an int8 model must reach.

    Attributes:
        image_cosine: mean cosine similarity to fp32 over the held-out images, at least.
        image_cosine_worst: the 1 % quantile of the same, at least.
        text_cosine: as `image_cosine`, for the different held-out captions.
        text_cosine_worst: as `image_cosine_worst`.
        zero_shot_agreement: share of images with the same best class, at least.
        recall_drop: loss of R@10 on the held-out pairs, in each direction, at most.
        accuracy_drop: loss of balanced zero-shot accuracy on the labelled pictures, at most.
        runtime_cosine: mean cosine similarity, over samples, of the embeddings as onnxruntime rewrites and
            runs the graph to those of the graph as it is written, at least, unless both are as near to fp32.
        reference_differs: share of the quantised layers' outputs that are more than one step from exact
            integer arithmetic, at most.
        saturating_layers: layers whose weights saturate on CPUs without VNNI, at most.
        size_ratio: bytes of int8 over bytes of fp32, both towers, at most.
    """

    image_cosine: float = 0.98
    image_cosine_worst: float = 0.90
    text_cosine: float = 0.97
    text_cosine_worst: float = 0.93
    zero_shot_agreement: float = 0.90
    recall_drop: float = 0.03
    accuracy_drop: float = 0.01
    runtime_cosine: float = 0.999
    reference_differs: float = 0.0
    saturating_layers: float = 0.0
    size_ratio: float = 0.5

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> Thresholds:
        """Reads the config's `gate`.

        Raises:
            ConfigError: an unknown key, or a value that is no number.
        """
        known = list(cls.__dataclass_fields__)
        for name, value in values.items():
            if name not in known:
                raise ConfigError(f"gate.{name}: unknown key.{nearest(str(name), known)}")
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigError(f"gate.{name}: expected a number, got {value!r}")
        return cls(**{str(name): float(value) for name, value in values.items()})


@dataclass(frozen=True, slots=True)
class Gate:
    """Result of the comparison.

    Attributes:
        lines: the figures.
        details: recipes, trials, machine.
    """

    lines: tuple[Line, ...]
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether no line failed."""
        return all(line.passed is not False for line in self.lines)

    @property
    def not_proven(self) -> list[str]:
        """Names of the lines that hold while their interval reaches past the limit."""
        return [line.name for line in self.lines if line.proven is False]

    @property
    def not_measured(self) -> list[str]:
        """Names of the lines without a figure."""
        return [line.name for line in self.lines if line.value is None]

    def as_json(self) -> dict[str, Any]:
        """Content of `gate.json`."""
        return {
            "passed": self.passed,
            "not_measured": self.not_measured,
            "not_proven": self.not_proven,
            "lines": [asdict(line) for line in self.lines],
            **self.details,
        }

    def in_words(self) -> str:
        """Whether it passed, and what is not sure, in one line."""
        if not self.passed:
            return f"failed: {self.failures()}"
        unsure = (("not proven", self.not_proven), ("not measured", self.not_measured))
        return "; ".join(["passed", *(f"{what}: {', '.join(names)}" for what, names in unsure if names)])

    def failures(self) -> str:
        """The failed lines in words."""
        failed = [line for line in self.lines if line.passed is False]
        return "; ".join(f"{line.name} {line.value:.4f} (limit {line.threshold:g})" for line in failed)


@dataclass(frozen=True, slots=True)
class Prompts:
    """Class prompts as tokens.

    Attributes:
        classes: names.
        tokens: int64 [classes * templates, context_length], templates running fastest.
    """

    classes: tuple[str, ...]
    tokens: NDArray[np.int64]

    @property
    def prompt_classes(self) -> NDArray[np.int64]:
        """Class number of each prompt."""
        return np.repeat(np.arange(len(self.classes)), len(self.tokens) // len(self.classes))


def compare(
    fp32: Mapping[str, Path],
    int8: Mapping[str, Path],
    held_out: Samples,
    thresholds: Thresholds,
    prompts: Prompts | None = None,
    details: Mapping[str, Any] | None = None,
    labelled: LabelledSamples | None = None,
    fitted: Sequence[Samples] = (),
    trained_on: bool = False,
) -> Gate:
    """Measures every line of the gate.

    Args:
        fp32: 'image' and 'text' → fp32 ONNX file.
        int8: likewise, int8.
        held_out: pairs that took no part in calibration.
        thresholds: limits.
        prompts: of the classes to compare zero-shot answers on; those of `labelled` if none are given.
        details: what else goes into `gate.json`.
        labelled: pictures with classes, for balanced accuracy.
        fitted: texts that ranges were read off or recipes chosen on; see `judged_captions`.
        trained_on: the held-out pairs are pairs the model was trained on, which each line then says.
    """

    def both(tower: str, samples: Samples, what: str) -> Both:
        return Both(*(embed(files[tower], tower, samples, progress=what) for files in (fp32, int8)))

    # A picture whose group nobody knows is one of its own.
    groups = held_out.groups or ("",) * len(held_out)
    images, texts = both("image", held_out, "Held-out pictures"), both("text", held_out, "Held-out captions")
    clusters, captions = connected(groups, held_out.texts), judged_captions(held_out, fitted)
    rows = list(captions.rows)
    alone = Both(texts.fp32[rows], texts.int8[rows])
    own, remark = [clusters[row] for row in rows], TRAINED_ON if trained_on else ""
    lines = [
        *_cosine_lines("image", images, groups, count(groups), thresholds, remark),
        *_cosine_lines("text", alone, own, len(own), thresholds, joined(captions.note, remark)),
        *_answer_lines(both, images, held_out, prompts, labelled, thresholds, remark),
        *_recall_lines(images, texts, held_out.texts, (groups, clusters), thresholds.recall_drop, remark),
        size_line(fp32, int8, thresholds.size_ratio),
    ]
    for tower, embedded in (("image", images), ("text", texts)):
        lines += [
            saturation_line(tower, int8[tower], thresholds.saturating_layers),
            reference_line(tower, int8[tower], held_out, thresholds.reference_differs),
            runtime_line(tower, int8[tower], held_out, embedded, thresholds.runtime_cosine),
        ]
    lines += [speed_line(tower, fp32[tower], int8[tower], held_out) for tower in TOWERS]
    machine = cpu()
    judged = {"distinct": captions.distinct, "fitted": captions.fitted, "judged": len(rows)}
    about = {"name": machine.name, "vnni": machine.vnni, "exact_u8s8": machine.exact_u8s8}
    return Gate(
        tuple(lines), {"captions": judged, **(details or {}), "cpu": machine.name, "cpu_features": about}
    )


def _cosine_lines(
    tower: str, rows: Both, groups: Sequence[str], units: int, thresholds: Thresholds, remark: str
) -> Iterator[Line]:
    """Mean and 1 % worst over samples, of which so many units (groups, or texts) are independent."""
    cosine = (rows.fp32 * rows.int8).sum(axis=1)
    n, mean = len(cosine), mean_interval(cosine, groups)
    yield at_least(
        f"{tower} cosine, mean", float(cosine.mean()), getattr(thresholds, f"{tower}_cosine"), n, remark, mean
    )
    what = f"{n} texts" if tower == "text" else f"{n} samples of {units} groups"
    few = f"of {what}; {ENOUGH_FOR_WORST} would bound it" if units < ENOUGH_FOR_WORST else ""
    worst, limit = float(np.quantile(cosine, 0.01)), getattr(thresholds, f"{tower}_cosine_worst")
    yield at_least(f"{tower} cosine, 1 % worst", worst, limit, n, joined(few, remark))


def _answer_lines(
    both: Any,
    images: Both,
    held_out: Samples,
    prompts: Prompts | None,
    labelled: LabelledSamples | None,
    thresholds: Thresholds,
    remark: str,
) -> Iterator[Line]:
    """Zero-shot agreement, and balanced accuracy where there are labels."""
    limit = thresholds.zero_shot_agreement
    if prompts is not None:
        rows = both("text", text_samples(prompts.tokens, held_out.preprocess), "Class prompts")
        before, after = _zero_shot(images, rows, prompts.prompt_classes)
        yield agreement_line(before, after, held_out.groups or [""] * len(held_out), limit, remark)
    if labelled is None:
        if prompts is None:
            yield Line("zero-shot agreement", None, note="no class prompts given: prompts.classes=[…]")
        yield Line("balanced accuracy lost", None, note="no labelled pictures given")
        return
    rows = both("text", labelled.prompt_samples(), "Class prompts")
    pictures = both("image", labelled.samples(), "Labelled pictures")
    before, after = _zero_shot(pictures, rows, labelled.prompt_classes)
    if prompts is None:
        yield agreement_line(before, after, labelled.groups, limit, f"on {labelled.source}")
    yield accuracy_line(
        before, after, labelled.labels, labelled.groups, thresholds.accuracy_drop, labelled.source
    )


def _zero_shot(images: Both, prompts: Both, classes: NDArray[np.int64]) -> tuple[Any, Any]:
    """Best class numbers of fp32 and of int8, [n] each."""
    sides = ((images.fp32, prompts.fp32), (images.int8, prompts.int8))
    before, after = ((pictures @ class_vectors(rows, classes).T).argmax(axis=1) for pictures, rows in sides)
    return before, after


def _recall_lines(
    images: Both,
    texts: Both,
    captions: Sequence[str],
    together: tuple[Sequence[str], Sequence[str]],
    limit: float,
    remark: str,
) -> Iterator[Line]:
    """R@10 lost in each direction; what has the same caption is the same query, or a match as good.

    Intervals are over what stands or falls together: groups for pictures, groups linked by captions for
    captions.
    """
    names = np.array(captions)
    same = names[:, None] == names[None, :]
    directions = (
        ("text→image", texts, images, together[1]),
        ("image→text", images, texts, together[0]),
    )
    for name, queries, gallery, groups in directions:
        before = found_at(queries.fp32, gallery.fp32, same)
        after = found_at(queries.int8, gallery.int8, same)
        yield recall_line(f"{name} R@10 lost", before, after, groups, limit, remark)
