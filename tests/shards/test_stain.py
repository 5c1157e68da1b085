import numpy as np
import pytest
import torch
from skimage.color import rgb2hed

from pathclip.shards.stain import DENSITIES, STAINS, StainJitter, change_stains, stain_amounts

ONE, NONE = torch.ones(1, 3), torch.zeros(1, 3)


def section(haematoxylin=0.5, eosin=0.4):
    """A pixel with these amounts of stain, as 4 x 4 pixels."""
    amounts = torch.tensor([haematoxylin, eosin, 0.0])
    colour = 10 ** -(amounts @ torch.tensor(DENSITIES))
    return colour.view(1, 3, 1, 1).expand(1, 3, 4, 4).clone()


def of(stain):
    return STAINS.index(stain)


def test_without_jitter_every_colour_comes_back():
    levels = torch.linspace(0, 1, 256)
    batch = torch.stack([levels, levels.flip(0), levels.roll(90)]).view(1, 3, 16, 16)
    torch.testing.assert_close(change_stains(batch.clone(), ONE, NONE), batch, atol=2e-6, rtol=0)


def test_a_factor_for_haematoxylin_changes_its_amount_and_no_other():
    factor = torch.tensor([[1.5, 1.0, 1.0]])
    before = stain_amounts(section())[0, :, 0, 0]
    after = stain_amounts(change_stains(section(), factor, NONE))[0, :, 0, 0]
    torch.testing.assert_close(after, before * factor[0], atol=1e-4, rtol=0)
    assert before[of("haematoxylin")] > 0.4


def test_an_added_amount_goes_to_the_stain_it_is_for():
    added = torch.tensor([[0.0, 0.1, 0.0]])
    before = stain_amounts(section())[0, :, 0, 0]
    after = stain_amounts(change_stains(section(), ONE, added))[0, :, 0, 0]
    torch.testing.assert_close(after - before, added[0], atol=1e-4, rtol=0)


def test_white_background_stays_white_if_nothing_is_added():
    white = torch.ones(5, 3, 4, 4)
    out = StainJitter(alpha=0.5, beta=0.0)(white.clone(), torch.rand(5, 6))
    torch.testing.assert_close(out, white)


def test_beta_tints_the_background():
    out = StainJitter(alpha=0.0, beta=0.1)(torch.ones(1, 3, 4, 4), torch.full((1, 6), 0.99))
    assert out.max() < 0.95


def test_draws_span_the_configured_range():
    low = stain_amounts(StainJitter(0.2, 0.0)(section(), torch.zeros(1, 6)))[0, :2, 0, 0]
    high = stain_amounts(StainJitter(0.2, 0.0)(section(), torch.ones(1, 6)))[0, :2, 0, 0]
    torch.testing.assert_close(high / low, torch.full((2,), 1.2 / 0.8), atol=0.01, rtol=0)


def test_the_separation_is_that_of_scikit_image():
    colours = torch.rand(1, 3, 6, 6) * 0.5 + 0.45
    # scikit-image's unit is the density of one part in a million, it cuts off below zero, and its
    # black is another.
    wanted = rgb2hed(colours[0].permute(1, 2, 0).numpy()) * 6
    got = stain_amounts(colours)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(np.maximum(got, 0), wanted, atol=0.02)


@pytest.mark.parametrize("wrong", [{"alpha": -0.1}, {"alpha": 1.5}, {"beta": -0.1}, {"beta": 2.0}])
def test_a_jitter_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StainJitter(**wrong)


def test_factor_and_addition_are_drawn_apart():
    draw = torch.tensor([[0.5, 0.5, 0.5, 0.9, 0.1, 0.9]])
    torch.testing.assert_close(StainJitter(0.3, 0.0)(section(), draw), section())
    assert not torch.allclose(StainJitter(0.0, 0.1)(section(), draw), section(), atol=0.01)
