"""The same embeddings give the same figures here, in clip_benchmark, in open_clip and in scikit-learn."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from sklearn import metrics

import pathclip
from pathclip.config import build
from pathclip.evaluate import stats
from pathclip.evaluate.classification import zeroshot
from pathclip.evaluate.classification.auroc import auroc, bootstrap_auroc, log_odds
from pathclip.launch import compose
from pathclip.runtime.calibration import softmax
from pathclip.runtime.classify import fill

CLASSES = {
    "lung adenocarcinoma": ["lung adenocarcinoma", "adenocarcinoma of the lung"],
    "benign lung tissue": ["benign lung tissue", "normal lung parenchyma"],
    "colon adenocarcinoma": ["colon adenocarcinoma"],
}
TEMPLATES = ["{}", "an H&E image of {}.", "a photomicrograph showing {}"]
WITHIN = 1e-6


@pytest.fixture
def peer(monkeypatch):
    """clip_benchmark's functions; `pip install --no-deps clip-benchmark==1.6.2` brings them."""
    found = pytest.importorskip("clip_benchmark.metrics.zeroshot_classification")
    # NumPy 2.4 refuses its float() of an array with one number in it.
    monkeypatch.setattr(found, "float", lambda value: np.asarray(value).item(), raising=False)
    return found


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A tiny random CLIP as our encoder and as open_clip's model and tokenizer."""
    folder = tmp_path_factory.mktemp("parity") / "model"
    build(compose("train", ["model=tiny", "data.train=x"]).model).save(folder)
    theirs = open_clip.create_model(f"local-dir:{folder}").eval()
    tokenizer = open_clip.SimpleTokenizer(context_length=theirs.context_length)
    return pathclip.load(folder, runtime="torch"), theirs, tokenizer


@pytest.fixture(scope="module")
def embeddings():
    """Pictures [600, 32] and classes [7, 32] on the sphere, skewed classes that are hard to tell apart."""
    rng = np.random.default_rng(0)
    classes = rng.normal(size=(7, 32))
    truth = rng.choice(7, 600, p=[0.3, 0.2, 0.15, 0.15, 0.1, 0.05, 0.05])
    images = classes[truth] + 2.5 * rng.normal(size=(600, 32))
    images, classes = (
        (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32) for rows in (images, classes)
    )
    return images, classes, truth


@pytest.fixture(scope="module")
def answered(embeddings):
    """Truth, cosine similarities and the confusion matrix of them."""
    images, classes, truth = embeddings
    similar = zeroshot.similarities(images, classes)
    return truth, similar, zeroshot.confusion_matrix(truth, zeroshot.predict(similar), 7)


def test_class_vectors_are_those_of_open_clip(models):
    encoder, model, tokenizer = models
    names = list(CLASSES)
    ours = zeroshot.class_vectors(encoder, {name: [name] for name in names}, TEMPLATES)
    templates = [lambda name, template=template: fill(template, name) for template in TEMPLATES]
    theirs = open_clip.build_zero_shot_classifier(model, tokenizer, names, templates)
    np.testing.assert_allclose(ours, theirs.T.numpy(), atol=WITHIN, rtol=0)


def test_class_vectors_are_those_of_clip_benchmark_with_several_wordings(models, peer):
    encoder, model, tokenizer = models
    ours = zeroshot.class_vectors(encoder, CLASSES, TEMPLATES)
    texts = {
        name: [fill(template, word) for word in words for template in TEMPLATES]
        for name, words in CLASSES.items()
    }
    theirs = peer.zero_shot_classifier(model, tokenizer, list(CLASSES), texts, "cpu", amp=False)
    np.testing.assert_allclose(ours, theirs.T.numpy(), atol=WITHIN, rtol=0)


def test_accuracy_and_balanced_accuracy_are_those_of_clip_benchmark(embeddings, answered, peer):
    images, classes, truth = embeddings

    class Model:
        def encode_image(self, rows):
            return rows

    pictures = torch.utils.data.TensorDataset(torch.from_numpy(images), torch.from_numpy(truth))
    loader = torch.utils.data.DataLoader(pictures, 64)
    logits, targets = peer.run_classification(Model(), torch.from_numpy(classes).T, loader, "cpu", amp=False)
    (top,) = peer.accuracy(logits, targets)
    recall = peer.balanced_accuracy_score(targets, logits.argmax(axis=1))
    _, _, confusion = answered
    assert zeroshot.accuracy(confusion) == pytest.approx(top, abs=WITHIN)
    assert zeroshot.balanced_accuracy(confusion) == pytest.approx(recall, abs=WITHIN)
    assert 0.3 < top < 0.9


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("mcc", metrics.matthews_corrcoef),
        ("macro_f1", lambda t, p: metrics.f1_score(t, p, average="macro")),
        ("weighted_f1", lambda t, p: metrics.f1_score(t, p, average="weighted")),
    ],
)
def test_the_other_metrics_are_those_of_scikit_learn(name, reference, answered):
    truth, similar, confusion = answered
    expected = reference(truth, zeroshot.predict(similar))
    assert zeroshot.METRICS[name](confusion) == pytest.approx(expected, abs=WITHIN)


def test_recall_of_each_class_is_that_of_scikit_learn(answered):
    truth, similar, confusion = answered
    expected = metrics.recall_score(truth, zeroshot.predict(similar), average=None)
    np.testing.assert_allclose(zeroshot.recalls(confusion), expected, atol=WITHIN)


def test_auroc_is_that_of_scikit_learn_on_the_probabilities(answered):
    truth, similar, _ = answered
    shares = softmax(similar, 20.0)
    expected = metrics.roc_auc_score(truth, shares, multi_class="ovr", average="macro")
    assert auroc(truth, log_odds(similar, 20.0)) == pytest.approx(expected, abs=WITHIN)


def test_every_resample_of_auroc_is_that_of_scikit_learn_with_weights(answered):
    truth, similar, _ = answered
    groups = np.arange(600) // 5
    scores = np.round(log_odds(similar, 20.0), 1)  # with ties
    drawn = bootstrap_auroc(truth, [scores], groups, 20, seed=3).drawn[:, 0]
    for found, weights in zip(drawn, next(stats.weights(120, 20, 3)), strict=True):
        expected = np.mean(
            [
                metrics.roc_auc_score(truth == number, scores[:, number], sample_weight=weights[groups])
                for number in range(7)
            ]
        )
        assert found == pytest.approx(expected, abs=WITHIN)
