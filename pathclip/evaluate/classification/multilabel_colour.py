"""What colour alone tells of pictures with any number of classes; see `pathclip.evaluate.features.colour`."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate.classification import ranking
from pathclip.evaluate.features.colour import CLASSIFIERS, FOLDS, FOLDS_TO_CHOOSE, ROWS_PER_TREE, TREES

Floats = NDArray[np.float64]
Present = NDArray[np.bool_]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ColourScores:
    """What colour alone says of m pictures.

    Attributes:
        scores: how probable each class is, float64 [m, c].
        classifier: which of `colour.CLASSIFIERS` said so.
    """

    scores: Floats
    classifier: str


def presence_by_colour(
    train: Floats, present: Present, groups: Numbers, test: Floats, seed: int = 0
) -> ColourScores:
    """Scores of test rows by the better of linear models, one per class, and a random forest of all classes.

    Which is better, by macro AUROC across groups, is asked of the training rows alone.

    Args:
        train: colour features [n, f], in the same colour mode as `test`.
        present: bool [n, c].
        groups: group numbers int64 [n] of the training rows.
        test: features [m, f].
        seed: of folds and forest.
    """
    folds = _folds(present, groups, FOLDS_TO_CHOOSE, seed)
    best, highest = CLASSIFIERS[0], -math.inf
    for name in CLASSIFIERS if folds else ():
        found = np.zeros(present.shape)
        for inside, outside in folds:
            found[outside] = _scores(name, train[inside], present[inside], train[outside], seed)
        value = _macro_auroc(found, present)
        if value > highest:
            best, highest = name, value
    return ColourScores(_scores(best, train, present, test, seed), best)


def cross_presence_by_colour(
    rows: Floats, present: Present, groups: Numbers, seed: int = 0
) -> ColourScores | None:
    """The same without other rows: each fifth of the groups by the other four; None for one group."""
    folds = _folds(present, groups, FOLDS, seed)
    if not folds:
        return None
    found = np.zeros(present.shape)
    chosen: Counter[str] = Counter()
    for inside, outside in folds:
        answer = presence_by_colour(rows[inside], present[inside], groups[inside], rows[outside], seed)
        found[outside] = answer.scores
        chosen[answer.classifier] += 1
    names = [f"{name} in {count} of {len(folds)} folds" for name, count in chosen.most_common()]
    return ColourScores(found, ", ".join(names))


def _scores(name: str, train: Floats, present: Present, test: Floats, seed: int) -> Floats:
    """Probabilities [m, c]; a class that all training rows show, or none, gets 1 or 0."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = np.broadcast_to(present[0].astype(np.float64), (len(test), present.shape[1])).copy()
    varied = np.flatnonzero(present.any(axis=0) & ~present.all(axis=0))
    if name == CLASSIFIERS[0]:
        for number in varied:
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, random_state=seed))
            found[:, number] = model.fit(train, present[:, number]).predict_proba(test)[:, 1]
        return found
    forest = RandomForestClassifier(
        TREES, min_samples_leaf=2, max_samples=min(len(train), ROWS_PER_TREE), random_state=seed
    )
    if len(varied):
        truth = present[:, varied]
        shares: Any = forest.fit(train, truth if len(varied) > 1 else truth[:, 0]).predict_proba(test)
        columns: Sequence[Any] = shares if len(varied) > 1 else [shares]
        found[:, varied] = np.stack([column[:, 1] for column in columns], axis=1)
    return found


def _macro_auroc(scores: Floats, present: Present) -> float:
    areas = []
    for column, truth in zip(scores.T, present.T, strict=True):
        ranked = ranking.Ranking.of(column)
        areas.append(float(ranking.auroc(ranked, truth, np.ones((len(truth), 1)))[0]))
    defined = [area for area in areas if math.isfinite(area)]
    return sum(defined) / len(defined) if defined else -math.inf


def _folds(present: Present, groups: Numbers, most: int, seed: int) -> list[tuple[Numbers, Numbers]]:
    """(rows inside, rows outside) of each fold, groups whole, sets of classes spread; none for one group."""
    from sklearn.model_selection import StratifiedGroupKFold

    kinds = np.unique(present, axis=0, return_inverse=True)[1].ravel()
    folds = min(most, len(np.unique(groups)), int(np.bincount(kinds).max()))
    if folds < 2:
        return []
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a rare set of classes with fewer examples than folds
        parts = splitter.split(np.zeros(len(kinds)), kinds, groups)
        return [(inside, outside) for inside, outside in parts if len(inside) and len(outside)]
