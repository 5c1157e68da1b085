from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import normalize

from pathclip.evaluate import stats
from pathclip.evaluate.classification import zeroshot
from pathclip.evaluate.measures.few_shot import FewShot, draw_shots, simple_shot, text_initialised
from tests.evaluate.learning_cases import FP32, INT8, find, normalised, split, task

FEW = FewShot(shots=(1, 4), repeats=3)


def test_shots_are_drawn_by_group():
    # Of each class one group has most of the pictures: drawn by picture, it would nearly always come twice.
    truth = np.arange(120) % 2
    groups = np.where(np.arange(120) < 108, truth, np.arange(120))
    for seed in range(20):
        rows = draw_shots(truth, groups, 4, seed)
        assert rows.shape == (2, 4)
        for number, own in enumerate(rows):
            assert (truth[own] == number).all()
            assert len({*groups[own]}) == 4


def test_any_picture_of_a_group_may_be_its_shot():
    truth, groups = np.zeros(6, int), np.array([0, 0, 0, 0, 0, 1])
    drawn = {int(row) for seed in range(60) for row in draw_shots(truth, groups, 2, seed)[0]}
    assert drawn == set(range(6))


def test_fewer_shots_are_among_those_of_more():
    truth, groups = np.arange(60) % 3, np.arange(60) // 3
    many, few = (draw_shots(truth, groups, k, seed=[0, 5]) for k in (8, 2))
    assert np.array_equal(many[:, :2], few)


def test_simple_shot_is_the_nearest_centroid_of_scikit_learn_on_centred_unit_features():
    rng = np.random.default_rng(0)
    train = normalised(rng.normal(size=(50, 12)) + 1)
    shots, unseen = train[:12].reshape(3, 4, 12), normalised(rng.normal(size=(40, 12)) + 1)
    mean = train.mean(axis=0)
    reference = NearestCentroid().fit(normalize(train[:12] - mean), np.arange(3).repeat(4))
    assert np.array_equal(simple_shot(shots, unseen, mean), reference.predict(normalize(unseen - mean)))
    assert len({*simple_shot(shots, unseen, mean)}) == 3


def test_the_text_initialised_weights_are_the_minimum_of_the_objective():
    rng = np.random.default_rng(1)
    vectors, shots = normalised(rng.normal(size=(3, 12))), normalised(rng.normal(size=(6, 12)))
    own, scale = np.array([0, 0, 1, 1, 2, 2]), 20.0
    zero_shot = softmax(scale * shots @ vectors.T, axis=1)[np.arange(6), own]
    price = zero_shot.reshape(3, 2).mean(axis=1)

    def objective(flat):
        weights = flat.reshape(3, 12)
        chances = log_softmax(scale * shots @ weights.T, axis=1)
        return -chances[np.arange(6), own].mean() + (price * ((weights - vectors) ** 2).sum(axis=1)).mean()

    found = text_initialised(shots.reshape(3, 2, 12), vectors, scale)
    best = minimize(objective, vectors.ravel().astype(float), method="BFGS")
    assert objective(found.ravel()) == pytest.approx(best.fun, abs=1e-5)
    assert found == pytest.approx(best.x.reshape(3, 12), abs=1e-2)
    assert objective(found.ravel()) < objective(vectors.ravel().astype(float))


def test_shots_that_zero_shot_is_sure_of_leave_the_class_vectors_as_they_are():
    vectors = np.eye(3, 12, dtype=np.float32)
    assert text_initialised(vectors[:, None], vectors, 100.0) == pytest.approx(vectors, abs=1e-6)


def test_a_number_of_shots_that_a_class_has_too_few_groups_for_is_left_out():
    truth = np.array([0] * 20 + [1] * 20 + [2] * 20)
    groups = [f"t{number}" for number in range(40)] + [f"t{40 + number // 7}" for number in range(20)]
    result = FewShot(shots=(1, 2, 4), repeats=2).run(task(split("train", truth=truth, groups=groups)))
    assert result.about["shots"] == [1, 2]
    assert "4 shots left out: class 'malignant' has only 3 groups" in result.remarks[0]
    assert {one.context["shots"] for one in result.scores} == {1, 2}


def test_no_possible_number_of_shots_gives_a_line_and_no_figure():
    result = FewShot(shots=(99,)).run(task())
    assert result.scores == () and "99 shots left out" in result.remarks[0]


def test_all_encoders_get_the_same_shots():
    rows = np.random.default_rng(0).normal(size=(90, 12))
    result = FEW.run(task(split("train", embeddings=rows), split("test", 60, embeddings=rows[:60])))
    for method in ("simple_shot", "text_initialised"):
        first, second = (
            find(result, "balanced_accuracy", method=method, by=one.title, shots=4) for one in (INT8, FP32)
        )
        assert (first.value, first.context["sd_over_seeds"]) == (
            second.value,
            second.context["sd_over_seeds"],
        )
        difference = find(
            result,
            "balanced_accuracy_difference",
            learnt_by=method,
            shots=4,
            by=f"{method.replace('_', ' ')}, int8 minus fp32",
        )
        assert (difference.low, difference.value, difference.high) == (0, 0, 0)


def test_more_shots_tell_more_and_the_spread_over_draws_is_said():
    result = FewShot(shots=(1, 8), repeats=5).run(task())
    one, eight = (
        find(result, "balanced_accuracy", method="simple_shot", by=FP32.title, shots=k) for k in (1, 8)
    )
    assert one.value < eight.value
    assert one.context["seeds"] == 5 and one.context["sd_over_seeds"] > eight.context["sd_over_seeds"] > 0


def test_the_interval_is_that_of_the_mean_over_draws_on_resampled_groups():
    measured = task()
    rows = measured.train.encoded.embeddings[FP32.key]["plain"]
    unseen = measured.test.encoded.embeddings[FP32.key]["plain"]
    confusions = []
    for number in range(3):
        drawn = draw_shots(measured.train.truth, measured.train.groups, 4, [0, number])
        said = simple_shot(rows[drawn], unseen, rows.mean(axis=0))
        confusions.append(zeroshot.grouped_confusion(measured.test.truth, said, 3, measured.test.groups))
    expected = stats.bootstrap(
        np.stack(confusions, axis=1), lambda sums: zeroshot.balanced_accuracy(sums).mean(axis=-1), 200, 0
    )
    found = find(FEW.run(measured), "balanced_accuracy", method="simple_shot", by=FP32.title, shots=4)
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )


def test_the_chart_shows_both_beside_zero_shot():
    section = FEW.run(task()).sections[0]
    for name in ("zero-shot", "SimpleShot", "text-initialised", "95 % intervals"):
        assert f">{name}</text>" in section.html


def test_unknown_groups_are_said():
    result = FEW.run(task(split("train", groups=[""] * 90)))
    assert "Groups of the training rows are not known: shots are drawn by picture." in result.remarks


def test_a_score_says_how_many_labels_were_learnt_from_and_what_centred_the_features():
    result = FEW.run(task())
    for one in result.scores:
        assert one.context["learnt_from"] == 3 * one.context["shots"]
        method = one.context.get("learnt_by", one.context["method"])
        assert one.context.get("centred_by") == (90 if method == "simple_shot" else None)
