"""Does the int8 model give the answers of the fp32 model? Measured on samples that nothing was fitted to."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.config import nearest
from pathclip.errors import ConfigError, PathclipError
from pathclip.export.samples import Samples
from pathclip.export.session import embed, open_session
from pathclip.runtime.encoder import normalise

SPEED_ROUNDS = 5
SPEED_BATCH = 16
SIGNIFICANT = 0.05


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
        recall_drop: loss of text→image R@10 on the held-out pairs, at most; more is let pass where the sign
            test cannot tell it from chance, as with few pairs.
        runtime_gap: how much farther from fp32 the graph may be as onnxruntime rewrites it than as it is
            written, in 1 - mean cosine, at most.
        size_ratio: bytes of int8 over bytes of fp32, both towers, at most.
    """

    image_cosine: float = 0.97
    image_cosine_worst: float = 0.90
    text_cosine: float = 0.97
    text_cosine_worst: float = 0.93
    zero_shot_agreement: float = 0.90
    recall_drop: float = 0.03
    runtime_gap: float = 0.005
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
class Line:
    """One figure of the gate.

    Attributes:
        name: what was measured.
        value: the figure; None where it could not be measured.
        threshold: the limit; None where the figure is for information.
        passed: whether it holds; None where it is for information or was not measured.
        n: samples.
        note: what else to know.
    """

    name: str
    value: float | None
    threshold: float | None = None
    passed: bool | None = None
    n: int = 0
    note: str = ""


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


def compare(
    fp32: Mapping[str, Path],
    int8: Mapping[str, Path],
    held_out: Samples,
    thresholds: Thresholds,
    prompts: Prompts | None = None,
    details: Mapping[str, Any] | None = None,
) -> Gate:
    """Measures every line of the gate.

    Args:
        fp32: 'image' and 'text' → fp32 ONNX file.
        int8: likewise, int8.
        held_out: pairs that took no part in calibration.
        thresholds: limits.
        prompts: of the classes to compare zero-shot answers on.
        details: what else goes into `gate.json`.
    """
    exact = {tower: embed(fp32[tower], tower, held_out) for tower in ("image", "text")}
    small = {tower: embed(int8[tower], tower, held_out) for tower in ("image", "text")}
    lines: list[Line] = []
    for tower in ("image", "text"):
        cosine = (exact[tower] * small[tower]).sum(axis=1)
        limit, worst = (getattr(thresholds, f"{tower}_cosine{end}") for end in ("", "_worst"))
        lines += [
            _at_least(f"{tower} cosine, mean", float(cosine.mean()), limit, len(cosine)),
            _at_least(f"{tower} cosine, 1 % worst", float(np.quantile(cosine, 0.01)), worst, len(cosine)),
            _runtime_line(tower, int8[tower], held_out, exact[tower], thresholds.runtime_gap),
        ]
    lines.append(_zero_shot_line(fp32, int8, exact, small, held_out, prompts, thresholds))
    lines.append(_recall_line(exact, small, held_out.texts, thresholds))
    sizes = {"fp32": _size(fp32), "int8": _size(int8)}
    lines.append(
        _at_most(
            "size, int8 / fp32",
            sizes["int8"] / sizes["fp32"],
            thresholds.size_ratio,
            note=f"{sizes['fp32'] / 1e6:.1f} MB → {sizes['int8'] / 1e6:.1f} MB",
        )
    )
    lines += [speed_line(tower, fp32[tower], int8[tower], held_out) for tower in ("image", "text")]
    return Gate(tuple(lines), {**(details or {}), "cpu": cpu_name()})


def found_at(
    queries: NDArray[Any], gallery: NDArray[Any], same: NDArray[np.bool_], k: int = 10
) -> NDArray[np.bool_]:
    """Whether each query has a true match among the k most similar.

    Args:
        queries: L2-normalised [q, d].
        gallery: L2-normalised [g, d].
        same: bool [q, g], which pairs match.
        k: cut-off.

    Returns:
        bool [q].
    """
    top = np.argsort(-(queries @ gallery.T), axis=1, kind="stable")[:, :k]
    return np.asarray(np.take_along_axis(same, top, axis=1).any(axis=1))


