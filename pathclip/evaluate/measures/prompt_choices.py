"""Prompt robustness: the figures over all choices of prompts, so that nobody reports one lucky prompt.

A zero-shot figure depends on how the classes are put into words, by many points for one model and the same
pictures. A choice is one template for all classes and one wording for each class, independently. Here every
choice is measured, or of too many a sample, and the distribution shown: with the ensemble of all prompts, and
with the first template and wordings alone, as figures are mostly published.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import ConfigError, DataError
from pathclip.evaluate import profile, stats
from pathclip.evaluate.classification import zeroshot
from pathclip.evaluate.measures.prompt_sections import prompt_remarks, prompt_section
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Measured, Settings, TaskResult, score, subject_context
from pathclip.progress import track
from pathclip.runtime.classify import fill
from pathclip.types import Score

Numbers = NDArray[np.int64]
METHOD = "prompt_choices"
METRICS = {name: zeroshot.METRICS[name] for name in ("balanced_accuracy", "weighted_f1")}
QUANTILES = {"minimum": 0.0, "lower_quartile": 0.25, "median": 0.5, "upper_quartile": 0.75, "maximum": 1.0}


@dataclass(frozen=True, slots=True)
class Choices:
    """Which prompts are tried.

    Attributes:
        classes: class → its wordings.
        templates: sentences with `{}` for the class.
        rows: int64 [choices, 1 + classes]: number of the template, then of each class's wording. The first
            is the first template with the first wordings.
        total: how many choices there are.
    """

    classes: Mapping[str, Sequence[str]]
    templates: Sequence[str]
    rows: Numbers
    total: int

    def prompts(self, number: int) -> dict[str, Any]:
        """One choice as a score's context has prompts: its template, and the wording of each class."""
        row = self.rows[number]
        words = {
            name: [several[place]]
            for (name, several), place in zip(self.classes.items(), row[1:], strict=True)
        }
        return {"templates": [self.templates[row[0]]], "classes": words}

    def texts(self) -> list[str]:
        """Every prompt there is, class by class, in it wording by wording, in it template by template."""
        return [fill(t, word) for words in self.classes.values() for word in words for t in self.templates]

    def columns(self) -> Numbers:
        """Which of `texts` each class has in each choice, int64 [choices, classes]."""
        sizes = [len(words) for words in self.classes.values()]
        starts = np.cumsum([0, *sizes[:-1]])
        return (starts + self.rows[:, 1:]) * len(self.templates) + self.rows[:, :1]


@dataclass(frozen=True, slots=True)
class Tried:
    """What one encoder reached in one variant.

    Attributes:
        subject: the encoder.
        variant: 'plain' or 'randomised_colour'.
        values: metric → float64 [choices].
        ensemble: metric → what all prompts averaged reach.
    """

    subject: Subject
    variant: str
    values: Mapping[str, NDArray[np.float64]]
    ensemble: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class PromptChoices:
    """Balanced accuracy and weighted F1 over the choices of prompts.

    Attributes:
        most: choices that are tried; of more a sample of this size is drawn. It always has every template
            with the first wording of each class.
    """

    most: int = 2000
    learns: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ConfigError(f"most: {self.most} is no number of at least 1 (choices of prompts)")

    def run(self, measured: Measured) -> TaskResult:
        """Measures every subject in every variant.

        Raises:
            DataError: the text tower gives NaN for a prompt; names it.
        """
        classes = {name: list(words) or [name] for name, words in measured.classes.items()}
        choices = prompt_choices(classes, measured.templates, self.most, measured.settings.seed)
        about: dict[str, Any] = {"choices": len(choices.rows), "of": choices.total}
        if choices.total == 1:
            return TaskResult(
                (), (), ("There is one prompt per class only, so no choice to measure.",), about
            )
        tried, scores = [], []
        for subject in measured.subjects:
            vectors = _text_vectors(subject, choices, measured.settings)
            for variant in track(measured.variants, f"{measured.name}: prompts of {subject.key}"):
                similar = vectors @ measured.test.encoded.embeddings[subject.key][variant].T
                found = _tried(measured, choices, subject, variant, similar)
                tried.append(found)
                scores += _scores(measured, choices, found, similar)
        remarks = prompt_remarks(choices, tried)
        about["distributions"] = [_summary(one) for one in tried]
        sections = [prompt_section(measured.name, choices, tried)] if tried else []
        return TaskResult(tuple(scores), tuple(sections), tuple(remarks), about)


def prompt_choices(
    classes: Mapping[str, Sequence[str]], templates: Sequence[str], most: int, seed: int
) -> Choices:
    """All choices of prompts, or `most` different ones of them.

    Args:
        classes: class → at least one wording.
        templates: at least one.
        most: choices at most, though never fewer than the templates.
        seed: of the sample; every choice is as likely to be in it, but those with the first wording of each
            class, which are in it for certain.
    """
    sizes = [len(templates), *(len(words) for words in classes.values())]
    total = math.prod(sizes)
    if total <= most:
        rows = np.stack(np.unravel_index(np.arange(total), sizes), axis=1)
        return Choices(classes, templates, rows.astype(np.int64), total)
    kept = dict.fromkeys((number, *[0] * len(classes)) for number in range(len(templates)))
    rng = np.random.default_rng([seed, *sizes])
    while len(kept) < most:
        for row in rng.integers(0, sizes, (most, len(sizes))).tolist():
            if len(kept) < most:
                kept.setdefault(tuple(row))
    return Choices(classes, templates, np.array(list(kept), np.int64), total)


