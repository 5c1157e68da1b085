import colorsys

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as torchvision

from pathclip.evaluate.features.colour import adjust as as_evaluation
from pathclip.shards.colour import adjust, luma, shift_hue
from tests.shards.pictures import smooth


def test_hue_shift_equals_that_of_the_standard_library():
    rng = np.random.default_rng(0)
    # Steps of a quarter bring ties: two channels alike, all alike, black and white.
    pixels = np.concatenate([rng.random((1, 3, 9, 5)), rng.integers(0, 5, (1, 3, 9, 5)) / 4]).astype(
        np.float32
    )
    for shift in (0.37, -0.5, 0.08, 0.0):
        shifted = shift_hue(torch.from_numpy(pixels.copy()), torch.tensor([shift, shift])).numpy()
        for n, y, x in np.ndindex(2, 9, 5):
            h, s, v = colorsys.rgb_to_hsv(*map(float, pixels[n, :, y, x]))
            wanted = colorsys.hsv_to_rgb((h + shift) % 1, s, v)
            np.testing.assert_allclose(shifted[n, :, y, x], wanted, atol=1e-5)


def test_every_picture_has_its_own_hue_shift():
    batch = torch.rand(2, 3, 4, 4)
    out = shift_hue(batch.clone(), torch.tensor([0.0, 0.3]))
    assert torch.allclose(out[0], batch[0], atol=1e-6) and not torch.allclose(out[1], batch[1], atol=0.05)


def test_brightness_contrast_and_saturation_equal_torchvisions_one_after_the_other():
    # Values in the middle, so that none is clamped on the way.
    batch = torch.rand(3, 3, 20, 20, generator=torch.Generator().manual_seed(0)) * 0.3 + 0.35
    factors = torch.tensor([[1.2, 0.7, 1.0], [0.6, 1.3, 1.1], [1.4, 0.2, 0.5]])
    out = adjust(batch.clone(), *factors.unbind(0))
    for picture, (brightness, contrast, saturation), got in zip(batch, factors.T.tolist(), out, strict=True):
        wanted = torchvision.adjust_brightness(picture, brightness)
        wanted = torchvision.adjust_contrast(wanted, contrast)
        wanted = torchvision.adjust_saturation(wanted, saturation)
        # torchvision rounds the weights of luma differently, in the fourth decimal.
        torch.testing.assert_close(got, wanted, atol=1e-3, rtol=0)


def test_the_family_of_colours_is_that_of_evaluations_randomised_twin():
    image = smooth(64, 64)
    batch = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    for what, factor in (("brightness", 0.7), ("contrast", 0.7), ("saturation", 0.4), ("hue", 0.3)):
        wanted = np.asarray(as_evaluation(image, what, factor), np.float32) / 255
        one = torch.ones(1)
        factors = {
            name: one * factor if name == what else one for name in ("brightness", "contrast", "saturation")
        }
        got = shift_hue(batch.clone(), one * factor) if what == "hue" else adjust(batch.clone(), **factors)
        # Pillow's HSV has 8 bits a channel.
        assert np.abs(got[0].permute(1, 2, 0).numpy() - wanted).mean() < (0.02 if what == "hue" else 0.004)


def test_brightness_beyond_white_comes_back_with_low_contrast():
    # Clamped in between, white and light grey would have become one.
    batch = torch.tensor([1.0, 0.8, 0.0, 0.0]).view(1, 1, 2, 2).expand(1, 3, 2, 2).clone()
    out = adjust(batch, torch.tensor([1.4]), torch.tensor([0.5]), torch.ones(1))[0, 0].flatten()
    assert out[1] < out[0] < 1.01


def test_saturation_zero_leaves_the_luma():
    batch = torch.rand(1, 3, 5, 5)
    wanted = luma(batch)
    out = adjust(batch.clone(), torch.ones(1), torch.ones(1), torch.zeros(1))
    torch.testing.assert_close(out, wanted[:, None].expand(1, 3, 5, 5))


def test_luma_is_pillows():
    image = smooth(20, 20)
    batch = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    assert np.abs(luma(batch)[0].numpy() - np.asarray(image.convert("L"), np.float32)).max() <= 1


def test_grey_pictures_have_no_hue_to_turn():
    grey = Image.new("L", (4, 4), 90).convert("RGB")
    batch = torch.from_numpy(np.array(grey)).permute(2, 0, 1)[None].float() / 255
    torch.testing.assert_close(shift_hue(batch.clone(), torch.tensor([0.4])), batch)
