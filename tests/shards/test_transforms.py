import colorsys

import numpy as np
import pytest
import torch
from PIL import Image

from pathclip.shards.transforms import Augment, normalise, shift_hue

NOTHING = dict(
    scale=(1.0, 1.0),
    ratio=(1.0, 1.0),
    dihedral=False,
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    hue=0.0,
    grey=0.0,
)


def picture(seed=0, size=32):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def draw(augment, images, seed=0, size=32):
    return augment(images, size, torch.Generator().manual_seed(seed))


def test_with_nothing_switched_on_the_picture_stays_as_it_is():
    image = picture()
    out = draw(Augment(**NOTHING), [image])[0].permute(1, 2, 0).numpy() * 255
    np.testing.assert_allclose(out, np.asarray(image), atol=1e-3)


def test_the_seed_decides_everything():
    images = [picture(i) for i in range(6)]
    assert torch.equal(draw(Augment(), images, 3), draw(Augment(), images, 3))
    assert not torch.equal(draw(Augment(), images, 3), draw(Augment(), images, 4))


def test_each_picture_of_a_batch_gets_its_own_draw():
    out = draw(Augment(), [picture()] * 4)
    assert not torch.allclose(out[0], out[1])


def test_values_stay_in_range():
    out = draw(Augment(), [picture(i) for i in range(8)])
    assert out.min() >= 0 and out.max() <= 1


def test_hue_shift_equals_that_of_the_standard_library():
    rng = np.random.default_rng(0)
    pixels = rng.random((1, 3, 4, 5)).astype(np.float32)
    shifted = shift_hue(torch.from_numpy(pixels), torch.tensor([0.37])).numpy()
    for y in range(4):
        for x in range(5):
            h, s, v = colorsys.rgb_to_hsv(*map(float, pixels[0, :, y, x]))
            np.testing.assert_allclose(
                shifted[0, :, y, x], colorsys.hsv_to_rgb((h + 0.37) % 1, s, v), atol=1e-5
            )


def test_grey_pictures_lose_all_colour():
    out = draw(Augment(**{**NOTHING, "grey": 1.0}), [picture()])[0]
    assert torch.allclose(out[0], out[1]) and torch.allclose(out[1], out[2])


def test_all_eight_symmetries_occur_and_none_other():
    image = picture(size=8)
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
    wanted = {torch.rot90(p, k, (1, 2)).numpy().tobytes() for p in (pixels, pixels.flip(2)) for k in range(4)}
    out = draw(Augment(**{**NOTHING, "dihedral": True}), [image] * 200, size=8)
    assert {row.contiguous().numpy().tobytes() for row in out} == wanted


@pytest.mark.parametrize("wrong", [{"hue": 0.7}, {"scale": (0.0, 1.0)}, {"scale": (0.9, 0.5)}, {"grey": 2.0}])
def test_a_range_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Augment(**wrong)


def test_normalising_is_per_channel():
    out = normalise(torch.ones(1, 3, 2, 2), [0.5, 0.0, 1.0], [0.5, 1.0, 2.0])
    assert out[0, :, 0, 0].tolist() == [1.0, 1.0, 0.0]
