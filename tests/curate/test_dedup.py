import numpy as np
import pytest
from PIL import Image

from pathclip.curate.dedup import DedupSettings, Groups, HashIndex, near_pairs
from pathclip.curate.images import perceptual_hashes

from .feed import jpeg, tissue


def test_the_index_finds_exactly_what_comparing_all_pairs_finds():
    rng = np.random.default_rng(0)
    values = [int(v) for v in rng.integers(0, 2**63, 300)]
    for value in values[:100]:  # and copies with some bits turned
        for count in range(10):
            bits = rng.choice(64, count, replace=False)
            values.append(value ^ sum(1 << int(bit) for bit in bits))
    for distance in (0, 3, 6, 9):
        index = HashIndex(distance)
        for value in values:
            index.add(value)
        for probe in values[::17]:
            brute = {n for n, value in enumerate(values) if (value ^ probe).bit_count() <= distance}
            assert {number for _, number in index.near([probe])} == brute


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.rotate(90, expand=True),
        lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        lambda image: image.resize((100, 100)),
        lambda image: Image.open(__import__("io").BytesIO(jpeg(image, quality=40))),
    ],
)
def test_a_turned_mirrored_resized_or_encoded_copy_is_near_and_another_picture_is_not(change):
    original, copy, other = tissue(1), change(tissue(1)), tissue(2)
    hashes = [perceptual_hashes(image) for image in (original, copy, other)]
    assert [(later, earlier) for later, earlier, _ in near_pairs(hashes, 6)] == [(1, 0)]


def test_groups_join_in_chains_and_are_named_alike_in_any_order():
    def names(pairs):
        groups = Groups()
        for one, other in pairs:
            groups.join(one, other)
        return [groups.find(key) for key in "abcdx"]

    assert names(["ab", "cd", "bc"]) == names(["bc", "cd", "ab"]) == ["a", "a", "a", "a", "x"]


def test_a_distance_that_the_index_cannot_serve_is_refused():
    with pytest.raises(ValueError, match="max_distance"):
        DedupSettings(max_distance=40)
