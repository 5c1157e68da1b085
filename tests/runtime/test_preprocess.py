from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pathclip.errors import DataError, ModelFolderError
from pathclip.runtime.images import to_rgb
from pathclip.runtime.preprocess import Preprocess

SIZES = [(160, 160), (163, 97), (31, 57), (500, 333), (161, 160), (8, 300), (1, 1)]


def picture(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(size[0] * 1000 + size[1])
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (size[1], size[0]), np.uint16))
    noise = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(noise).convert(mode)


def open_clip_result(image: Image.Image, cfg: dict) -> np.ndarray:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    return image_transform_v2(PreprocessCfg(**cfg), is_train=False)(image).numpy()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("target", [160, [96, 160], (160, 97)], ids=str)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_it_equals_open_clips_evaluation_transform(size, resize_mode, target, interpolation):
    if resize_mode == "longest" and min(size) * 160 / max(size) < 1:
        pytest.skip("open_clip itself fails on a side of zero pixels")
    cfg = {"size": target, "resize_mode": resize_mode, "interpolation": interpolation, "fill_color": 7}
    image = picture(size)
    ours = Preprocess.from_card(cfg)(image)
    theirs = open_clip_result(image, {**cfg, "size": tuple(target) if isinstance(target, list) else target})
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16", "1", "LA", "YCbCr"])
def test_other_modes_are_turned_to_rgb_and_then_equal_open_clip(mode):
    cfg = {"size": 48, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    image = picture((77, 61), mode)
    np.testing.assert_allclose(
        Preprocess.from_card(cfg)(image), open_clip_result(to_rgb(image), cfg), rtol=0, atol=1e-6
    )


def test_grey_pictures_equal_open_clip_without_conversion_on_our_side():
    image = picture((77, 61), "L")
    np.testing.assert_allclose(
        Preprocess((48, 48))(image), open_clip_result(image, {"size": 48}), rtol=0, atol=1e-6
    )


def test_a_batch_equals_its_pictures_one_by_one():
    preprocess = Preprocess((32, 32))
    images = [picture(size) for size in SIZES]
    np.testing.assert_array_equal(preprocess.batch(images), np.stack([preprocess(image) for image in images]))


@pytest.mark.parametrize("side", [32, 45])
def test_arrays_equal_pictures(side):
    preprocess = Preprocess((32, 32))
    images = [picture((side, side)), picture((side, side), "L").convert("RGB")]
    arrays = np.stack([np.asarray(image) for image in images])
    np.testing.assert_array_equal(preprocess.batch(arrays), preprocess.batch(images))


def test_pixels_passed_through_again_stay_the_same():
    preprocess = Preprocess((32, 48), resize_mode="longest", fill_color=255)
    pixels = preprocess.pixels(picture((163, 97)))
    np.testing.assert_array_equal(preprocess.pixels(Image.fromarray(pixels)), pixels)


def test_an_empty_batch_has_the_models_shape():
    assert Preprocess((32, 48)).batch([]).shape == (0, 3, 32, 48)


@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000), (65, 1)], ids=str)
def test_a_strip_is_refused_before_it_grows_to_gigabytes(size):
    with pytest.raises(DataError, match=rf"strip\.png: {size[0]} x {size[1]} pixels is too thin"):
        Preprocess((224, 224)).pixels(Image.new("RGB", size), "strip.png")


def test_the_models_own_shape_decides_what_is_too_thin():
    assert Preprocess((10, 20)).pixels(Image.new("RGB", (128, 1))).shape == (10, 20, 3)
    with pytest.raises(DataError, match="too thin for a model of 20 x 10"):
        Preprocess((10, 20)).pixels(Image.new("RGB", (129, 1)))


@pytest.mark.parametrize("resize_mode", ["longest", "squash"])
def test_a_strip_that_does_not_grow_is_taken(resize_mode):
    preprocess = Preprocess((16, 16), resize_mode=resize_mode)
    assert preprocess.pixels(Image.new("RGB", (60_000, 1))).shape == (16, 16, 3)


def test_a_preprocess_that_is_no_mapping_is_named():
    with pytest.raises(ModelFolderError, match=r"preprocess: expected keys with values, got \[224\]"):
        Preprocess.from_card([224])


def test_an_array_of_floats_is_refused():
    with pytest.raises(ValueError, match=r"uint8 \[n, h, w, 3\]"):
        Preprocess().batch(np.zeros((1, 8, 8, 3), np.float32))


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"size": "224"}, "size"),
        ({"size": [1, 2, 3]}, "size"),
        ({"size": 10**6}, "size"),
        ({"size": 0}, "size"),
        ({"mean": [0.5, 0.5]}, "mean"),
        ({"std": [0.5, 0.0, 0.5]}, "std"),
        ({"interpolation": "nearest"}, "interpolation"),
        ({"resize_mode": "fit"}, "resize_mode"),
        ({"interpolation": ["bicubic"]}, "interpolation"),
        ({"fill_color": "grey"}, "fill_color"),
        ({"fill_color": 256}, "fill_color"),
        ({"mode": "L"}, "mode"),
    ],
)
def test_a_wrong_card_value_is_named(wrong, key):
    with pytest.raises(ModelFolderError, match=f"preprocess.{key}"):
        Preprocess.from_card(wrong)
