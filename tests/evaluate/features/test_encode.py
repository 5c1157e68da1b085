from __future__ import annotations

import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest

from pathclip.errors import DataError
from pathclip.evaluate import datasets
from pathclip.evaluate.datasets import LabelledImages
from pathclip.evaluate.features import colour
from pathclip.evaluate.features.encode import VARIANTS, data_hash, encode_dataset, encode_pictures
from pathclip.evaluate.features.feature_cache import FeatureCache
from pathclip.evaluate.profile import Profile
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Settings
from pathclip.runtime.preprocess import open_image
from tests import tiny_shards
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
            opened = encoder.preprocess.open(content) if variant == "plain" else shown[variant]
            expected = encoder.encode_images([opened])[0]
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


class CountingEncoder(ColourEncoder):
    """Knows how many pictures it was given, without the one that every cache asks it about."""

    def __init__(self, **more):
        super().__init__(**more)
        self.seen = 0

    def encode_images(self, images, batch_size=32):
        self.seen += len(images) if len(images) > 1 or batch_size > 1 else 0
        return super().encode_images(images, batch_size)


def encode_cached(folder, *subjects, seed=0, content=contents, profile=None):
    cache = FeatureCache(folder)
    return encode_pictures(content, NAMES, subjects, batch_size=4, seed=seed, cache=cache, profile=profile)


def counting(model_hash="a", **more):
    return Subject("model", CountingEncoder(**more), model_hash)


def test_a_second_run_decodes_and_encodes_nothing_and_gives_the_same(tmp_path):
    first = encode_cached(tmp_path, counting())
    subject, profile = counting(), Profile()
    second = encode_cached(tmp_path, subject, profile=profile)
    assert subject.encoder.seen == 0
    assert "decoding" not in {part.name for part in profile.table()}
    assert second.sha256 == first.sha256
    assert np.array_equal(second.perceptual, first.perceptual)
    for variant in VARIANTS:
        assert np.array_equal(second.colours[variant], first.colours[variant])
        assert np.array_equal(
            second.embeddings["model fp32"][variant], first.embeddings["model fp32"][variant]
        )


def test_a_cache_changes_no_number(tmp_path):
    without = encode_pictures(contents, NAMES, [counting()], batch_size=4)
    filled = encode_cached(tmp_path, counting())
    for variant in VARIANTS:
        assert np.array_equal(
            filled.embeddings["model fp32"][variant], without.embeddings["model fp32"][variant]
        )


@pytest.mark.parametrize(
    ("other", "pictures"),
    [
        (counting("b"), 22),
        (counting(precision="int8"), 22),
        (counting(dim=4), 22),
        (counting(), 0),
    ],
    ids=["weights", "precision", "length", "none"],
)
def test_another_model_under_the_same_names_never_hits(tmp_path, other, pictures):
    encode_cached(tmp_path, counting())
    other.encoder.seen = 0
    encode_cached(tmp_path, other)
    assert other.encoder.seen == pictures


@pytest.mark.parametrize("change", [{"size": (6, 6)}, {"interpolation": "bilinear"}, {"mean": (0.4,) * 3}])
def test_another_preprocess_never_hits(tmp_path, change):
    encode_cached(tmp_path, counting())
    other = counting()
    other.encoder.preprocess = replace(other.encoder.preprocess, **change)
    encode_cached(tmp_path, other)
    assert other.encoder.seen == 22


def test_another_seed_hits_the_plain_pictures_only(tmp_path):
    encode_cached(tmp_path, counting())
    other = counting()
    found = encode_cached(tmp_path, other, seed=1)
    assert other.encoder.seen == 11
    fresh = encode_pictures(contents, NAMES, [counting()], seed=1)
    assert np.array_equal(found.colours["randomised_colour"], fresh.colours["randomised_colour"])


def test_other_bytes_under_the_same_name_never_hit(tmp_path):
    encode_cached(tmp_path, counting())
    subject = counting()
    changed = [sample.image for sample in samples(12)][1:]
    found = encode_cached(tmp_path, subject, content=lambda numbers: (changed[n] for n in numbers))
    assert subject.encoder.seen == 2  # the last alone is new, in two variants
    fresh = encode_pictures(lambda numbers: (changed[n] for n in numbers), NAMES, [counting()])
    assert np.array_equal(found.perceptual, fresh.perceptual)
    assert np.allclose(
        found.embeddings["model fp32"]["plain"], fresh.embeddings["model fp32"]["plain"], atol=1e-6
    )


