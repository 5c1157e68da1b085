"""Pixels of a batch, as `Collate` makes them from encoded samples."""

import numpy as np
import pytest
import torch

from pathclip.errors import ConfigError, DataError
from pathclip.runtime.preprocess import Preprocess, open_image
from pathclip.shards.collate import Collate
from pathclip.shards.decode import Encoded
from pathclip.shards.transforms import Augment
from tests.shards.pictures import encoded, noise, smooth
from tests.shards.test_transforms import NOTHING


def pixels(contents, augment, size=(32, 32), offset=0, total=None):
    collate = Collate(Preprocess(size=size), None, augment)
    pictures = [Encoded(content, f"case-{n}") for n, content in enumerate(contents)]
    generator = torch.Generator().manual_seed(0)
    found, _ = collate._pixels(pictures, generator, offset, len(pictures) if total is None else total)
    return found


def test_training_pixels_are_normalised_as_evaluation_does_it():
    image = noise()
    wanted = Preprocess(size=(32, 32)).batch([image])
    np.testing.assert_allclose(pixels([encoded(image)], Augment(**NOTHING)).numpy(), wanted, atol=1e-5)


def test_without_augmentation_the_pixels_are_those_of_evaluation():
    image = smooth()
    np.testing.assert_array_equal(
        pixels([encoded(image)], None).numpy(), Preprocess(size=(32, 32)).batch([image])
    )


def test_a_slice_of_the_global_batch_gets_the_draws_of_its_place():
    contents = [encoded(noise(n)) for n in range(6)]
    whole = pixels(contents, Augment())
    assert torch.equal(pixels(contents[4:], Augment(), offset=4, total=6), whole[4:])


def test_augmentation_for_a_model_that_is_not_square_is_refused():
    with pytest.raises(ConfigError, match=r"data\.augment.*224 x 336"):
        pixels([encoded(noise())], Augment(), size=(224, 336))


@pytest.mark.parametrize("augment", [None, Augment()])
def test_a_broken_picture_is_refused_with_the_samples_name(augment):
    with pytest.raises(DataError, match="case-1"):
        pixels([encoded(noise()), b"broken"], augment)


def test_a_large_jpeg_is_decoded_for_validation_as_classify_decodes_it():
    content = encoded(smooth(300, 260), "JPEG")
    preprocess = Preprocess(size=(32, 32))
    found = pixels([content], None).numpy()
    np.testing.assert_array_equal(found, preprocess.batch([preprocess.open(content)]))
    assert not np.array_equal(found, preprocess.batch([open_image(content)]))
