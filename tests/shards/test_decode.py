import io
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from pathclip.errors import DataError
from pathclip.runtime.images import MAX_PIXELS
from pathclip.shards import decode
from pathclip.shards.decode import EncodedPicture
from tests.shards.pictures import encoded, picture, smooth

WHOLE = (0, 0, 320, 240)


def pixels(image):
    return torch.from_numpy(np.array(image.convert("RGB")))


@pytest.fixture(params=["simplejpeg", "Pillow"])
def decoder(request, monkeypatch):
    if request.param == "Pillow":
        monkeypatch.setattr(decode, "simplejpeg", None)
    else:
        pytest.importorskip("simplejpeg")


@pytest.mark.parametrize(("at_least", "reduction"), [(240, 1), (121, 1), (120, 2), (60, 4), (30, 8), (2, 8)])
def test_a_jpeg_is_decoded_no_larger_than_needed_and_no_smaller_than_asked(decoder, at_least, reduction):
    out = picture(smooth(), "JPEG").crop(WHOLE, at_least)
    assert out.shape == (240 // reduction, 320 // reduction, 3)


def test_the_crop_decides_about_the_reduction_not_the_picture(decoder):
    assert picture(smooth(), "JPEG").crop((0, 0, 100, 100), at_least=60).shape == (100, 100, 3)
    assert picture(smooth(), "JPEG").crop((0, 0, 200, 200), at_least=60).shape == (100, 100, 3)


def test_a_crop_is_that_part_of_the_picture(decoder):
    whole = picture(smooth(), "JPEG").crop(WHOLE, at_least=240)
    part = picture(smooth(), "JPEG").crop((40, 20, 140, 120), at_least=100)
    assert torch.equal(part, whole[20:120, 40:140])


@pytest.mark.parametrize("reduction", [2, 4])
def test_a_reduced_crop_shows_what_the_full_one_shows(decoder, reduction):
    box = (40, 20, 200, 180)
    reduced = picture(smooth(), "JPEG", quality=95).crop(box, at_least=160 // reduction)
    full = smooth().crop(box).resize(reduced.shape[1::-1], Image.Resampling.BOX)
    assert (reduced.float() - pixels(full).float()).abs().mean() < 3


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_both_decoders_give_the_same_pixels(mode, options, monkeypatch):
    pytest.importorskip("simplejpeg")
    content = encoded(smooth(333, 251).convert(mode), "JPEG", **options)
    box = (11.0, 7.0, 311.0, 240.0)
    fast = [EncodedPicture(content, "a").crop(box, n) for n in (200, 100, 50, 25)]
    monkeypatch.setattr(decode, "simplejpeg", None)
    slow = [EncodedPicture(content, "a").crop(box, n) for n in (200, 100, 50, 25)]
    assert all(torch.equal(a, b) for a, b in zip(fast, slow, strict=True))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_jpeg_is_cropped_upright(decoder, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(smooth(), "JPEG", exif=exif, quality=95)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    turned = EncodedPicture(content, "a")
    assert turned.size == upright.size
    box = (10, 20, 110, 120)
    assert torch.equal(turned.crop(box, at_least=100), pixels(upright.crop(box)))
    assert turned.crop(box, at_least=50).shape == (50, 50, 3)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_other_formats_are_decoded_whole(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    other = picture(smooth(), kind, **options)
    assert other.size == (320, 240)
    assert torch.equal(other.crop((10, 20, 110, 120), at_least=10), pixels(smooth().crop((10, 20, 110, 120))))


@pytest.mark.parametrize("mode", ["CMYK", "L"])
def test_a_jpeg_of_another_mode_becomes_rgb(decoder, mode):
    out = picture(smooth().convert(mode), "JPEG").crop(WHOLE, at_least=240)
    assert (out.float() - pixels(smooth().convert(mode)).float()).abs().mean() < 4


@pytest.mark.parametrize("content", [b"", b"no picture", encoded(smooth(), "JPEG")[:200], b"\xff\xd8\xff"])
def test_broken_pictures_are_refused_with_the_samples_name(decoder, content):
    with pytest.raises(DataError, match="sample 'case-7'"):
        EncodedPicture(content, "case-7").crop(WHOLE, 100)


def test_a_jpeg_cut_off_in_the_middle_is_refused(decoder):
    content = encoded(smooth(), "JPEG", quality=95)
    with pytest.raises(DataError, match=r"sample 'case-7'.*cannot be decoded"):
        EncodedPicture(content[: len(content) // 2], "case-7").crop(WHOLE, 100)


def claiming(kind, side):
    """A small file whose header says that the picture is `side` x `side`."""
    content = bytearray(encoded(smooth(), kind))
    if kind == "JPEG":
        frame = content.index(b"\xff\xc0")
        content[frame + 5 : frame + 9] = side.to_bytes(2, "big") * 2
    else:
        content[16:24] = side.to_bytes(4, "big") * 2
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [12_000, 60_000])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded(decoder, kind, side):
    with pytest.raises(DataError, match=f"sample 'case-7'.*more than the {MAX_PIXELS}"):
        _ = EncodedPicture(claiming(kind, side), "case-7").size


def test_a_box_thinner_than_a_pixel_still_has_one(decoder):
    assert picture(smooth(), "JPEG").crop((319.7, 239.8, 320, 240), at_least=1).shape == (1, 1, 3)