def sign_test(lost: int, gained: int) -> float:
    """Chance of at least `lost` losses among lost + gained changes that go either way alike (one-sided)."""
    changed = lost + gained
    return sum(math.comb(changed, count) for count in range(lost, changed + 1)) / 2**changed


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
    note = f"{n / slow:.0f} → {n / fast:.0f} per second, onnxruntime on this machine"
    if slow <= fast:
        note += "; no faster here, the gain is size alone"
    return Line(f"{tower} speed, int8 / fp32", slow / fast, n=n, note=note)


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _runtime_line(tower: str, int8: Path, held_out: Samples, exact: np.ndarray, limit: float) -> Line:
    """Compares the graph as onnxruntime rewrites it with the graph as written.

    onnxruntime's optimiser quantises float weights that stand between quantised tensors, per tensor and
    with 8 bits (its WeightBiasQuantization), so a layer kept in fp32 may not be in fp32 when it runs.
    """
    few = held_out.part(0, 32)
    gaps = [
        1 - float((embed(int8, tower, few, optimise) * exact[: len(few)]).sum(axis=1).mean())
        for optimise in (True, False)
    ]
    return _at_most(f"{tower} fidelity lost to the runtime's rewriting", gaps[0] - gaps[1], limit, len(few))


def _zero_shot_line(
    fp32: Mapping[str, Path],
    int8: Mapping[str, Path],
    exact: Mapping[str, np.ndarray],
    small: Mapping[str, np.ndarray],
    held_out: Samples,
    prompts: Prompts | None,
    thresholds: Thresholds,
) -> Line:
    name = "zero-shot agreement"
    if prompts is None:
        return Line(name, None, note="no class prompts given: prompts.classes=[…]")
    answers = []
    for files, images in ((fp32, exact["image"]), (int8, small["image"])):
        blank = np.zeros((len(prompts.tokens), 1, 1, 3), np.uint8)
        texts = Samples(blank, prompts.tokens, ("",) * len(prompts.tokens), held_out.preprocess)
        rows = embed(files["text"], "text", texts)
        # As pathclip.runtime.classify does it: a class whose templates disagree must not count for less.
        classes = normalise(rows.reshape(len(prompts.classes), -1, rows.shape[1]).mean(axis=1))
        answers.append((images @ classes.T).argmax(axis=1))
    agreement = float((answers[0] == answers[1]).mean())
    return _at_least(name, agreement, thresholds.zero_shot_agreement, len(held_out))


def _recall_line(
    exact: Mapping[str, np.ndarray],
    small: Mapping[str, np.ndarray],
    texts: Sequence[str],
    thresholds: Thresholds,
) -> Line:
    captions = np.array(texts)
    same = captions[:, None] == captions[None, :]
    before, after = (found_at(side["text"], side["image"], same) for side in (exact, small))
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    value, limit = float(before.mean() - after.mean()), thresholds.recall_drop
    chance = sign_test(lost, gained)
    note = f"{before.mean():.3f} → {after.mean():.3f}; {lost} lost, {gained} gained, p {chance:.2g}"
    passed = bool(value <= limit or chance > SIGNIFICANT)
    if passed and value > limit:
        note += ": over the limit, but too few to tell from chance"
    return Line("text→image R@10 lost", value, limit, passed, len(texts), note)


def _at_least(name: str, value: float, limit: float, n: int = 0, note: str = "") -> Line:
    return Line(name, value, limit, bool(value >= limit), n, note)


def _at_most(name: str, value: float, limit: float, n: int = 0, note: str = "") -> Line:
    return Line(name, value, limit, bool(value <= limit), n, note)


def _size(files: Mapping[str, Path]) -> int:
    return sum(file.stat().st_size for file in files.values())
