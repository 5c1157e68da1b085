from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from pathclip.errors import DataError
from pathclip.evaluate.classification import zeroshot
from pathclip.runtime.calibration import softmax
from pathclip.runtime.classify import class_embeddings
from tests.evaluate.encoders import BrokenEncoder, ColourEncoder

CLASSES = {"red": ["red", "a red square"], "blue": ["blue"]}


@pytest.fixture
def answers():
    rng = np.random.default_rng(0)
    truth = rng.choice(5, 200, p=[0.5, 0.2, 0.1, 0.1, 0.1])
    guess = np.where(rng.random(200) < 0.6, truth, rng.integers(0, 4, 200))  # class 4 only when right
    return truth, guess


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("accuracy", metrics.accuracy_score),
        ("balanced_accuracy", metrics.balanced_accuracy_score),
        ("macro_f1", lambda t, p: metrics.f1_score(t, p, average="macro")),
        ("weighted_f1", lambda t, p: metrics.f1_score(t, p, average="weighted")),
        ("mcc", metrics.matthews_corrcoef),
    ],
)
def test_each_metric_equals_that_of_scikit_learn(name, reference, answers):
    confusion = zeroshot.confusion_matrix(*answers, 5)
    assert zeroshot.METRICS[name](confusion) == pytest.approx(reference(*answers))


def test_the_confusion_matrix_equals_that_of_scikit_learn(answers):
    assert np.array_equal(zeroshot.confusion_matrix(*answers, 5), metrics.confusion_matrix(*answers))


def test_metrics_take_many_confusion_matrices_at_once(answers):
    several = np.stack([zeroshot.confusion_matrix(part, part[::-1], 5) for part in answers])
    for metric in zeroshot.METRICS.values():
        assert metric(several) == pytest.approx([metric(one) for one in several])


def test_one_answer_for_all_has_no_correlation():
    assert zeroshot.mcc(np.array([[3, 0], [5, 0]])) == 0.0
    assert zeroshot.mcc(np.array([[8, 0], [0, 0]])) == 0.0


def test_margins_say_the_same_as_the_confusion_matrix(answers):
    truth, guess = answers
    groups = np.arange(200) % 7
    parts = zeroshot.grouped_margins(truth, [guess, truth], 5, groups)
    assert [part.shape for part in parts] == [(7, 2, 5), (7, 1, 5), (7, 2, 5)]
    confusion = zeroshot.grouped_confusion(truth, guess, 5, groups)
    for ours, theirs in zip(parts, zeroshot.margins(confusion), strict=True):
        assert np.array_equal(ours[:, 0], theirs)
    for metric in zeroshot.METRICS.values():
        of_one = zeroshot.Margins(*(part.sum(axis=0)[0] for part in parts))
        assert metric(of_one) == pytest.approx(metric(confusion.sum(axis=0)))


def test_chance_is_what_a_uniform_guess_gets():
    rng = np.random.default_rng(0)
    truth = rng.choice(3, 200_000, p=[0.7, 0.2, 0.1])
    confusion = zeroshot.confusion_matrix(truth, rng.integers(0, 3, len(truth)), 3)
    levels = zeroshot.chance_levels(np.bincount(truth))
    assert {*levels} == {*zeroshot.METRICS, "auroc"}
    for name, metric in zeroshot.METRICS.items():
        assert metric(confusion) == pytest.approx(levels[name], abs=0.005)


def test_a_class_that_a_resample_missed_does_not_count_as_wrong():
    confusion = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert zeroshot.balanced_accuracy(confusion) == pytest.approx((0.75 + 1) / 2)
    assert zeroshot.macro_f1(confusion) == pytest.approx(np.mean([6 / 7, 8 / 9]))


def test_grouped_confusions_sum_to_the_whole(answers):
    groups = np.arange(200) % 7
    parts = zeroshot.grouped_confusion(*answers, 5, groups)
    assert np.array_equal(parts.sum(axis=0), zeroshot.confusion_matrix(*answers, 5))
    third = groups == 3
    assert np.array_equal(parts[3], zeroshot.confusion_matrix(answers[0][third], answers[1][third], 5))


def test_class_vectors_are_those_of_the_runtime():
    encoder = ColourEncoder()
    vectors = zeroshot.class_vectors(encoder, CLASSES, ["{}", "tissue {}"])
    assert np.array_equal(vectors, class_embeddings(encoder, CLASSES, ["{}", "tissue {}"]))


def test_probabilities_sum_to_one_and_agree_with_the_prediction():
    similarity = np.array([[0.2, 0.9, 0.1], [0.4, -0.4, 0.0]], np.float32)
    shares = softmax(similarity, 100.0)
    assert shares.sum(axis=1) == pytest.approx([1, 1])
    assert shares.argmax(axis=1).tolist() == zeroshot.predict(similarity).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("classes", "templates", "message"),
    [
        ({"a": ["a"]}, ["{}"], "at least two"),
        ({"a": ["a"], "b": [" "]}, ["{}"], "class 'b' has an empty prompt"),
        ({"a": ["tumour"], "b": ["b", "Tumour "]}, ["{}"], "'a' and 'b' share the prompt 'Tumour '"),
        ({"a": ["a"], "b": ["b"]}, [], "templates: none"),
        ({"a": ["a"], "b": ["b"]}, ["tissue"], "'tissue' has no {}"),
    ],
)
def test_prompts_that_would_give_a_silent_figure_are_refused(classes, templates, message):
    with pytest.raises(DataError, match=message):
        zeroshot.class_vectors(ColourEncoder(), classes, templates)


def test_a_text_embedding_that_is_not_a_number_names_the_class():
    with pytest.raises(DataError, match="class 'blue' is not a number"):
        zeroshot.class_vectors(BrokenEncoder("blue"), CLASSES, ["{}"])
