"""Does the int8 model answer as the fp32 model does, on every CPU? Measured on samples nothing was fitted to.

How a figure is judged, and what its interval has to do with it, stands in `pathclip.export.verdict`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.config import nearest
from pathclip.errors import ConfigError, PathclipError
from pathclip.export.answers import (
    accuracy_line,
    agreement_line,
    class_vectors,
    found_at,
    mean_interval,
    recall_line,
)
from pathclip.export.reference import check_layers
from pathclip.export.samples import LabelledSamples, Samples, text_samples
from pathclip.export.saturation import saturation
from pathclip.export.session import embed, open_session
from pathclip.export.verdict import Line, at_least, at_most
from pathclip.runtime.cpu import cpu

TOWERS = ("image", "text")
SPEED_ROUNDS = 5
RUNTIME_SAMPLES = 32
# Fewer samples do not bound the 1 % quantile from below at 95 %: 0.99²⁹⁹ < 0.05.
ENOUGH_FOR_WORST = 299
NAMED = 3  # layers that a note names


class ExportGateError(PathclipError):
    """The int8 model is too far from the fp32 model; nothing was written."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What an int8 model must reach.

    Attributes:
        image_cosine: mean cosine similarity to fp32 over the held-out images, at least.
        image_cosine_worst: the 1 % quantile of the same, at least.
        text_cosine: as `image_cosine`, for the held-out captions.
        text_cosine_worst: as `image_cosine_worst`.
        zero_shot_agreement: share of images with the same best class, at least.
        recall_drop: loss of R@10 on the held-out pairs, in each direction, at most.
        accuracy_drop: loss of balanced zero-shot accuracy on the labelled pictures, at most.
        runtime_cosine: mean cosine similarity, over samples, of the embeddings as onnxruntime rewrites and
            runs the graph to those of the graph as it is written, at least.
        runtime_cosine_worst: the least of the same, at least.
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
    runtime_cosine_worst: float = 0.995
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

    def as_json(self) -> dict[str, Any]:
        """Content of `gate.json`."""
        return {
            "passed": self.passed,
            "not_measured": [line.name for line in self.lines if line.value is None],
            "not_proven": [line.name for line in self.lines if line.proven is False],
            "lines": [asdict(line) for line in self.lines],
            **self.details,
        }

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


@dataclass(frozen=True, slots=True)
class Both:
    """Embeddings of the same samples by both precisions.

    Attributes:
        fp32: L2-normalised [n, d].
        int8: the same samples.
    """

    fp32: NDArray[np.float32]
    int8: NDArray[np.float32]


