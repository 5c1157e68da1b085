import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from pathclip.config import build, config_dir
from pathclip.errors import ConfigError
from pathclip.shards.geometry import Affine, Perspective
from pathclip.shards.stain import StainJitter
from pathclip.shards.transforms import Augment, normalise
from tests.shards.pictures import noise, picture, smooth

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
EVERYTHING = dict(flip=0.5, affine=Affine(), perspective=Perspective(), stain=StainJitter())


def draw(augment, images, seed=0, size=32, offset=0, total=None):
    pictures = [picture(image) for image in images]
    return augment(pictures, size, torch.Generator().manual_seed(seed), offset, total)


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def test_with_nothing_switched_on_the_picture_stays_as_it_is():
    torch.testing.assert_close(draw(Augment(**NOTHING), [noise()])[0], tensor(noise()))


def test_the_seed_decides_everything():
    images, augment = [noise(i) for i in range(6)], Augment(**EVERYTHING)
    assert torch.equal(draw(augment, images, 3), draw(augment, images, 3))
    assert not torch.equal(draw(augment, images, 3), draw(augment, images, 4))


def test_each_picture_of_a_batch_gets_its_own_draw():
    out = draw(Augment(), [noise()] * 4)
    assert not torch.allclose(out[0], out[1])


def test_a_picture_looks_the_same_however_many_processes_share_the_batch():
    augment, images = Augment(**EVERYTHING), [smooth(90, 70, i) for i in range(11)]
    alone = draw(augment, images, total=11)
    parts = [draw(augment, images[a:b], offset=a, total=11) for a, b in ((0, 3), (3, 8), (8, 11))]
    assert torch.equal(alone, torch.cat(parts))


def test_the_number_of_threads_changes_nothing():
    augment, images = Augment(**EVERYTHING), [smooth(150, 130, i) for i in range(9)]
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(draw(augment, images, size=112))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_values_stay_in_range():
    out = draw(Augment(**EVERYTHING), [noise(i) for i in range(8)])
    assert out.min() >= 0 and out.max() <= 1


def test_a_setting_does_not_change_what_the_others_draw():
    images = [smooth(64, 64, i) for i in range(4)]
    plain = draw(Augment(**NOTHING | {"scale": (0.3, 1.0)}), images)
    flipped = draw(Augment(**NOTHING | {"scale": (0.3, 1.0), "flip": 1.0}), images)
    assert torch.equal(flipped.flip(3), plain)


def test_grey_pictures_lose_all_colour():
    out = draw(Augment(**NOTHING | {"grey": 1.0}), [noise()])[0]
    assert torch.equal(out[0], out[1]) and torch.equal(out[1], out[2])


def test_the_share_of_grey_pictures_is_the_configured_one():
    out = draw(Augment(**NOTHING | {"grey": 0.3}), [noise(size=4)] * 400, size=4)
    assert 0.2 < (out[:, 0] == out[:, 1]).all(-1).all(-1).float().mean() < 0.4


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_each_setting_of_colour_changes_the_picture(name):
    out = draw(Augment(**NOTHING | {name: 0.4}), [noise()])[0]
    assert not torch.allclose(out, tensor(noise()), atol=0.01)


def test_all_eight_symmetries_occur_and_none_other():
    pixels = tensor(noise(size=8))
    wanted = {torch.rot90(p, k, (1, 2)).numpy().tobytes() for p in (pixels, pixels.flip(2)) for k in range(4)}
    out = draw(Augment(**NOTHING | {"dihedral": True}), [noise(size=8)] * 200, size=8)
    assert {row.contiguous().numpy().tobytes() for row in out} == wanted


def test_flip_mirrors_its_share_of_the_pictures_and_leaves_the_others():
    pixels = tensor(noise(size=8))
    out = draw(Augment(**NOTHING | {"flip": 0.3}), [noise(size=8)] * 300, size=8)
    mirrored = [torch.equal(row, pixels.flip(2)) for row in out]
    assert all(m or torch.equal(row, pixels) for m, row in zip(mirrored, out, strict=True))
    assert 60 < sum(mirrored) < 120