def test_a_model_that_answers_otherwise_under_the_same_hash_is_encoded_anew(tmp_path, capsys):
    encode_cached(tmp_path, counting())
    subject = counting(noise=1.0)
    encode_cached(tmp_path, subject)
    assert subject.encoder.seen == 22
    assert "answers otherwise than when it was filled" in capsys.readouterr().err


def test_a_model_without_hash_is_not_cached(tmp_path):
    encode_cached(tmp_path, counting(""))
    subject = counting("")
    encode_cached(tmp_path, subject)
    assert subject.encoder.seen == 22


def test_a_run_that_fails_leaves_what_it_found_out(tmp_path):
    broken = [*IMAGES[:9], b"nothing", IMAGES[10]]
    with pytest.raises(DataError, match=r"9\.jpg"):
        encode_cached(tmp_path, counting(), content=lambda numbers: (broken[n] for n in numbers))
    subject = counting()
    encode_cached(tmp_path, subject)
    assert subject.encoder.seen == 6  # eight of eleven were encoded, in batches of four


def test_only_the_model_that_is_new_encodes(tmp_path):
    encode_cached(tmp_path, counting())
    known, new = counting(), Subject("untrained", CountingEncoder(dim=4), "b")
    found = encode_cached(tmp_path, known, new)
    assert (known.encoder.seen, new.encoder.seen) == (0, 22)
    assert found.embeddings["untrained fp32"]["plain"].any(axis=1).all()


def test_no_thread_is_left_after_a_picture_that_cannot_be_decoded():
    with pytest.raises(DataError):
        encode_pictures(lambda _: iter([b"nothing"] * 11), NAMES, [])
    assert not [one for one in threading.enumerate() if one.name.startswith("pathclip-")]


def test_a_picture_that_cannot_be_read_ends_the_run_with_its_own_message():
    def unreadable(numbers):
        yield IMAGES[0]
        raise DataError("1.jpg: cannot be read (Input/output error)")

    with pytest.raises(DataError, match=r"1\.jpg: cannot be read"):
        encode_pictures(unreadable, NAMES, [counting()])


def test_pictures_that_are_fewer_than_when_the_run_began_are_named():
    with pytest.raises(DataError, match=r"8\.jpg: is no longer there; 8 of 11 pictures could be read\. Were"):
        encode_pictures(lambda _: iter(IMAGES[:8]), NAMES, [counting()], batch_size=4)


def test_shards_that_are_written_again_during_a_run_are_named(tmp_path):
    folder = tmp_path / "shards"
    tiny_shards.write(folder, n=6)
    images = datasets.labelled_shards(str(folder)).test
    shutil.rmtree(folder)
    tiny_shards.write(folder, n=4)
    with pytest.raises(DataError, match=r"shards: s0004: is no longer there; 4 of 6 pictures"):
        encode_dataset(images, [], VARIANTS, Settings())


def test_no_pictures_give_empty_arrays():
    found = encode_pictures(lambda _: iter(()), [], [counting()])
    assert found.embeddings["model fp32"]["plain"].shape == (0, 16)
    assert found.colours["plain"].shape == (0, 54) and found.perceptual.shape == (0, 8)


def test_the_profile_names_every_step_and_which_encoder():
    profile = Profile()
    encode_pictures(contents, NAMES, [counting()], batch_size=4, profile=profile)
    calls = {(part.name, part.detail): part.calls for part in profile.table()}
    assert calls["encoder", "model fp32"] == 6
    assert calls["decoding", ""] == calls["recolouring", ""] == calls["perceptual hash", ""] == 11
    assert calls["colour features", ""] == calls["preprocessing", ""] == 22
    assert {"reading and hashing", "waiting for pictures"} <= {name for name, _ in calls}


def test_a_dataset_is_encoded_as_the_settings_of_the_run_say(tmp_path):
    images = LabelledImages(tuple(NAMES), ("x",) * 11, ("",) * 11, "test", contents)
    settings = Settings(batch_size=4, seed=3, cache=str(tmp_path), profile=Profile())
    found = encode_dataset(images, [counting()], VARIANTS, settings)
    again = encode_pictures(contents, NAMES, [counting()], seed=3)
    assert np.array_equal(found.colours["randomised_colour"], again.colours["randomised_colour"])
    assert settings.profile.share("encoder") > 0
    assert list(tmp_path.glob("*/*.pack"))
