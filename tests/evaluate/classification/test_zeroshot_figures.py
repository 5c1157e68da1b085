"""Figures of what encoders said, and where they have no interval."""

from __future__ import annotations

import math

import numpy as np

from pathclip.evaluate.classification.zeroshot_figures import Comparison, Figures, Predictor
from pathclip.evaluate.reporting.report import value_text
from pathclip.evaluate.task import Settings


def figures(truth, groups):
    return Figures(np.asarray(truth), np.asarray(groups), ["a", "b"], Settings(resamples=200), {})


def predictor(key, answers):
    odds = np.random.default_rng(len(key)).normal(size=(len(answers), 2))
    return Predictor(key, {"variant": "plain", "method": key}, np.asarray(answers), odds)


def test_of_a_single_group_no_figure_has_an_interval():
    both = [predictor("one", [0, 0, 1, 1, 1, 0]), predictor("other", [0, 1, 1, 1, 1, 0])]
    pair = Comparison("one", "other", {"variant": "plain", "method": "paired_difference"})
    found = figures([0, 0, 0, 1, 1, 1], np.zeros(6, int)).scores(both, [pair])
    measured = [one for one in found if one.context["method"] != "chance"]
    assert {"balanced_accuracy", "auroc", "recall", "auroc_difference"} <= {one.name for one in measured}
    for one in measured:
        assert math.isfinite(one.value) and math.isnan(one.low) and math.isnan(one.high), one
        assert value_text(one) == f"{one.value:.3f}"


def test_of_a_class_whose_pictures_are_one_group_recall_has_no_interval():
    truth, groups = np.arange(50) // 40, np.minimum(np.arange(50) // 4, 10)
    found = figures(truth, groups).scores([predictor("one", np.arange(50) % 3 % 2)])
    many, single = (one for one in found if one.name == "recall")
    assert many.context["class"] == "a" and many.low < many.value < many.high
    assert single.value == 0.4 and math.isnan(single.low) and math.isnan(single.high)
