"""What colour alone can tell, and pictures whose colour tells nothing.

Stain and scanner follow the hospital, and the hospital often follows the diagnosis: a classifier that
sees only the colours reaches 0.9 and more on some public sets. So every zero-shot score stands beside a
classifier that sees nothing else, and is measured a second time under randomised colour, where the
pictures of a class share no hue and no brightness any more. That does not leave morphology alone: spread
and contrast of a histogram still tell something, which is why the classifier is measured there as well.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pathclip.runtime.cores import available_cores

if TYPE_CHECKING:
    from PIL import Image

    from pathclip.evaluate.features.hues import HueTables

BRIGHTNESS = CONTRAST = 0.4
SATURATION = 0.8
HUE = 0.5
BINS = 16
# The first six features are the moments (mean, then deviation, of R, G and B); the rest the histograms.
MOMENTS = slice(0, 6)
CLASSIFIERS = ("linear model", "random forest")
FOLDS, FOLDS_TO_CHOOSE = 5, 3
TREES, ROWS_PER_TREE = 100, 5000


def randomise_colour(
    image: Image.Image, seed: int | Sequence[int], tables: HueTables | None = None
) -> Image.Image:
    """The picture with a random hue, saturation, brightness and contrast, in a random order.

    The same family as torchvision's `ColorJitter(0.4, 0.4, 0.8, 0.5)`: factors uniform in 1 ± the
    strength, the hue anywhere on the circle.

    Args:
        image: RGB.
        seed: decides everything; the same seed gives the same picture.
        tables: for many pictures; they change the time it takes, not the picture.

    Returns:
        A new RGB image of the same size.
    """
    rng = np.random.default_rng(seed)
    factors = {
        "brightness": rng.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS),
        "contrast": rng.uniform(1 - CONTRAST, 1 + CONTRAST),
        "saturation": rng.uniform(1 - SATURATION, 1 + SATURATION),
        "hue": rng.uniform(-HUE, HUE),
    }
    for name in rng.permutation(list(factors)):
        image = adjust(image, str(name), float(factors[name]), tables)
    return image


def adjust(image: Image.Image, what: str, factor: float, tables: HueTables | None = None) -> Image.Image:
    """One adjustment, with the same result as torchvision's on PIL images.

    Args:
        image: RGB.
        what: 'brightness', 'contrast' or 'saturation', where factor 1 changes nothing and 0 leaves
            black, the mean grey or the greyscale picture; or 'hue'.
        factor: for 'hue' the part of the circle in [-0.5, 0.5] to turn it by.
        tables: make turning the hue of many pictures faster, see `pathclip.evaluate.features.hues`.
    """
    from PIL import Image, ImageEnhance

    if what == "brightness":
        return ImageEnhance.Brightness(image).enhance(factor)
    if what == "contrast":
        counts = image.convert("L").histogram()  # as ImageEnhance.Contrast, which takes twice as long
        grey = int(sum(level * count for level, count in enumerate(counts)) / sum(counts) + 0.5)
        return Image.blend(Image.new("RGB", image.size, (grey, grey, grey)), image, factor)
    if what == "saturation":
        return ImageEnhance.Color(image).enhance(factor)
    turn = int(factor * 255)
    if tables is not None:
        return tables.turn(image, turn)
    hue, saturation, value = image.convert("HSV").split()
    hue = hue.point([(level + turn) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def features(image: Image.Image) -> NDArray[np.float64]:
    """What a look at the colours alone gives: mean, deviation, histogram of each channel.

    Args:
        image: RGB.

    Returns:
        float64 [54]: means and standard deviations of R, G, B (0–255), then for each channel the share
        of pixels in 16 equal bins.
    """
    counts = np.array(image.histogram(), np.float64).reshape(3, 256)
    shares = counts / counts.sum(axis=1, keepdims=True)
    levels = np.arange(256)
    mean = shares @ levels
    variance = np.maximum(shares @ levels**2 - mean**2, 0)
    binned = shares.reshape(3, BINS, -1).sum(axis=2)
    return np.concatenate([mean, np.sqrt(variance), binned.ravel()])


@dataclass(frozen=True, slots=True)
class ColourAnswers:
    """What colour alone says of m pictures.

    Attributes:
        classes: int64 [m].
        classifier: which of `CLASSIFIERS` said so; 'one class' where there was nothing to choose.
    """

    classes: NDArray[np.int64]
    classifier: str


def classify_by_colour(
    train: NDArray[np.float64],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    test: NDArray[np.float64],
    seed: int = 0,
) -> ColourAnswers:
    """Classes of test rows by the better of a linear model and a random forest on colour features.

    Which is better is asked of the training rows alone; see `better_classifier`. A linear model can read
    where a colour lies, but not how far it is spread, and that is what randomised colour leaves.

    Args:
        train: features [n, f] of the task's training rows, in the same colour mode as `test`.
        labels: int64 [n].
        groups: int64 [n], what must not be split, of the training rows.
        test: features [m, f].
        seed: of folds and classifiers.

    Returns:
        Answers for the m rows. If the training rows have one class only, that class.
    """
    if len(np.unique(labels)) < 2:
        return ColourAnswers(np.full(len(test), labels[0], np.int64), "one class")
    name = better_classifier(train, labels, groups, seed)
    return ColourAnswers(_answers(name, train, labels, test, seed), name)


def cross_classify_by_colour(
    rows: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int = 0
) -> ColourAnswers | None:
    """The same for a task without training rows: each fifth of the groups by the other four.

    The classifier is chosen anew for each fifth, by its four others alone.

    Returns:
        Answers for the n rows; None if there are too few groups for two folds.
    """
    folds = _folds(labels, groups, FOLDS, seed)
    if not folds:
        return None
    found = np.zeros(len(rows), np.int64)
    chosen: Counter[str] = Counter()
    for inside, outside in folds:
        answers = classify_by_colour(rows[inside], labels[inside], groups[inside], rows[outside], seed)
        found[outside] = answers.classes
        chosen[answers.classifier] += 1
    names = [f"{name} in {count} of {len(folds)} folds" for name, count in chosen.most_common()]
    return ColourAnswers(found, ", ".join(names))


def better_classifier(
    rows: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int = 0
) -> str:
    """The one of `CLASSIFIERS` with the higher balanced accuracy in a cross-validation by group.

    The linear model, which has less to overfit with, where they are equal or there are too few groups.
    """
    from sklearn.metrics import balanced_accuracy_score

    folds = _folds(labels, groups, FOLDS_TO_CHOOSE, seed)
    best, highest = CLASSIFIERS[0], -math.inf
    for name in CLASSIFIERS if folds else ():
        found = np.zeros(len(rows), np.int64)
        for inside, outside in folds:
            found[outside] = _answers(name, rows[inside], labels[inside], rows[outside], seed)
        value = float(balanced_accuracy_score(labels, found))
        if value > highest:
            best, highest = name, value
    return best


def picture_seed(sha256: str, seed: int) -> tuple[int, int]:
    """The seed of one picture: the same bytes get the same colours, wherever they stand in the data."""
    return seed, int(sha256[:16], 16)


def majority_class(labels: NDArray[np.int64], classes: int) -> int:
    """The most frequent class, of equals the first.

    >>> majority_class(np.array([1, 1, 0]), 2)
    1
    """
    return int(np.argmax(np.bincount(labels, minlength=classes)))


def _answers(
    name: str,
    train: NDArray[np.float64],
    labels: NDArray[np.int64],
    test: NDArray[np.float64],
    seed: int,
) -> NDArray[np.int64]:
    if len(np.unique(labels)) < 2:
        return np.full(len(test), labels[0], np.int64)
    found: NDArray[np.int64] = _classifier(name, len(train), seed).fit(train, labels).predict(test)
    return found


def _classifier(name: str, rows: int, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if name == CLASSIFIERS[0]:
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, random_state=seed))
    return RandomForestClassifier(
        TREES,
        min_samples_leaf=2,
        max_samples=min(rows, ROWS_PER_TREE),
        random_state=seed,
        n_jobs=available_cores() if rows > ROWS_PER_TREE // 10 else 1,  # threads cost more than few rows do
    )


def _folds(
    labels: NDArray[np.int64], groups: NDArray[np.int64], most: int, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(rows inside, rows outside) of each fold, groups whole, classes spread; none if two are too many."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(most, len(np.unique(groups)), int(np.bincount(labels).max()))
    if folds < 2:
        return []
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a rare class with fewer examples than folds
        parts = splitter.split(np.zeros(len(labels)), labels, groups)
        return [(inside, outside) for inside, outside in parts if len(inside) and len(outside)]
