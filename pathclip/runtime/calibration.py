"""What `pathclip evaluate measure=calibration record=true` left in a model's card, and how it is applied.

The card's `calibration` maps task → precision → the values fitted there: a scale for the softmax, a
threshold of similarity below which a picture is none of the classes, and a threshold of conformal sets.
They hold for the classes, wordings, templates and weights they were fitted with, and for nothing else; so
an entry says all of these. The card may come from anybody: each value is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import DataError, ModelFolderError
from pathclip.model_folder import CARD, LARGEST_SCALE, ModelFolder, shown
from pathclip.types import Label

Floats = NDArray[np.float64]
ConformalMethod = Literal["lac", "aps"]
CONFORMAL_METHODS: tuple[ConformalMethod, ...] = ("lac", "aps")
MOST_TASKS, MOST_CLASSES, MOST_PROMPTS, MOST_LETTERS = 1000, 10_000, 100_000, 1000
MOST_MARKS = 100
MOST_COUNT = 1 << 53  # what a JSON number keeps exactly


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What was fitted on one task in one precision.

    Attributes:
        task: its name in the config.
        precision: 'fp32' or 'int8', of the encoder.
        classes: class → its wordings.
        templates: sentences with `{}` for the class.
        logit_scale: factor of the cosine similarity before the softmax: the model's own over the
            temperature of Guo et al. 2017 (arXiv:1706.04599).
        none_threshold: a picture whose highest cosine similarity is below it is none of the classes; in
            [-1, 1], where -1 rejects nothing.
        conformal_method: 'lac' or 'aps', see `conformal_scores`.
        conformal_threshold: the largest score of a class in the set, in [0, 1].
        coverage: the share of pictures of new groups whose set is to hold their class, in (0, 1).
        known_pass: the share of pictures of known classes that `none_threshold` is to let pass, in (0, 1).
        n: pictures it was fitted on.
        groups: groups of them.
        model_hash: of the weights, see `ModelFolder.hash`.
        data_hash: of the pictures, see `pathclip.evaluate.features.encode.data_hash`.
        code_version: of the code that fitted.
        marks: what is held against it: 'leak' where the model was trained on pictures of the task.
    """

    task: str
    precision: str
    classes: Mapping[str, tuple[str, ...]]
    templates: tuple[str, ...]
    logit_scale: float
    none_threshold: float
    conformal_method: ConformalMethod
    conformal_threshold: float
    coverage: float
    known_pass: float
    n: int
    groups: int
    model_hash: str
    data_hash: str
    code_version: str
    marks: tuple[str, ...] = ()

    def entry(self) -> dict[str, Any]:
        """What the card keeps under task and precision: everything but these two."""
        entry = asdict(self)
        entry["classes"] = {name: list(words) for name, words in self.classes.items()}
        entry["templates"] = list(self.templates)
        entry["marks"] = list(self.marks)
        return {key: value for key, value in entry.items() if key not in ("task", "precision")}

    def answer(self, similarities: NDArray[Any]) -> Answer:
        """Applies the values to the similarities [classes] of one picture, in the order of `classes`."""
        row = np.asarray(similarities, np.float64)
        shares = softmax(row[None], self.logit_scale)
        inside = conformal_scores(shares, self.conformal_method)[0] <= self.conformal_threshold
        names = list(self.classes)
        order = [int(i) for i in np.argsort(-shares[0], kind="stable")]
        return Answer(
            tuple(Label(names[i], float(shares[0, i]), float(row[i])) for i in order),
            tuple(names[i] for i in order if inside[i]),
            bool(row.max() < self.none_threshold),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a calibrated classification says of one picture.

    Attributes:
        labels: all classes, the most probable first.
        possible: the conformal set, in the same order: it holds the class of `coverage` of the pictures of
            groups like those fitted on. It can be empty: then no class is probable enough.
        none: whether the picture is less similar to every class than nearly all pictures of these are.
    """

    labels: tuple[Label, ...]
    possible: tuple[str, ...]
    none: bool


def softmax(similarities: NDArray[Any], logit_scale: float | NDArray[Any]) -> Floats:
    """Softmax of logit_scale x similarity over the classes: [n, c], rows sum to 1.

    Args:
        similarities: cosine similarities [n, c].
        logit_scale: one factor, or one per row [n].

    >>> softmax(np.array([[0.0, 0.0], [0.0, 1.0]]), np.array([1.0, 50.0])).round(3).tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """
    scale = np.broadcast_to(np.asarray(logit_scale, np.float64), (len(similarities),))
    logits = scale[:, None] * np.asarray(similarities, np.float64)
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Floats = raised / raised.sum(axis=1, keepdims=True)
    return shares


def conformal_scores(shares: Floats, method: ConformalMethod = "lac") -> Floats:
    """How strange each class would be for each picture: the set holds those up to a threshold.

    Args:
        shares: probabilities [n, c].
        method: 'lac', one minus the probability, which gives the smallest sets on average (Sadinle, Lei
            and Wasserman 2019, doi:10.1080/01621459.2017.1395341); or 'aps', the probability of all classes
            that are more probable, which adapts to how hard a picture is (Romano, Sesia and Candès 2020,
            arXiv:2006.02544, without its random part and always with the most probable class).

    Returns:
        float64 [n, c] in [0, 1].

    >>> conformal_scores(np.array([[0.7, 0.1, 0.2]]), "aps").round(3).tolist()
    [[0.0, 0.9, 0.7]]
    """
    if method == "lac":
        return 1 - shares
    order = np.argsort(-shares, axis=1, kind="stable")
    ranked = np.take_along_axis(shares, order, axis=1)
    before = np.clip(np.cumsum(ranked, axis=1) - ranked, 0.0, 1.0)
    scores = np.empty_like(before)
    np.put_along_axis(scores, order, before, axis=1)
    return scores


def read_calibrations(folder: ModelFolder) -> list[Calibrated]:
    """Every entry of the card's `calibration`, checked.

    Raises:
        ModelFolderError: an entry is malformed; names its key.
    """
    found = folder.card.get("calibration")
    where = f"{folder.path / CARD}: calibration"
    if found is None:
        return []
    if not isinstance(found, Mapping) or len(found) > MOST_TASKS:
        raise ModelFolderError(f"{where} must map at most {MOST_TASKS} tasks to precisions")
    entries = []
    for task, precisions in found.items():
        if not isinstance(precisions, Mapping):
            raise ModelFolderError(f"{where}.{_shown(task)} must map precisions to fitted values")
        for precision, entry in precisions.items():
            key = f"{where}.{_shown(task)}.{_shown(precision)}"
            if not isinstance(entry, Mapping):
                raise ModelFolderError(f"{key} must be a mapping")
            entries.append(_read(key, _text(task, key), _text(precision, key), entry))
    return entries


def of_task(folder: ModelFolder, task: str, precision: str) -> Calibrated:
    """What was fitted on the named task.

    Raises:
        DataError: no such task, not in this precision, or fitted on other weights; says what there is.
        ModelFolderError: the card's `calibration` is malformed.
    """
    every = read_calibrations(folder)
    mine = {one.precision: one for one in every if one.task == task}
    if not mine:
        known = ", ".join(dict.fromkeys(one.task for one in every))
        raise DataError(
            f"{folder.path}: no calibrated task '{task}'. "
            # Not the name that was asked for: it may be a slip.
            + (f"It has: {known}" if known else f"It has none; to make one: {_how(folder, 'NAME')}")
        )
    how = _how(folder, task)
    if precision not in mine:
        raise DataError(
            f"{folder.path}: task '{task}' is calibrated for {', '.join(mine)}, not for {precision}; "
            f"choose that by --precision, or calibrate again: {how}"
        )
    if mine[precision].model_hash != folder.hash:
        raise DataError(f"{folder.path}: task '{task}' was calibrated with other weights; again: {how}")
    return mine[precision]


def _how(folder: ModelFolder, task: str) -> str:
    return f"pathclip evaluate model={folder.path} task={task} measure=calibration record=true"


def of_classes(folder: ModelFolder, classes: Iterable[str], precision: str) -> Calibrated | None:
    """What was fitted on a task with exactly these classes, in this precision and with these weights.

    Of several the one that was fitted on the most groups; None if there is none.

    Raises:
        ModelFolderError: the card's `calibration` is malformed.
    """
    wanted = frozenset(classes)
    fitting = [
        one
        for one in read_calibrations(folder)
        if one.precision == precision and one.model_hash == folder.hash and wanted == frozenset(one.classes)
    ]
    return max(fitting, key=lambda one: one.groups, default=None)


def _read(key: str, task: str, precision: str, entry: Mapping[str, Any]) -> Calibrated:
    classes = _classes(entry.get("classes"), f"{key}.classes")
    templates = _texts(entry.get("templates"), f"{key}.templates")
    if any("{}" not in template for template in templates):
        raise ModelFolderError(f"{key}.templates: each needs {{}} where the class goes")
    if len(templates) * sum(map(len, classes.values())) > MOST_PROMPTS:
        raise ModelFolderError(f"{key}: more than {MOST_PROMPTS} prompts")
    method = entry.get("conformal_method")
    if method not in CONFORMAL_METHODS:
        raise ModelFolderError(
            f"{key}.conformal_method must be {' or '.join(CONFORMAL_METHODS)}, not {_shown(method)}"
        )

    def number(name: str, low: float, high: float) -> float:
        return _number(entry.get(name), f"{key}.{name}", low, high)

    def count(name: str) -> int:
        return _count(entry.get(name), f"{key}.{name}")

    def text(name: str) -> str:
        return _text(entry.get(name), f"{key}.{name}")

    return Calibrated(
        task=task,
        precision=precision,
        classes=classes,
        templates=templates,
        logit_scale=number("logit_scale", 0.0, LARGEST_SCALE),
        none_threshold=number("none_threshold", -1.0, 1.0),
        conformal_method=method,
        conformal_threshold=number("conformal_threshold", 0.0, 1.0),
        coverage=number("coverage", 0.0, 1.0),
        known_pass=number("known_pass", 0.0, 1.0),
        n=count("n"),
        groups=count("groups"),
        model_hash=text("model_hash"),
        data_hash=text("data_hash"),
        code_version=text("code_version"),
        marks=_marks(entry.get("marks", []), f"{key}.marks"),
    )


def _classes(value: Any, key: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, Mapping) or not 2 <= len(value) <= MOST_CLASSES:
        raise ModelFolderError(f"{key} must map 2 to {MOST_CLASSES} classes to their wordings")
    return {_text(name, key): _texts(words, f"{key}.{_shown(name)}") for name, words in value.items()}


def _texts(value: Any, key: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_PROMPTS:
        raise ModelFolderError(f"{key} must be a list of one text or more")
    return tuple(_text(one, key) for one in value)


def _marks(value: Any, key: str) -> tuple[str, ...]:
    """Optional: cards of earlier versions have none."""
    if not isinstance(value, list) or len(value) > MOST_MARKS:
        raise ModelFolderError(f"{key} must be a list of at most {MOST_MARKS} texts")
    return tuple(_text(one, key) for one in value)


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > MOST_LETTERS:
        raise ModelFolderError(f"{key} must be a text of 1 to {MOST_LETTERS} letters, not {_shown(value)}")
    return value


def _number(value: Any, key: str, low: float, high: float) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not low <= value <= high:  # NaN is in no range
        raise ModelFolderError(f"{key} must be a number in {low:g} to {high:g}, not {_shown(value)}")
    return float(value)


def _count(value: Any, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_COUNT:
        raise ModelFolderError(f"{key} must be a whole number of at least 1, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """A value of the card for a message of one line, however long it is."""
    plain = isinstance(value, str) and value.isprintable() and len(value) <= 60
    return value if plain else shown(value)
