from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pathclip
from pathclip.errors import DataError
from pathclip.runtime.classify import class_embeddings, classify, classify_calibrated, rank_labels
from pathclip.runtime.encoder import normalise
from tests.tiny_calibration import FITTED
from tests.tiny_model import COLOURS


@pytest.fixture
def encoder(tiny_model):
    return pathclip.load(tiny_model)


def test_the_fitting_class_comes_first_and_probabilities_sum_to_one(encoder):
    images = [Image.new("RGB", (20, 20), COLOURS[name]) for name in ("blue", "red")]
    results = classify(encoder, images, ["red", "green", "blue"], ["{}"])
    assert [labels[0].name for labels in results] == ["blue", "red"]
    for labels in results:
        assert sum(label.probability for label in labels) == pytest.approx(1)
        assert [label.probability for label in labels] == sorted(
            (x.probability for x in labels), reverse=True
        )


def test_probabilities_are_the_softmax_of_the_scaled_similarity():
    labels = rank_labels(["a", "b"], np.array([0.2, 0.3], np.float32), logit_scale=10)
    assert [label.name for label in labels] == ["b", "a"]
    assert labels[0].probability == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-6)
    assert labels[0].similarity == pytest.approx(0.3)


def test_a_large_scale_does_not_overflow():
    assert rank_labels(["a", "b"], np.array([1, -1], np.float32), 1e4)[0].probability == 1.0


def test_a_class_vector_is_the_mean_of_its_normalised_prompts(encoder):
    templates = ["{}", "a photomicrograph of {}"]
    (vector,) = class_embeddings(encoder, {"warm": ["red", "white"]}, templates)
    prompts = [t.replace("{}", w) for w in ("red", "white") for t in templates]
    np.testing.assert_allclose(vector, normalise(encoder.encode_texts(prompts).mean(axis=0)), atol=1e-6)


def test_wordings_of_different_number_do_not_mix(encoder):
    together = class_embeddings(encoder, {"x": ["red", "white", "red"], "y": ["blue"]}, ["{}", "{} stain"])
    np.testing.assert_allclose(
        together[1:], class_embeddings(encoder, ["blue"], ["{}", "{} stain"]), atol=1e-6
    )


def test_stored_class_vectors_spare_the_text_tower(encoder, monkeypatch):
    vectors = class_embeddings(encoder, ["red", "blue"], ["{}"])
    monkeypatch.setattr(encoder, "encode_texts", None)
    image = Image.new("RGB", (20, 20), COLOURS["blue"])
    assert classify(encoder, [image], ["red", "blue"], embeddings=vectors)[0][0].name == "blue"
    with pytest.raises(DataError, match="for 3 labels"):
        classify(encoder, [image], ["red", "blue", "green"], embeddings=vectors)


def test_a_calibrated_classification_asks_with_the_stored_wordings_and_templates(encoder):
    images = [Image.new("RGB", (20, 20), COLOURS[name]) for name in ("red", "blue")]
    answers = classify_calibrated(encoder, images, FITTED)
    vectors = class_embeddings(encoder, FITTED.classes, FITTED.templates)
    expected = [FITTED.answer(row) for row in encoder.encode_images(images) @ vectors.T]
    assert answers == expected
    assert [answer.labels[0].name for answer in answers] == ["warm", "cold"]


def test_braces_in_a_label_are_only_text(encoder):
    assert class_embeddings(encoder, ["{0.__class__}"], ["a {}"]).shape == (1, encoder.dim)


@pytest.mark.parametrize(
    ("labels", "templates", "message"),
    [
        (["red", "red"], ["{}"], "each class once"),
        ([], ["{}"], "no class"),
        (["red", " "], ["{}"], "empty wording"),
        (["red"], ["a photo"], "no {} where"),
        (["red"], [], "none given"),
    ],
)
def test_wrong_labels_and_templates_are_named(encoder, labels, templates, message):
    with pytest.raises(DataError, match=message):
        class_embeddings(encoder, labels, templates)


@pytest.mark.parametrize("images", ["tile.jpg", Path("tile.jpg"), Image.new("RGB", (8, 8))], ids=type)
def test_one_picture_in_place_of_a_list_is_one_line(encoder, images):
    with pytest.raises(DataError, match=r'images: a list is needed, also for one picture: \["tile\.jpg"\]'):
        classify(encoder, images, ["red", "blue"])


def test_a_bare_text_is_no_list_of_its_letters(encoder):
    with pytest.raises(DataError, match="labels: a list is needed"):
        class_embeddings(encoder, "red", ["{}"])
    with pytest.raises(DataError, match="templates: a list is needed"):
        class_embeddings(encoder, ["red"], "{}")
    np.testing.assert_array_equal(
        class_embeddings(encoder, {"warm": "red"}, ["{}"]),
        class_embeddings(encoder, {"warm": ["red"]}, ["{}"]),
    )
