"""Fine-tuning at a part of the labels: how few a classifier needs that starts from this image tower.

The settings are those of the code that PLIP was released with (Huang et al. 2023,
doi:10.1038/s41591-023-02504-3; PathologyFoundation/plip, `reproducibility/scripts/fine_tuning_train.py`): a
linear head on the image embedding as it leaves the tower, cross-entropy, AdamW with weight decay 0.1, batches
of 128, 10 epochs, a cosine schedule without warm-up, no augmentation; the learning rate out of five is the
one that is best at the last epoch on 30 % of the pictures, then all are trained on.

Other than there, what is trained on and what the rate is chosen on are whole groups, the figure chosen by is
balanced accuracy, and the rows are shuffled anew in each epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pathclip.errors import ConfigError
from pathclip.evaluate.marks import learnt_colour_remarks
from pathclip.evaluate.measures.learning import (
    Learnable,
    Numbers,
    Rows,
    inner_split,
    learnable,
    require,
    share_of_groups,
)
from pathclip.evaluate.measures.learning_sections import (
    learning_about,
    learning_section,
    lines_with_intervals,
    not_measured,
    points_of,
)
from pathclip.evaluate.measures.learnt_scores import Predictions, learning_answers, learning_scores
from pathclip.evaluate.reporting import report
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Measured, TaskResult
from pathclip.model_folder import WEIGHTS, open_model_folder
from pathclip.progress import track
from pathclip.types import Score

if TYPE_CHECKING:
    from pathclip.evaluate.measures.tower_training import Pixels, TunedTower

METHOD = "fine_tuning"
# Whichever of a folder's encoders was measured: it is the weights in torch that are trained.
PRECISION, RUNTIME = "fp32", "torch"


@dataclass(frozen=True, slots=True)
class FineTuning:
    """Image tower and linear head, trained together.

    Attributes:
        fractions: of each class's groups, at least one; a smaller fraction lies within a larger one.
        learning_rates: to choose from; a single one is taken as it is.
        epochs: through the rows.
        batch_size: pictures per step.
        weight_decay: of AdamW.
        inner_share: of the groups that are trained on, to choose the rate on without validation rows.
        seeds: of head, order and chosen groups.
        device: 'cpu', 'cuda', or 'auto': cuda where there is one.
    """

    fractions: Sequence[float] = (0.01, 0.05, 0.1, 0.5, 1.0)
    learning_rates: Sequence[float] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
    epochs: int = 10
    batch_size: int = 128
    weight_decay: float = 0.1
    inner_share: float = 0.3
    seeds: int = 1
    device: str = "auto"
    learns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        shares = list(self.fractions)
        require("fractions", shares, bool(shares) and min(shares) > 0 and max(shares) <= 1, "shares up to 1")
        rates = list(self.learning_rates)
        require("learning_rates", rates, bool(rates) and min(rates) > 0, "at least one number above 0")
        require("inner_share", self.inner_share, 0 < self.inner_share < 1, "a share between 0 and 1")
        require("weight_decay", self.weight_decay, self.weight_decay >= 0, "0 or more")
        require("device", self.device, self.device in ("auto", "cpu", "cuda"), "auto, cpu or cuda")
        for name in ("epochs", "batch_size", "seeds"):
            require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")

    def run(self, measured: Measured) -> TaskResult:
        """Fine-tunes each model folder once, in every variant.

        Raises:
            ConfigError: a single learning rate is too large for the weights to stay numbers; no such device.
            ModelFolderError: a folder's weights were changed or cannot be loaded.
            DataError: a picture cannot be read; no room for the pixels.
        """
        given = learnable(measured)
        subjects, remarks = trainable(measured.subjects)
        if given.train is None or not subjects:
            refusal = given.refusal or "no encoder can be trained"
            left = Learnable(None, remarks=(*given.remarks, *remarks), refusal=refusal)
            return not_measured(measured, "Fine-tuning", left)
        jobs, more = self._jobs(measured, given)
        if not jobs:
            refusal = "no part of the labels has an example of every class"
            left = Learnable(None, remarks=(*given.remarks, *remarks, *more), refusal=refusal)
            return not_measured(measured, "Fine-tuning", left)
        predictions, rates = [], {}
        for subject in subjects:
            for variant in measured.variants:
                steps = self._subject(measured, given, subject, variant, jobs)
                total = sum(self._steps(job) for job in jobs)
                what = f"{measured.name}: fine-tuning {subject.role}, {report.words(variant)}"
                found: list[tuple[_Job, float, Numbers]] = []
                for done in track(steps, what, total):
                    found += [done] if done else []
                for fraction in dict.fromkeys(job.fraction for job in jobs):
                    own = [(job, rate, said) for job, rate, said in found if job.fraction == fraction]
                    rates[f"{subject.key}, {variant}, {fraction:g}"] = [rate for _, rate, _ in own]
                    predictions.append(_predictions(subject, variant, fraction, own))
        scores = learning_scores(measured, given, predictions)
        most = max(job.fraction for job in jobs)
        remarks = [*given.remarks, *remarks, *more, *learnt_colour_remarks(scores, measured.marks)]
        title = f"{measured.name}: fine-tuning"
        chart = _charts(measured, subjects, scores)
        section = learning_section(title, scores, remarks, self._caption(measured), chart)
        return TaskResult(
            tuple(scores),
            (section,),
            tuple(remarks),
            learning_about(given, learning_rates=rates),
            learning_answers(measured, [one for one in predictions if one.about["fraction"] == most]),
        )

    def _jobs(self, measured: Measured, given: Learnable) -> tuple[list[_Job], list[str]]:
        """Which rows are trained on, per fraction and seed; fractions without every class are left out."""
        jobs, remarks = [], []
        for fraction in sorted({*self.fractions}):
            first = measured.settings.seed
            found = [self._job(given, fraction, seed) for seed in range(first, first + self.seeds)]
            if any(len(np.unique(job.rows.truth)) < len(measured.classes) for job in found):
                remarks.append(f"{fraction:.0%} of the labels left out: not every class is among them.")
                continue
            jobs += found
            if len(self.learning_rates) > 1 and not all(len(job.fit) for job in found):
                remarks.append(
                    f"{fraction:.0%} of the labels: too few groups to choose a learning rate on; it is the "
                    f"middle one, {self._middle():g}."
                )
        return jobs, remarks

    def _job(self, given: Learnable, fraction: float, seed: int) -> _Job:
        assert given.train is not None
        train = given.train
        chosen = share_of_groups(train.truth, train.groups, fraction, seed)
        rows = _some(train, np.flatnonzero(chosen))
        if given.validation is not None:
            return _Job(fraction, seed, rows, rows, given.validation)
        nothing = np.zeros(0, np.int64)
        fit, held = inner_split(rows, self.inner_share, seed) or (nothing, nothing)
        return _Job(fraction, seed, rows, _some(rows, fit), _some(rows, held))

    def _middle(self) -> float:
        return sorted(self.learning_rates)[len(self.learning_rates) // 2]

    def _steps(self, job: _Job) -> int:
        """Steps of the optimiser for one fraction and seed."""
        choices = len(self.learning_rates) if len(self.learning_rates) > 1 else 0
        fit, rows = (-(-len(part) // self.batch_size) for part in (job.fit, job.rows))
        return self.epochs * (choices * fit + rows)

    def _subject(
        self, measured: Measured, given: Learnable, subject: Subject, variant: str, jobs: Sequence[_Job]
    ) -> Iterator[tuple[_Job, float, Numbers] | None]:
        """Yields None for each step, and what was learnt after the steps of each job."""
        from pathclip.evaluate.measures.tower_training import TunedTower, pixels_of

        assert given.train is not None
        preprocess, seed = subject.encoder.preprocess, measured.settings.seed
        train = held = pixels_of(given.train.split, preprocess, variant, seed)
        if given.validation is not None:
            held = pixels_of(given.validation.split, preprocess, variant, seed)
        test = pixels_of(measured.test, preprocess, variant, seed)
        tower = TunedTower(
            open_model_folder(subject.encoder.folder.path),
            preprocess,
            len(measured.classes),
            (self.epochs, self.batch_size, self.weight_decay),
            self.device,
        )
        for job in jobs:
            rate = self._middle()
            if len(self.learning_rates) > 1 and len(job.fit):
                values = []
                for one in self.learning_rates:
                    yield from tower.train(train, job.fit.numbers, job.fit.truth, one, job.seed)
                    values.append(_balanced(tower, held, job.held))
                rate = self.learning_rates[int(np.argmax(values))]
            yield from tower.train(train, job.rows.numbers, job.rows.truth, rate, job.seed)
            logits = tower.logits(test, np.arange(len(measured.test.truth)))
            if not np.isfinite(logits).all():
                raise ConfigError(
                    f"learning_rates: at {rate:g} the weights of {subject.title} are no numbers any more; "
                    "take a smaller one"
                )
            yield job, rate, logits.argmax(axis=1)

    def _caption(self, measured: Measured) -> str:
        return (
            "Image tower and a linear head, trained on a part of the labels: whole groups, the smaller part "
            f"within the larger. {self.epochs} epochs of AdamW in batches of {self.batch_size}; PLIP "
            "published 10 in batches of 128. Learning rates are chosen on other rows than the "
            f"{len(measured.test.truth)} tested on."
        )


@dataclass(frozen=True, slots=True)
class _Job:
    """What is trained on at one fraction and seed.

    Attributes:
        rows: to train on.
        fit: those of them to train on for the choice of a rate; none if it cannot be chosen.
        held: to choose on.
    """

    fraction: float
    seed: int
    rows: Rows
    fit: Rows
    held: Rows


def trainable(subjects: Sequence[Subject]) -> tuple[list[Subject], list[str]]:
    """One subject per model folder with torch weights, fp32 rather than int8; and why not the others."""
    found: dict[str, Subject] = {}
    remarks = []
    for one in subjects:
        folder = getattr(one.encoder, "folder", None)
        if folder is None or not folder.has(WEIGHTS):
            remarks.append(f"{one.title} is not fine-tuned: its folder has no {WEIGHTS}, only what runs it.")
        elif find_spec("torch") is None:
            remarks.append(f"{one.title} is not fine-tuned: torch is missing; pip install 'pathclip[train]'.")
        else:
            path = str(folder.path.resolve())
            if path not in found or one.encoder.precision == "fp32":
                found[path] = one
    return list(found.values()), remarks


def _balanced(tower: TunedTower, pixels: Pixels, rows: Rows) -> float:
    """Balanced accuracy of the tower as it is; -1 where it gives no numbers."""
    from sklearn.metrics import balanced_accuracy_score

    logits = tower.logits(pixels, rows.numbers)
    if not np.isfinite(logits).all():
        return -1.0
    return float(balanced_accuracy_score(rows.truth, logits.argmax(axis=1)))


def _some(rows: Rows, places: Numbers) -> Rows:
    return Rows(rows.split, rows.numbers[places])


def _predictions(
    subject: Subject, variant: str, fraction: float, found: Sequence[tuple[_Job, float, Numbers]]
) -> Predictions:
    about: dict[str, Any] = {
        "fraction": fraction,
        "learning_rate": [rate for _, rate, _ in found],
        "learnt_from": round(float(np.mean([len(job.rows) for job, _, _ in found]))),
        "precision": PRECISION,
        "runtime": RUNTIME,
        "by": f"{subject.title.rpartition(' (')[0]} ({PRECISION}, {RUNTIME})",
    }
    return Predictions(METHOD, variant, np.stack([said for _, _, said in found]), subject, about)


def _charts(measured: Measured, subjects: Sequence[Subject], scores: Sequence[Score]) -> str:
    """Share of the labels against balanced accuracy: one chart per variant, one line per model folder."""
    parts = []
    for variant in measured.variants:
        lines = {
            one.title.rpartition(" (")[0]: [
                (100 * share, value, low, high)
                for share, value, low, high in points_of(scores, "fraction", one, variant, METHOD, PRECISION)
            ]
            for one in subjects
        }
        drawing = lines_with_intervals(lines, "% of the labels")
        parts.append(f"<h3>{report.escape(report.words(variant).capitalize())}</h3>{drawing}")
    return "".join(parts)
