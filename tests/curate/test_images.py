import io
import random

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pathclip.curate.images import ImageSettings, Picture, cut, inspect, perceptual_hashes
from pathclip.errors import ConfigError
from pathclip.runtime.images import open_image
from pathclip.sources.synthetic_tiles import draw_tile

from .feed import chart, jpeg

TURNS = (
    None,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
)


def tile(seed: int, side: int = 160) -> Image.Image:
    drawn = Image.fromarray(draw_tile("benign glands", np.random.default_rng(seed), size=160))
    return drawn if side == 160 else drawn.resize((side, side), Image.Resampling.LANCZOS)


def encoded(image: Image.Image, kind: str, **more) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def look(content: bytes, **chosen) -> Picture:
    (seen,) = inspect(content, "a.jpg", ImageSettings(**chosen))
    return seen


def two_panels(side: int = 200, gap: int = 12) -> Image.Image:
    sheet = Image.new("RGB", (2 * side + gap, side), "white")
    sheet.paste(tile(1, side), (0, 0))
    sheet.paste(tile(2, side), (side + gap, 0))
    return sheet


def test_tissue_passes_with_hash_and_size():
    seen = look(jpeg(tile(0, 200)))
    assert (seen.reason, seen.detail, seen.width, seen.height) == ("", "", 200, 200)
    assert len(seen.sha256) == 64 and len(seen.hashes) == 8 and seen.box is None and seen.flags == ()


def test_broken_pictures_are_an_answer_and_no_exception():
    good = jpeg(tile(0))
    for content in (b"", b"<html>", good[:200], good[: len(good) // 2], b"BM" + bytes(60)):
        assert look(content).reason == "image_undecodable"


def test_too_many_pixels_or_bytes_are_not_decoded():
    assert look(jpeg(tile(0)), max_pixels=1000).reason == "image_undecodable"
    assert look(jpeg(tile(0)), max_bytes=1000).reason == "image_undecodable"


def test_a_small_picture_falls():
    assert look(jpeg(tile(0, 80))).reason == "image_too_small"
    assert look(jpeg(tile(0, 80)), min_side=64).reason == ""


def test_a_strip_is_too_small_however_long():
    for size in ((1, 5000), (5000, 1), (3, 20_000)):
        assert look(encoded(Image.new("RGB", size), "PNG")).reason == "image_too_small"


def test_a_chart_is_no_pathology_unless_nobody_asks():
    seen = look(jpeg(chart()))
    assert seen.reason == "not_pathology" and seen.detail.startswith("pathology 0.")
    assert look(jpeg(chart()), pathology=False).reason == ""


def test_the_threshold_decides():
    assert look(jpeg(chart()), pathology_threshold=0.0).reason == ""
    assert look(jpeg(tile(0)), pathology_threshold=1.0).reason == "not_pathology"
    with pytest.raises(ConfigError, match="pathology_threshold"):
        ImageSettings(pathology_threshold=2)


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "1", "I;16"])
def test_every_mode_is_looked_at(mode):
    image = tile(0).convert("L").convert("I;16") if mode == "I;16" else tile(0).convert(mode)
    assert look(encoded(image, "TIFF"), pathology=False).reason == ""


@pytest.mark.parametrize(
    ("kind", "more"), [("GIF", {}), ("WEBP", {}), ("TIFF", {}), ("MPO", {}), ("PNG", {})]
)
def test_the_first_of_several_frames_is_looked_at(kind, more):
    several = encoded(tile(0), kind, save_all=True, append_images=[chart()], **more)
    seen = look(several, pathology=False)
    first = look(encoded(tile(0), "JPEG" if kind == "MPO" else kind), pathology=False)
    assert (seen.reason, seen.width) == ("", 160)
    assert (seen.hashes[0] ^ first.hashes[0]).bit_count() <= 4