def compare(
    fp32: Mapping[str, Path],
    int8: Mapping[str, Path],
    held_out: Samples,
    thresholds: Thresholds,
    prompts: Prompts | None = None,
    details: Mapping[str, Any] | None = None,
    labelled: LabelledSamples | None = None,
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
    """

    def both(tower: str, samples: Samples, what: str) -> Both:
        return Both(*(embed(files[tower], tower, samples, progress=what) for files in (fp32, int8)))

    # A picture whose group nobody knows is one of its own.
    groups = held_out.groups or ("",) * len(held_out)
    images, texts = both("image", held_out, "Held-out pictures"), both("text", held_out, "Held-out captions")
    lines = [
        *_cosine_lines("image", images, groups, thresholds),
        *_cosine_lines("text", texts, held_out.texts, thresholds),
        *_answer_lines(both, images, held_out, prompts, labelled, thresholds),
        *_recall_lines(images, texts, held_out.texts, thresholds.recall_drop),
        _size_line(fp32, int8, thresholds.size_ratio),
    ]
    for tower, rows in (("image", images), ("text", texts)):
        lines += [
            _saturation_line(tower, int8[tower], thresholds.saturating_layers),
            _reference_line(tower, int8[tower], held_out, thresholds.reference_differs),
            *_runtime_lines(tower, int8[tower], held_out, rows.int8, thresholds),
        ]
    lines += [speed_line(tower, fp32[tower], int8[tower], held_out) for tower in TOWERS]
    machine = cpu()
    about = {"name": machine.name, "vnni": machine.vnni, "exact_u8s8": machine.exact_u8s8}
    return Gate(tuple(lines), {**(details or {}), "cpu": machine.name, "cpu_features": about})


def speed_line(tower: str, fp32: Path, int8: Path, samples: Samples) -> Line:
    """Samples per second int8 over fp32 at batch 16, both timed in turn; for information only."""
    feed = next(samples.feeds(tower))
    sessions = [open_session(fp32), open_session(int8)]
    times: list[list[float]] = [[], []]
    for session in sessions:
        session.run(None, feed)
    for _ in range(SPEED_ROUNDS):
        for session, taken in zip(sessions, times, strict=True):
            start = time.perf_counter()
            session.run(None, feed)
            taken.append(time.perf_counter() - start)
    slow, fast = (float(np.median(taken)) for taken in times)
    n = len(next(iter(feed.values())))
    note = f"{n / slow:.0f} → {n / fast:.0f} per second, onnxruntime on {cpu_name()}"
    if slow <= fast:
        note += "; no faster here, the gain is size alone"
    return Line(f"{tower} speed, int8 / fp32", slow / fast, n=n, note=note)


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    return cpu().name


def _cosine_lines(tower: str, rows: Both, groups: Sequence[str], thresholds: Thresholds) -> Iterator[Line]:
    cosine = (rows.fp32 * rows.int8).sum(axis=1)
    n, mean = len(cosine), mean_interval(cosine, groups)
    yield at_least(
        f"{tower} cosine, mean", float(cosine.mean()), getattr(thresholds, f"{tower}_cosine"), n, "", mean
    )
    few = f"of {n} samples; {ENOUGH_FOR_WORST} would bound it" if n < ENOUGH_FOR_WORST else ""
    worst, limit = float(np.quantile(cosine, 0.01)), getattr(thresholds, f"{tower}_cosine_worst")
    yield at_least(f"{tower} cosine, 1 % worst", worst, limit, n, few)


def _answer_lines(
    both: Any,
    images: Both,
    held_out: Samples,
    prompts: Prompts | None,
    labelled: LabelledSamples | None,
    thresholds: Thresholds,
) -> Iterator[Line]:
    """Zero-shot agreement, and balanced accuracy where there are labels."""
    limit = thresholds.zero_shot_agreement
    if prompts is not None:
        rows = both("text", text_samples(prompts.tokens, held_out.preprocess), "Class prompts")
        before, after = _zero_shot(images, rows, prompts.prompt_classes)
        yield agreement_line(before, after, held_out.groups or [""] * len(held_out), limit)
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


def _recall_lines(images: Both, texts: Both, captions: Sequence[str], limit: float) -> Iterator[Line]:
    """R@10 lost in each direction; what has the same caption is the same query, or a match as good."""
    names = np.array(captions)
    same = names[:, None] == names[None, :]
    directions = (
        ("text→image", texts, images, captions),
        ("image→text", images, texts, [""] * len(captions)),
    )
    for name, queries, gallery, groups in directions:
        before = found_at(queries.fp32, gallery.fp32, same)
        after = found_at(queries.int8, gallery.int8, same)
        yield recall_line(f"{name} R@10 lost", before, after, groups, limit)


def _size_line(fp32: Mapping[str, Path], int8: Mapping[str, Path], limit: float) -> Line:
    before, after = (sum(file.stat().st_size for file in files.values()) for files in (fp32, int8))
    note = f"{before / 1e6:.1f} MB → {after / 1e6:.1f} MB"
    return at_most("size, int8 / fp32", after / before, limit, note=note)


def _saturation_line(tower: str, int8: Path, limit: float) -> Line:
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


def _reference_line(tower: str, int8: Path, held_out: Samples, limit: float) -> Line:
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


def _runtime_lines(
    tower: str, int8: Path, held_out: Samples, as_run: NDArray[np.float32], thresholds: Thresholds
) -> list[Line]:
    """The graph as onnxruntime rewrites and fuses it, beside the graph as it is written.

    onnxruntime's optimiser quantises float weights that stand between quantised tensors, per tensor and
    with 8 bits (its WeightBiasQuantization), so a layer kept in fp32 may not be in fp32 when it runs. What is
    left where all is well are values that lie on the border of two steps and fall to either side.
    """
    few = held_out.part(0, RUNTIME_SAMPLES)
    cosine = (as_run[: len(few)] * embed(int8, tower, few, optimise=False)).sum(axis=1)
    name = f"{tower} cosine to the graph as written"
    return [
        at_least(f"{name}, mean", float(cosine.mean()), thresholds.runtime_cosine, len(few)),
        at_least(f"{name}, least", float(cosine.min()), thresholds.runtime_cosine_worst, len(few)),
    ]
