from __future__ import annotations

import numpy as np
import pytest

from pathclip.errors import DataError
from pathclip.evaluate import colour
from pathclip.evaluate.encode import VARIANTS, data_hash, encode_pictures
from pathclip.evaluate.subjects import Subject
from pathclip.runtime.preprocess import open_image
from tests.evaluate.encoders import BrokenEncoder, ColourEncoder
from tests.tiny_shards import samples

IMAGES = [sample.image for sample in samples(11)]
NAMES = [f"{number}.jpg" for number in range(11)]


def contents(numbers):
    return (IMAGES[number] for number in numbers)


def test_both_variants_equal_encoding_the_pictures_one_by_one():
    encoder = ColourEncoder()
    found = encode_pictures(contents, NAMES, [Subject("model", encoder)], batch_size=4, seed=3)
    for number, content in enumerate(IMAGES):
        image = open_image(content)
        shown = {
            "plain": image,
            "randomised_colour": colour.randomise_colour(image, colour.picture_seed(found.sha256[number], 3)),
        }
        for variant in VARIANTS:
            expected = encoder.encode_images([shown[variant]])[0]
            assert found.embeddings["model fp32"][variant][number] == pytest.approx(expected, abs=1e-5)
            assert found.colours[variant][number] == pytest.approx(colour.features(shown[variant]))


def test_the_size_of_a_batch_changes_nothing():
    subjects = [Subject("model", ColourEncoder())]
    first, second = (encode_pictures(contents, NAMES, subjects, batch_size=size) for size in (1, 32))
    assert np.allclose(
        first.embeddings["model fp32"]["randomised_colour"],
        second.embeddings["model fp32"]["randomised_colour"],
        atol=1e-6,
    )


def test_each_picture_is_read_once_for_all_encoders_and_variants():
    read = []

    def counted(numbers):
        for number in numbers:
            read.append(number)
            yield IMAGES[number]

    subjects = [Subject("model", ColourEncoder()), Subject("untrained", ColourEncoder(dim=4))]
    found = encode_pictures(counted, NAMES, subjects)
    assert read == list(range(11))
    assert found.embeddings["untrained fp32"]["plain"].shape == (11, 4)


def test_a_picture_that_cannot_be_decoded_is_named():
    with pytest.raises(DataError, match=r"2\.jpg"):
        encode_pictures(lambda _: iter([*IMAGES[:2], b"nothing", *IMAGES[3:]]), NAMES, [])


def test_an_embedding_that_is_not_a_number_names_picture_and_model():
    with pytest.raises(DataError, match=r"0\.jpg: its embedding by broken .* \(plain\) is not a number"):
        encode_pictures(contents, NAMES, [Subject("model", BrokenEncoder())])


def test_the_data_hash_follows_pictures_and_labels_but_not_their_order():
    first = data_hash(["a", "b"], ["x", "y"])
    assert first == data_hash(["b", "a"], ["y", "x"])
    assert first != data_hash(["a", "b"], ["y", "x"])