def test_scale_is_the_share_of_the_area_that_is_seen():
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 200, dtype=np.uint8)[None, :, None], (200, 1, 3)))
    out = draw(Augment(**NOTHING | {"scale": (0.25, 0.25)}), [ramp] * 8)
    span = out[:, 0, 0, -1] - out[:, 0, 0, 0]
    assert torch.all((span - 0.5).abs() < 0.05)


def test_resize_then_crop_shows_a_window_of_the_resized_picture():
    # 200 pixels of a ramp, resized to 64, of which 32 are cropped: half of the ramp, anywhere in it.
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 200, dtype=np.uint8)[None, :, None], (200, 1, 3)))
    out = draw(Augment(**NOTHING | {"scale": None, "resize": 64}), [ramp] * 20)
    span = out[:, 0, 0, -1] - out[:, 0, 0, 0]
    assert torch.all((span - 0.5).abs() < 0.05)
    assert out[:, 0, 0, 0].min() < 0.1 and out[:, 0, 0, 0].max() > 0.4


def test_a_picture_is_resized_as_pillow_does_it():
    image = smooth(64, 64)
    out = draw(Augment(**NOTHING), [image])[0]
    assert (out - tensor(image.resize((32, 32), Image.Resampling.BICUBIC))).abs().max() <= 1.01 / 255


@pytest.mark.parametrize("warping", [{"affine": Affine()}, {"perspective": Perspective(0.5, 1.0)}])
def test_warps_leave_black_where_nothing_was(warping):
    white = Image.new("RGB", (32, 32), "white")
    out = draw(Augment(**NOTHING | warping), [white] * 8)
    assert (out[:, :, 0, 0] == 0).any() and (out[:, :, 16, 16] > 0.99).all()


def test_perspective_is_drawn_with_its_probability():
    white = Image.new("RGB", (16, 16), "white")
    out = draw(Augment(**NOTHING | {"perspective": Perspective(0.5, 0.3)}), [white] * 300, size=16)
    assert 60 < (out.flatten(1).min(1).values < 0.99).sum() < 120


def test_stain_jitter_changes_the_picture():
    out = draw(Augment(**NOTHING | {"stain": StainJitter(0.3, 0.0)}), [noise()])[0]
    assert not torch.allclose(out, tensor(noise()), atol=0.01)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"hue": 0.7}, "hue"),
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"scale": (0.9, 0.5)}, "scale"),
        ({"scale": (0.5, 1.5)}, "scale"),
        ({"scale": (0.5,)}, "two numbers"),
        ({"ratio": (2.0, 1.0)}, "ratio"),
        ({"grey": 2.0}, "grey"),
        ({"flip": -0.1}, "flip"),
        ({"brightness": 1.5}, "brightness"),
        ({"resize": 512}, "either scale or resize"),
        ({"scale": None}, "either scale or resize"),
        ({"scale": None, "resize": 0}, "resize"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Augment(**wrong)


def test_a_resize_below_the_models_size_is_refused_with_both_numbers():
    with pytest.raises(ConfigError, match=r"augment\.resize.*64.*224"):
        draw(Augment(**NOTHING | {"scale": None, "resize": 64}), [noise()], size=224)


@pytest.mark.parametrize(
    "file", sorted((config_dir() / "augment").glob("*.yaml")), ids=lambda file: file.stem
)
def test_every_augmentation_that_is_shipped_builds_and_runs(file):
    augment = build(yaml.safe_load(file.read_text()), "data.augment")
    assert draw(augment, [smooth(), smooth(seed=1)]).isfinite().all()


def test_normalising_is_per_channel():
    out = normalise(torch.ones(1, 3, 2, 2), [0.5, 0.0, 1.0], [0.5, 1.0, 2.0])
    assert out[0, :, 0, 0].tolist() == [1.0, 1.0, 0.0]
