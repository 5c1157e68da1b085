"""What colour alone can tell, and pictures whose colour tells nothing.

Stain and scanner follow the hospital, and the hospital often follows the diagnosis: a classifier that
sees only mean colours reaches 0.95 on some public sets. So every zero-shot score stands beside a
classifier that sees nothing else, and is measured a second time under randomised colour, where only
morphology is left.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

BRIGHTNESS = CONTRAST = 0.4
SATURATION = 0.8
HUE = 0.5
BINS = 16
# The first six features are the moments (mean, then deviation, of R, G and B); the rest the histograms.
MOMENTS = slice(0, 6)


def randomise_colour(image: Image.Image, seed: int | Sequence[int]) -> Image.Image:
    """The picture with a random hue, saturation, brightness and contrast, in a random order.

    The same family as torchvision's `ColorJitter(0.4, 0.4, 0.8, 0.5)`: factors uniform in 1 ± the
    strength, the hue anywhere on the circle.

    Args:
        image: RGB.
        seed: decides everything; the same seed gives the same picture.

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
        image = adjust(image, str(name), float(factors[name]))
    return image


def adjust(image: Image.Image, what: str, factor: float) -> Image.Image:
    """One adjustment, with the same result as torchvision's on PIL images.

    Args:
        image: RGB.
        what: 'brightness', 'contrast' or 'saturation', where factor 1 changes nothing and 0 leaves
            black, the mean grey or the greyscale picture; or 'hue'.
        factor: for 'hue' the part of the circle in [-0.5, 0.5] to turn it by.
    """
    from PIL import Image, ImageEnhance

    if what == "brightness":
        return ImageEnhance.Brightness(image).enhance(factor)
    if what == "contrast":
        return ImageEnhance.Contrast(image).enhance(factor)
    if what == "saturation":
        return ImageEnhance.Color(image).enhance(factor)
    hue, saturation, value = image.convert("HSV").split()
    turn = int(factor * 255)
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


def classify_by_colour(
    train: NDArray[np.float64], labels: NDArray[np.int64], test: NDArray[np.float64], seed: int = 0
) -> NDArray[np.int64]:
    """Classes of test rows [m, f] by logistic regression on standardised colour features.

    Args:
        train: features [n, f] of the task's training rows, in the same colour mode as `test`.
        labels: int64 [n].
        test: features [m, f].
        seed: of the solver.

    Returns:
        int64 [m]. If the training rows have one class only, that class.
    """
    if len(np.unique(labels)) < 2:
        return np.full(len(test), labels[0], np.int64)
    return _classifier(seed).fit(train, labels).predict(test)


def cross_classify_by_colour(
    rows: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int = 0
) -> NDArray[np.int64] | None:
    """The same for a task without training rows: each fifth of the groups by the other four.

    Returns:
        int64 [n]; None if there are too few groups for two folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(5, len(np.unique(groups)), int(np.bincount(labels).max()))
    if folds < 2:
        return None
    found = np.zeros(len(rows), np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a rare class with fewer examples than folds
        for inside, outside in splitter.split(rows, labels, groups):
            found[outside] = classify_by_colour(rows[inside], labels[inside], rows[outside], seed)
    return found


def picture_seed(sha256: str, seed: int) -> tuple[int, int]:
    """The seed of one picture: the same bytes get the same colours, wherever they stand in the data."""
    return seed, int(sha256[:16], 16)


def _classifier(seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, random_state=seed))


def majority_class(labels: NDArray[np.int64], classes: int) -> int:
    """The most frequent class, of equals the first.

    >>> majority_class(np.array([1, 1, 0]), 2)
    1
    """
    return int(np.argmax(np.bincount(labels, minlength=classes)))


def chance(classes: int) -> float:
    """Balanced accuracy, and expected accuracy, of a uniform guess: 1 / classes."""
    return math.nan if classes < 1 else 1 / classes
