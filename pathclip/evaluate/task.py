"""What every evaluation task takes and gives; a task is data (`conf/task/`) on one of two classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate.datasets import LabelledImages
from pathclip.evaluate.features.encode import Encoded
from pathclip.evaluate.leaks import Leak, find_leak, leak_remarks, telling_hashes
from pathclip.evaluate.marks import Marks
from pathclip.evaluate.profile import Profile
from pathclip.evaluate.reporting.report import Section
from pathclip.evaluate.stats import Interval
from pathclip.evaluate.subjects import Subject
from pathclip.types import Score

FEW_GROUPS = 10  # with fewer, the ends of an interval hang on single groups


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run sets for all its tasks.

    Attributes:
        batch_size: pictures per call of an encoder.
        seed: of random colours, bootstrap and baselines.
        resamples: of the bootstrap.
        limit: pictures per split at most; None for all.
        code_version: goes into every score.
        measures: what zero-shot tasks measure besides, by name; see `Measure`.
        cache: folder of features of earlier runs; None for none.
        cache_limit: GiB that it may grow to.
        profile: takes the times of the run's parts; None for none.
    """

    batch_size: int = 32
    seed: int = 0
    resamples: int = 10_000
    limit: int | None = None
    code_version: str = ""
    measures: Mapping[str, Measure] = field(default_factory=dict)
    cache: str | None = None
    cache_limit: float = 20.0
    profile: Profile | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """What one encoder said of each picture or query: what two runs are compared by.

    Attributes:
        about: task, method, variant and the encoder's own entries, as a score's context has them.
        items: what names each picture: the SHA-256 of its bytes; of a query also direction and definition.
        groups: what must not be split, of each; '' where it is not known.
        truth: class of each; None for a retrieval.
        answer: class that was said; None for a retrieval.
        sure: probability of that class in [0, 1]; None where there is none.
        rank: of the first right item, from 1; None for a classification.
    """

    about: Mapping[str, Any]
    items: tuple[str, ...]
    groups: tuple[str, ...]
    truth: tuple[str, ...] | None = None
    answer: tuple[str, ...] | None = None
    sure: NDArray[np.float64] | None = None
    rank: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a task, or a part of one, gives.

    Attributes:
        scores: every figure.
        sections: of the report, in order.
        remarks: what a reader must know before believing the figures.
        about: for `report.json`: licence, citation, prompts, counts.
        answers: of each encoder, to compare runs by.
        fitted: what the model's card is to keep, by precision: see `pathclip.runtime.calibration`.
    """

    scores: tuple[Score, ...]
    sections: tuple[Section, ...]
    remarks: tuple[str, ...]
    about: Mapping[str, Any]
    answers: tuple[Answers, ...] = ()
    fitted: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Split:
    """Labelled pictures after encoding.

    Attributes:
        images: what they are.
        truth: class numbers int64 [n].
        groups: group numbers int64 [n], from `stats.group_index`.
        encoded: their embeddings, colours and hashes.
    """

    images: LabelledImages
    truth: NDArray[np.int64]
    groups: NDArray[np.int64]
    encoded: Encoded


@dataclass(frozen=True, slots=True)
class Measured:
    """A zero-shot task whose pictures are encoded: what every `Measure` starts from.

    Attributes:
        name: the task's, in the config.
        subjects: the encoders.
        settings: of the run.
        classes: class → its wordings.
        templates: sentences with `{}` for the class.
        variants: of 'plain' and 'randomised_colour'.
        vectors: subject's key → class vectors float32 [classes, d], all prompts of a class averaged.
        test: what is measured on.
        train: what may be learnt from; None if the task has no such rows.
        validation: what thresholds and the like may be fitted on; None if the task has no such rows.
        context: what every score of the task says: task, data hash, groups, prompts, code version ….
        marks: what is held against its scores.
    """

    name: str
    subjects: Sequence[Subject]
    settings: Settings
    classes: Mapping[str, Sequence[str]]
    templates: Sequence[str]
    variants: Sequence[str]
    vectors: Mapping[str, NDArray[np.float32]]
    test: Split
    train: Split | None
    validation: Split | None
    context: Mapping[str, Any]
    marks: Marks = field(default_factory=Marks)


class Measure(Protocol):
    """A further measurement of a zero-shot task, as data in `conf/measure/`."""

    learns: ClassVar[bool]
    """Whether it needs the embeddings of the training rows."""

    def run(self, measured: Measured) -> TaskResult:
        """Measures; `about` of the result goes into `report.json` under the measure's name."""


class Task(Protocol):
    """A measurement of encoders on data."""

    def run(self, name: str, subjects: Sequence[Subject], settings: Settings) -> TaskResult:
        """Measures every subject; `name` is the task's in the config."""


def subject_context(subject: Subject) -> dict[str, Any]:
    """What a score says of the encoder it belongs to."""
    return {
        "by": subject.title,
        "model": subject.encoder.name,
        "role": subject.role,
        "model_hash": subject.model_hash,
        "precision": subject.encoder.precision,
        "runtime": subject.encoder.runtime,
    }


def leaks(subjects: Sequence[Subject], encoded: Encoded) -> tuple[dict[str, Leak], list[str]]:
    """What is known of leaked test pictures per subject's key, and remarks on them."""
    found: dict[int, Leak] = {}  # by what was trained on: that is the same in every precision of a model
    remarks: list[str] = []
    for one in subjects:
        if id(one.seen) in found:
            continue
        telling = telling_hashes(encoded)
        found[id(one.seen)] = find_leak(one.seen, encoded.sha256, encoded.perceptual, telling)
        if one.role == "model":
            remarks += leak_remarks(one.encoder.name, found[id(one.seen)], one.seen)
    return {one.key: found[id(one.seen)] for one in subjects}, remarks


def few_groups(groups: int) -> list[str]:
    """What a reader must be told of intervals over so few groups, if anything.

    >>> few_groups(9)
    ['9 groups only: the intervals say little.']
    >>> few_groups(10)
    []
    """
    if groups == 1:
        return ["1 group only: there are no intervals."]
    return [f"{groups} groups only: the intervals say little."] if groups < FEW_GROUPS else []


def score(name: str, found: Interval, n: int, context: Mapping[str, Any]) -> Score:
    """A Score of an interval."""
    return Score(name, found.value, n, found.low, found.high, dict(context))


def exact(value: float) -> Interval:
    """A figure that is known and not estimated, such as chance."""
    return Interval(value, value, value)


def compared(first: Subject, second: Subject) -> dict[str, Any]:
    """Context of a paired difference, first minus second."""
    by = f"{first.encoder.precision} minus {second.encoder.precision}"
    if first.role != second.role:
        by = f"{first.key} minus {second.key}"
    return {
        "method": "paired_difference",
        "by": by,
        "first": subject_context(first),
        "second": subject_context(second),
    }


def paired(subjects: Sequence[Subject]) -> list[tuple[Subject, Subject]]:
    """The comparisons worth an interval: int8 minus fp32, and the model minus the untrained one."""
    of = {subject.key: subject for subject in subjects}
    pairs = []
    if "model int8" in of and "model fp32" in of:
        pairs.append((of["model int8"], of["model fp32"]))
    trained = of.get("model fp32", of.get("model int8"))
    untrained = next((subject for subject in subjects if subject.role == "untrained"), None)
    if trained and untrained:
        pairs.append((trained, untrained))
    return pairs