def test_a_picture_that_lies_on_its_side_is_measured_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = tile(0, 300).crop((0, 0, 300, 200))
    seen = look(encoded(wide, "JPEG", exif=exif.tobytes()))
    assert (seen.width, seen.height) == (200, 300)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_bytes_whatever_raise(data):
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF"]))
    content = bytearray(_GOOD[kind])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    seen = inspect(
        bytes(content[: data.draw(st.integers(0, len(content)))]), "a", ImageSettings(panels="cut")
    )
    assert all(one.reason or one.hashes for one in seen)


_GOOD = {kind: encoded(tile(0), kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF")}


def test_a_header_that_promises_too_many_pixels_is_refused():
    content = bytearray(_GOOD["PNG"])
    content[16:24] = (100_000).to_bytes(4, "big") * 2
    assert look(bytes(content)).reason == "image_undecodable"


def test_a_figure_of_panels_is_flagged_dropped_or_left_alone():
    content = jpeg(two_panels())
    assert look(content).flags == ("panels",) and look(content).reason == ""
    dropped = look(content, figures="drop")
    assert (dropped.reason, dropped.detail) == ("mixed_figure", "panels")
    assert look(content, figures="off").flags == ()


def test_panels_are_cut_and_looked_at_one_by_one():
    content = jpeg(two_panels())
    left, right = inspect(content, "a", ImageSettings(panels="cut"))
    assert left.box is not None and right.box is not None
    assert np.abs(np.array(left.box) - (0, 0, 200, 200)).max() <= 2
    assert np.abs(np.array(right.box) - (212, 0, 412, 200)).max() <= 2
    assert left.flags == right.flags == () and left.sha256 != right.sha256
    assert (left.width, left.height) == (left.box[2] - left.box[0], left.box[3] - left.box[1])


def test_the_hash_of_a_panel_is_that_of_the_bytes_that_cut_gives():
    import hashlib

    content = jpeg(two_panels())
    for panel in inspect(content, "a", ImageSettings(panels="cut")):
        assert panel.box is not None
        written = cut(content, panel.box)
        assert hashlib.sha256(written).hexdigest() == panel.sha256
        assert open_image(written).size == (panel.width, panel.height)


def test_each_panel_is_judged_by_itself():
    sheet = two_panels()
    sheet.paste(chart(200), (212, 0))
    sheet.paste((0, 0, 0), (212, 0, 412, 3))
    sheet.paste((0, 0, 0), (212, 0, 215, 200))
    reasons = [one.reason for one in inspect(jpeg(sheet), "a", ImageSettings(panels="cut"))]
    assert reasons == ["", "not_pathology"]


def test_panels_that_are_too_small_are_left_out():
    assert len(inspect(jpeg(two_panels()), "a", ImageSettings(panels="cut", min_side=150))) == 2
    sheet = Image.new("RGB", (372, 200), "white")
    sheet.paste(tile(1, 200), (0, 0))
    sheet.paste(tile(2).resize((160, 200)), (212, 0))
    (kept,) = inspect(jpeg(sheet), "a", ImageSettings(panels="cut", min_side=180))
    assert kept.box is not None and kept.box[2] <= 202


def test_the_same_bytes_give_the_same_answer():
    content = jpeg(tile(5))
    assert look(content) == look(content)


def hashes_by_imagehash(image: Image.Image) -> list[int]:
    small = image.convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    turned = (small if turn is None else small.transpose(turn) for turn in TURNS)
    return [int(str(imagehash.phash(one, 8)), 16) for one in turned]


def test_the_eight_hashes_are_those_of_imagehash():
    for seed in range(20):
        assert list(perceptual_hashes(tile(seed))) == hashes_by_imagehash(tile(seed))


@pytest.mark.real_data
def test_the_eight_hashes_of_real_pictures_are_those_of_imagehash(shared_data):
    files = sorted((shared_data / "patches").rglob("*.jp*g")) + sorted((shared_data / "pairs").rglob("*.jpg"))
    for file in random.Random(0).sample(files, 100):
        image = open_image(file, draft_to=256)
        assert list(perceptual_hashes(image)) == hashes_by_imagehash(image), file
