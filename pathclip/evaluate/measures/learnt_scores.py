"""Scores of what was learnt, and its answers.

Figures are means over the seeds with an interval over the groups of the test rows, the spread over seeds
beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pathclip.evaluate import stats
from pathclip.evaluate.classification import zeroshot
from pathclip.evaluate.features.encode import data_hash
from pathclip.evaluate.measures.learning import Floats, Learnable, Numbers
from pathclip.evaluate.reporting.report import words
from pathclip.evaluate.stats import Interval, Resampled
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Answers, Measured, compared, paired, score, subject_context
from pathclip.types import Score

FIGURES = tuple(zeroshot.METRICS)
BALANCED = "balanced_accuracy"


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a classifier that was learnt says of the test rows.

    Attributes:
        method: 'linear_probe' …, as scores name it.
        variant: 'plain' or 'randomised_colour', of what it learnt from and is tested on.
        classes: int64 [seeds, n].
        subject: whose embeddings it learnt from; None for colours alone.
        about: what else the scores say; what tells it from others of the same method, such as the shots.
        sure: probability of the class said by the first seed, float64 [n]; None where there is none.
    """

    method: str
    variant: str
    classes: Numbers
    subject: Subject | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    sure: Floats | None = None


def learning_scores(
    measured: Measured,
    given: Learnable,
    predictions: Sequence[Predictions],
    figures: Sequence[str] = FIGURES,
) -> list[Score]:
    """Scores of what was learnt, and the paired differences of balanced accuracy as in `task.paired`.

    A score is the mean over the seeds; its interval is over the groups of the test rows, all seeds measured
    on the same resamples. `sd_over_seeds` in its context is the standard deviation over seeds, None of one.
    What is held against the scores is in their context, see `marks.Marks`.
    """
    assert given.train is not None
    train = given.train
    labels = [train.split.images.labels[number] for number in train.numbers]
    groups = [train.split.images.groups[number] for number in train.numbers]
    hashes = [train.split.encoded.sha256[number] for number in train.numbers]
    shared = {
        **measured.context,
        "learnt_from": len(train),
        "train_data_hash": data_hash(hashes, labels, groups),
    }
    n, scores, drawn = len(measured.test.truth), [], {}
    for one, found in zip(predictions, _resample(measured, predictions, figures), strict=True):
        spread = seed_values(measured, one.classes, figures)
        about = {**shared, "variant": one.variant, "method": one.method, "seeds": len(one.classes)}
        about |= subject_context(one.subject) if one.subject else {}
        about |= one.about
        for number, name in enumerate(figures):
            sd = float(spread[:, number].std(ddof=1)) if len(spread) > 1 else None
            scores.append(score(name, found.interval(number), n, {**about, "sd_over_seeds": sd}))
        if one.subject:
            drawn[one.method, one.variant, _detail(one), one.subject.key] = (one, found)
    place = list(figures).index(BALANCED)
    for method, variant, detail in dict.fromkeys(key[:3] for key in drawn):
        own = {key[3]: value for key, value in drawn.items() if key[:3] == (method, variant, detail)}
        for first, second in paired([one.subject for one, _ in own.values() if one.subject]):
            interval = _difference(own[first.key][1], own[second.key][1], place)
            one = own[first.key][0]
            about = {
                **shared,
                "variant": variant,
                **compared(first, second),
                **dict(detail),
                # As the scores that are compared have it: learnt on the same rows.
                **{key: one.about[key] for key in ("learnt_from", "centred_by") if key in one.about},
                "learnt_by": method,
            }
            about["by"] = f"{words(method)}, {about['by']}"
            scores.append(score(f"{BALANCED}_difference", interval, n, about))
    return measured.marks.put(scores, learnt=True)


def seed_values(measured: Measured, classes: Numbers, figures: Sequence[str]) -> Floats:
    """Figures of each seed on all test rows: [seeds, figures]; `classes` int64 [seeds, n]."""
    truth, count = measured.test.truth, len(measured.classes)
    confusions = np.stack([zeroshot.confusion_matrix(truth, row, count) for row in classes])
    return np.stack([np.asarray(zeroshot.METRICS[name](confusions)) for name in figures], axis=-1)


def learning_answers(measured: Measured, predictions: Sequence[Predictions]) -> tuple[Answers, ...]:
    """What each encoder's classifier said of the test rows, by the first seed."""
    test, names = measured.test, list(measured.classes)
    return tuple(
        Answers(
            {
                "task": measured.name,
                "method": one.method,
                "variant": one.variant,
                **subject_context(one.subject),
                **dict(_detail(one)),
                **{key: one.about[key] for key in ("by", "precision", "runtime") if key in one.about},
            },
            tuple(test.encoded.sha256),
            tuple(test.images.groups),
            tuple(names[number] for number in test.truth),
            tuple(names[number] for number in one.classes[0]),
            one.sure,
        )
        for one in predictions
        if one.subject
    )


def _resample(
    measured: Measured, predictions: Sequence[Predictions], figures: Sequence[str]
) -> list[Resampled]:
    """For each prediction its figures, means over the seeds, of all rows and of every resample."""
    if list(figures) == [BALANCED]:
        return _resample_recalls(measured, predictions)
    truth, groups = measured.test.truth, measured.test.groups
    count, settings = len(measured.classes), measured.settings

    def resample(classes: Numbers) -> Resampled:
        rows, times = np.unique(classes, axis=0, return_counts=True)
        confusions = [zeroshot.grouped_confusion(truth, row, count, groups) for row in rows]

        def statistic(sums: Floats) -> Any:
            values = [zeroshot.METRICS[name](sums) @ times / len(classes) for name in figures]
            return np.stack(values, axis=-1)

        sums = np.stack(confusions, axis=1)
        return stats.bootstrap_many(sums, statistic, settings.resamples, settings.seed)

    return [resample(one.classes) for one in predictions]


def _resample_recalls(measured: Measured, predictions: Sequence[Predictions]) -> list[Resampled]:
    """Balanced accuracies alone: the mean over seeds of recalls is the recall of the hits of all seeds.

    So each prediction takes one column per class, however many seeds it has.
    """
    if not predictions:
        return []
    truth, settings = measured.test.truth, measured.settings
    seeds = np.array([len(one.classes) for one in predictions], np.float64)
    own = np.eye(len(measured.classes))[truth]
    hits = np.stack([(one.classes == truth).sum(axis=0) for one in predictions], axis=1)
    sums = [
        stats.group_sums(hits[:, :, None] * own[:, None], measured.test.groups),
        stats.group_sums(own, measured.test.groups),
    ]

    def statistic(found: Floats, pictures: Floats) -> Any:
        with np.errstate(invalid="ignore"):
            return np.nanmean(found / (seeds[:, None] * pictures[:, None]), axis=-1)

    both = stats.bootstrap_many(sums, statistic, settings.resamples, settings.seed)
    return [Resampled(both.value[[i]], both.drawn[:, [i]]) for i in range(len(predictions))]


def _difference(first: Resampled, second: Resampled, place: int) -> Interval:
    drawn = first.drawn[:, place] - second.drawn[:, place]
    return Interval(float(first.value[place] - second.value[place]), *stats.quantiles(drawn))


def _detail(one: Predictions) -> tuple[tuple[str, Any], ...]:
    """What tells it from others of its method; see `report.DETAILS`."""
    return tuple((key, one.about[key]) for key in ("shots", "fraction") if key in one.about)
