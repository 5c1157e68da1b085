import io
import random
from pathlib import Path

import pytest
from PIL import Image

from pathclip.curate.images import ImageSettings, find_image, inspect, not_pathology
from pathclip.runtime.images import open_image
from pathclip.types import Media

from .feed import chart, jpeg, tissue


def look(folder: Path, content: bytes, **settings) -> str:
    path = folder / "a.jpg"
    path.write_bytes(content)
    return inspect(path, ImageSettings(**settings)).reason


def test_tissue_passes_with_hash_and_size(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(tissue(0, 200)))
    seen = inspect(tmp_path / "a.jpg", ImageSettings())
    assert (seen.reason, seen.width, seen.height) == ("", 200, 200)
    assert len(seen.sha256) == 64 and len(seen.hashes) == 8


def test_broken_pictures_are_an_answer_and_no_exception(tmp_path):
    good = jpeg(tissue(0))
    for content in (b"", b"<html>", good[:200], good[: len(good) // 2], b"BM" + bytes(60)):
        assert look(tmp_path, content) == "image_undecodable"
    assert inspect(tmp_path / "absent.jpg", ImageSettings()).reason == "image_missing"
    assert inspect(None, ImageSettings()).reason == "image_missing"


def test_too_many_pixels_or_bytes_are_not_decoded(tmp_path):
    assert look(tmp_path, jpeg(tissue(0)), max_pixels=1000) == "image_undecodable"
    assert look(tmp_path, jpeg(tissue(0)), max_bytes=1000) == "image_undecodable"


def test_a_small_picture_falls(tmp_path):
    assert look(tmp_path, jpeg(tissue(0, 80))) == "image_too_small"
    assert look(tmp_path, jpeg(tissue(0, 80)), min_side=64) == ""


def test_a_chart_is_no_pathology_unless_nobody_asks(tmp_path):
    assert look(tmp_path, jpeg(chart())) == "not_pathology"
    assert look(tmp_path, jpeg(chart()), pathology=False) == ""


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "1", "I;16"])
def test_every_mode_is_looked_at(tmp_path, mode):
    file = io.BytesIO()
    image = tissue(0).convert("L").convert("I;16") if mode == "I;16" else tissue(0).convert(mode)
    image.save(file, "TIFF")
    assert look(tmp_path, file.getvalue(), pathology=False) == ""


def test_an_image_is_found_by_path_key_or_url_and_never_outside_the_folder(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for name in ("sub/a.jpg", "3_1.png", "Fx9.jpg"):
        (folder / name).write_bytes(b"x")
    (tmp_path / "secret.jpg").write_bytes(b"x")
    assert find_image(Media("k", path="sub/a.jpg"), folder) == folder / "sub/a.jpg"
    assert find_image(Media("3_1"), folder) == folder / "3_1.png"
    assert find_image(Media("3_2", url="https://pbs.twimg.com/media/Fx9.jpg?name=orig"), folder)
    for path in ("../secret.jpg", str(tmp_path / "secret.jpg"), "sub/../../secret.jpg", "a\0b", "x" * 5000):
        assert find_image(Media("k", path=path), folder) is None
    assert find_image(Media("../secret"), folder) is None


@pytest.mark.real_data
def test_real_tissue_of_four_laboratories_passes(shared_data):
    rng = random.Random(0)
    settings = ImageSettings()
    for name, count in (("lc25000", 120), ("oral_oscc", 120), ("atlas_wsi_tiles", 80)):
        files = sorted((shared_data / "patches" / name / "images").rglob("*.jp*g"))
        chosen = rng.sample(files, count)
        passed = sum(not not_pathology(open_image(file), settings) for file in chosen)
        assert passed >= 0.95 * count, name
    overviews = sorted((shared_data / "pairs" / "patoloji_atlasi" / "images").glob("*.jpg"))
    assert sum(not not_pathology(open_image(file), settings) for file in overviews) >= 0.95 * len(overviews)


def test_photographs_of_people_and_places_are_no_pathology():
    sklearn = pytest.importorskip("sklearn")
    matplotlib = pytest.importorskip("matplotlib")
    folder = Path(sklearn.__file__).parent / "datasets" / "images"
    people = Path(matplotlib.__file__).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg"
    for file in (folder / "china.jpg", folder / "flower.jpg", people):
        assert not_pathology(open_image(file), ImageSettings()), file.name


def test_white_ground_alone_shows_nothing():
    assert not_pathology(Image.new("RGB", (200, 200), (244, 243, 245)), ImageSettings())
