from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pathclip.export.search.objective import ClassPrompts, Fidelity, Objective
from tests.export import towers

SCALE = 20.0


@pytest.fixture(scope="module")
def samples():
    return towers.make_samples(48)


@pytest.fixture(scope="module")
def weights(samples):
    return towers.make_weights(samples)


@pytest.fixture(scope="module")
def fp32(weights, tmp_path_factory):
    return towers.write_fp32(tmp_path_factory.mktemp("towers") / "fp32", weights)


@pytest.fixture(scope="module")
def int8(weights, tmp_path_factory):
    return towers.write_int8(tmp_path_factory.mktemp("towers") / "int8", weights)


def test_fidelity_is_one_minus_the_mean_of_the_four_losses():
    found = Fidelity(cosine=0.9, worst=0.8, moved=0.1, recall_lost=0.2, agreement=0.5)
    assert found.loss == pytest.approx((0.1 + 0.2 + 0.1 + 0.2) / 4)
    assert found.value == pytest.approx(1 - found.loss)


def test_recall_that_is_gained_makes_up_for_nothing():
    level = Fidelity(cosine=0.9, worst=0.8, moved=0.1, recall_lost=0.0, agreement=1.0)
    assert dataclasses.replace(level, recall_lost=-0.2).loss == level.loss


@pytest.mark.parametrize("tower", ["image", "text"])
def test_fp32_loses_nothing_against_itself(tower, fp32, samples):
    found = Objective(fp32, samples, SCALE).measure(tower, fp32[tower])
    assert found.loss < 1e-6 and found.agreement == 1.0 and found.recall_lost == 0.0


@pytest.mark.parametrize("tower", ["image", "text"])
def test_int8_loses_little_and_a_mixed_up_tower_nearly_all(tower, fp32, int8, weights, samples, tmp_path):
    objective = Objective(fp32, samples, SCALE)
    broken = towers.write_fp32(tmp_path / "broken", {**weights, tower: towers.shuffled(weights[tower])})
    assert objective.measure(tower, int8[tower]).loss < 0.01
    lost = objective.measure(tower, broken[tower])
    assert lost.loss > 0.5 and lost.recall_lost > 0.5 and lost.moved > 0.5 and lost.agreement < 0.3


def test_answers_are_asked_among_the_class_prompts_where_there_are_some(fp32, weights, samples, tmp_path):
    """Words 100 to 103 stand in no caption: a text tower that knows no others answers as before."""
    prompts = ClassPrompts(np.arange(100, 104)[:, None], np.array([0, 0, 1, 1]))
    objective = Objective(fp32, samples, SCALE, prompts)
    text = weights["text"].copy()
    text[:48] = towers.shuffled(text[:48])
    broken = towers.write_fp32(tmp_path / "captions", {**weights, "text": text})
    found = objective.measure("text", broken["text"])
    assert objective.among == "classes" and found.moved < 1e-6 and found.cosine < 0.5
    text = weights["text"].copy()
    text[100:104] = text[[102, 103, 100, 101]]
    swapped = towers.write_fp32(tmp_path / "prompts", {**weights, "text": text})
    found = objective.measure("text", swapped["text"])
    assert found.agreement == 0.0 and found.moved > 0.1 and found.cosine > 0.999


def test_several_prompts_of_a_class_are_one_answer(fp32, samples):
    two = ClassPrompts(np.arange(100, 104)[:, None], np.array([0, 0, 1, 1]))
    objective = Objective(fp32, samples, SCALE, two)
    assert objective._classes.shape == (2, towers.DIM)