def answers(similar: NDArray[np.float32], columns: Numbers) -> Numbers:
    """The nearest class of each picture under one choice of prompts; of equals the first.

    Args:
        similar: cosine similarities [prompts, n].
        columns: which prompt each class has, [classes].

    Returns:
        int64 [n].
    """
    small = np.dtype(np.uint8 if len(columns) <= 256 else np.uint32)  # several times as fast as int64
    best, said = similar[columns[0]].copy(), np.zeros(similar.shape[1], small)
    for number, column in enumerate(columns[1:], 1):
        better = similar[column] > best
        np.maximum(best, similar[column], out=best)
        np.maximum(said, better * small.type(number), out=said)  # a later class has a higher number
    return said.astype(np.int64)


def _tried(
    measured: Measured, choices: Choices, subject: Subject, variant: str, similar: NDArray[np.float32]
) -> Tried:
    truth, classes = measured.test.truth, len(measured.classes)
    true = np.bincount(truth, minlength=classes)
    columns = choices.columns()
    hits, predicted = (np.empty((len(columns), classes), np.int64) for _ in range(2))
    for number, row in enumerate(columns):
        said = answers(similar, row)
        hits[number] = np.bincount(truth[said == truth], minlength=classes)
        predicted[number] = np.bincount(said, minlength=classes)
    counts = zeroshot.Margins(hits, np.broadcast_to(true, hits.shape), predicted)
    embeddings = measured.test.encoded.embeddings[subject.key][variant]
    said = zeroshot.predict(zeroshot.similarities(embeddings, measured.vectors[subject.key]))
    together = zeroshot.confusion_matrix(truth, said, classes)
    return Tried(
        subject,
        variant,
        {name: metric(counts) for name, metric in METRICS.items()},
        {name: float(metric(together)) for name, metric in METRICS.items()},
    )


def _scores(measured: Measured, choices: Choices, tried: Tried, similar: NDArray[np.float32]) -> list[Score]:
    """The quantiles, each of a choice that was tried; its interval holds that choice fixed."""
    columns = choices.columns()
    picked = [
        (name, quantile, _at_quantile(tried.values[name], share))
        for name in METRICS
        for quantile, share in QUANTILES.items()
    ]
    said = [answers(similar, columns[number]) for _, _, number in picked]
    test, settings = measured.test, measured.settings
    margins = zeroshot.grouped_margins(test.truth, said, len(measured.classes), test.groups)
    drawn = stats.bootstrap_many(margins, _both_metrics, settings.resamples, settings.seed)
    about = {"method": METHOD, "variant": tried.variant, **subject_context(tried.subject)}
    about |= {"choices": len(choices.rows), "of": choices.total}
    return [
        score(
            f"{name}_prompt_{quantile}",
            drawn.interval(place, list(METRICS).index(name)),
            len(test.truth),
            {**measured.context, **about, "prompts": choices.prompts(number)},
        )
        for place, (name, quantile, number) in enumerate(picked)
    ]


def _at_quantile(values: NDArray[np.float64], share: float) -> int:
    """The choice at a quantile: the lower one of two."""
    order = np.argsort(values, kind="stable")
    return int(order[math.floor(share * (len(values) - 1))])


def _both_metrics(*margins: Any) -> NDArray[np.float64]:
    counts = zeroshot.Margins(*margins)
    counts = counts._replace(true=np.broadcast_to(counts.true, counts.hits.shape))
    return np.stack([metric(counts) for metric in METRICS.values()], axis=-1)


def _text_vectors(subject: Subject, choices: Choices, settings: Settings) -> NDArray[np.float32]:
    """L2-normalised float32 [prompts, d]."""
    texts = choices.texts()
    with profile.measured(settings.profile, "encoder", f"{subject.key}, prompts"):
        vectors = subject.encoder.encode_texts(texts)
    good = np.isfinite(vectors).all(axis=1)
    if not good.all():
        raise DataError(f"'{texts[int(np.argmin(good))]}': its embedding by {subject.title} is not a number")
    return vectors


def _summary(tried: Tried) -> dict[str, Any]:
    """For `report.json`: where the ensemble and the first choice stand among all."""
    found: dict[str, Any] = {"variant": tried.variant, **subject_context(tried.subject)}
    for name, values in tried.values.items():
        found[name] = {
            "quantiles": {
                key: float(values[_at_quantile(values, share)]) for key, share in QUANTILES.items()
            },
            "mean": float(values.mean()),
            "ensemble": tried.ensemble[name],
            "first_template": float(values[0]),
            "share_not_above_ensemble": float((values <= tried.ensemble[name]).mean()),
            "share_not_above_first_template": float((values <= values[0]).mean()),
        }
    return found
