"""What a measure may learn from, and the scores of what was learnt.

Linear probe, few-shot, nearest neighbours and fine-tuning share it: pictures that are tested on are never
learnt from, nor are others of their groups; whatever must be chosen is chosen on other rows than those tested
on; and figures are means over the seeds with an interval over the groups of the test rows, the spread over
seeds beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate import stats
from pathclip.evaluate.classification import zeroshot
from pathclip.evaluate.features.encode import data_hash
from pathclip.evaluate.reporting.report import words
from pathclip.evaluate.stats import Interval, Resampled
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Answers, Measured, Split, compared, paired, score, subject_context
from pathclip.types import Score

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]
FIGURES = tuple(zeroshot.METRICS)
BALANCED = "balanced_accuracy"


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a split.

    Attributes:
        split: which.
        numbers: int64 [m], ascending.
    """

    split: Split
    numbers: Numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def truth(self) -> Numbers:
        """Class numbers int64 [m]."""
        return self.split.truth[self.numbers]

    @property
    def groups(self) -> Numbers:
        """Group numbers int64 [m]; not those of another split."""
        return self.split.groups[self.numbers]

    def embeddings(self, key: str, variant: str) -> NDArray[np.float32]:
        """Of a subject by its key, float32 [m, d]."""
        return self.split.encoded.embeddings[key][variant][self.numbers]

    def colours(self, variant: str) -> Floats:
        """Colour features float64 [m, 54]."""
        return self.split.encoded.colours[variant][self.numbers]


@dataclass(frozen=True, slots=True)
class Learnable:
    """What a task lets a measure learn from.

    Attributes:
        train: rows to learn from: of the training rows those that are not tested on, nor of a tested group.
        validation: rows to choose on: of the validation rows those that are in neither; None for none.
        remarks: what was left out.
        refusal: why nothing can be learnt; '' if it can.
    """

    train: Rows | None
    validation: Rows | None = None
    remarks: tuple[str, ...] = ()
    refusal: str = ""


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


def learnable(measured: Measured) -> Learnable:
    """The rows to learn from and to choose on, without what is tested on.

    A picture is left out if its bytes are those of a test picture, or its group, where that is known, is
    among the test rows.
    """
    if measured.train is None:
        return Learnable(None, refusal="the task has no rows to learn from")
    test = measured.test
    kept, remark = _apart(measured.train, [test], "training")
    remarks = [remark] if remark else []
    train = Rows(measured.train, kept)
    for number, name in enumerate(measured.classes):
        if not (train.truth == number).any():
            refusal = f"class '{name}' has no example among the {len(train)} pictures to learn from"
            return Learnable(None, remarks=tuple(remarks), refusal=refusal)
    validation = None
    if measured.validation is not None:
        kept, remark = _apart(measured.validation, [test, measured.train], "validation")
        remarks += [remark] if remark else []
        validation = Rows(measured.validation, kept) if len(kept) else None
    return Learnable(train, validation, tuple(remarks))


def share_of_groups(truth: Numbers, groups: Numbers, share: float, seed: int, spare: int = 0) -> NDArray[Any]:
    """Chooses about this share of the groups of each class, whole groups, at least one.

    The same seed chooses from a smaller share what it chooses from a larger one, so subsets are nested. A
    group with pictures of several classes counts as one of the class that most of them have.

    Args:
        truth: int64 [m].
        groups: int64 [m].
        share: in (0, 1].
        seed: of the order of the groups.
        spare: groups of each class that are not chosen in any case.

    Returns:
        bool [m]: the rows of the chosen groups.
    """
    names, index = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(truth.max(initial=0)) + 1), np.int64)
    np.add.at(counts, (index, truth), 1)
    mostly = counts.argmax(axis=1)
    order = np.random.default_rng(seed).permutation(len(names))
    chosen = np.zeros(len(names), bool)
    for number in range(counts.shape[1]):
        own = order[mostly[order] == number]
        wanted = max(1, round(share * len(own)))
        chosen[own[: max(0, min(wanted, len(own) - spare))]] = True
    return chosen[index]


def inner_split(rows: Rows, share: float, seed: int) -> tuple[Numbers, Numbers] | None:
    """Divides training rows by group into those to fit on and those to choose on.

    Args:
        rows: the training rows.
        share: of each class's groups that is chosen on.
        seed: of the choice.

    Returns:
        Places in `rows` to fit on and to choose on, every class among the former; None if no class has two
        groups.
    """
    held = share_of_groups(rows.truth, rows.groups, share, seed, spare=1)
    if not held.any() or len(np.unique(rows.truth[~held])) < len(np.unique(rows.truth)):
        return None
    return np.flatnonzero(~held), np.flatnonzero(held)


def learning_scores(
    measured: Measured,
    given: Learnable,
    predictions: Sequence[Predictions],
    figures: Sequence[str] = FIGURES,
) -> list[Score]:
    """Scores of what was learnt, and the paired differences of balanced accuracy as in `task.paired`.

    A score is the mean over the seeds; its interval is over the groups of the test rows, all seeds measured
    on the same resamples. `sd_over_seeds` in its context is the standard deviation over seeds, None of one.
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
            about = {
                **shared,
                "variant": variant,
                **compared(first, second),
                **dict(detail),
                "learnt_by": method,
            }
            about["by"] = f"{words(method)}, {about['by']}"
            scores.append(score(f"{BALANCED}_difference", interval, n, about))
    return scores


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


def require(option: str, value: Any, holds: bool, need: str) -> None:
    """Refuses an option of a measure.

    Raises:
        ValueError: it does not hold; names option, need and value. `pathclip.config.build` adds the key.
    """
    if not holds:
        raise ValueError(f"{option}: {need} is needed, not {value}")


def _apart(split: Split, others: Sequence[Split], name: str) -> tuple[Numbers, str]:
    """Rows of a split whose bytes and groups are in none of the others, and a remark on those that are."""
    known = {digest for other in others for digest in other.encoded.sha256}
    tested = {group for other in others for group in other.images.groups if group}
    same = np.array([digest in known for digest in split.encoded.sha256], bool)
    near = np.array([group in tested for group in split.images.groups], bool) & ~same
    remark = ""
    if left := int(same.sum() + near.sum()):
        where = "to test on" if len(others) == 1 else "to test on or to learn from"
        remark = (
            f"Leaking split: {left} of {len(same)} {name} pictures were left out: {int(same.sum())} are "
            f"themselves among the pictures {where}, {int(near.sum())} more are of groups that are."
        )
    return np.flatnonzero(~same & ~near), remark


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
    return tuple((key, one.about[key]) for key in ("shots", "fraction") if key in one.about)
