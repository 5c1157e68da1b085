from __future__ import annotations

import os
import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pathclip.errors import DataError
from pathclip.runtime.images import MAX_BYTES, find_images, open_image, printable, read_batches, walk_images
from pathclip.runtime.preprocess import Preprocess


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(width: int = 64, height: int = 40) -> Image.Image:
    row = np.linspace(0, 255, width, dtype=np.uint8)
    return Image.fromarray(np.stack([np.tile(row, (height, 1))] * 3, axis=-1))


def test_an_exif_rotated_photo_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    opened = open_image(encoded(gradient(), "PNG", exif=exif))
    assert opened.size == (40, 64)
    np.testing.assert_array_equal(np.asarray(opened), np.rot90(np.asarray(gradient()), -1))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF"])
def test_common_kinds_are_opened_as_rgb(kind):
    opened = open_image(encoded(gradient(), kind))
    assert opened.mode == "RGB"
    assert np.abs(np.asarray(opened, int) - np.asarray(gradient(), int)).max() < 12


def test_sixteen_bit_grey_keeps_its_range():
    values = np.linspace(0, 65535, 64 * 8, dtype=np.uint16).reshape(8, 64)
    opened = np.asarray(open_image(encoded(Image.fromarray(values), "PNG")))
    np.testing.assert_array_equal(opened[..., 0], values >> 8)


def test_a_draft_is_made_only_when_asked():
    content = encoded(gradient(640, 400), "JPEG")
    assert open_image(content).size == (640, 400)
    assert open_image(content, draft_to=100).size == (160, 100)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a picture"),
        (b"<html>", "not a picture"),
        (encoded(gradient(), "JPEG")[:300], "cannot be decoded|not a picture"),
        (encoded(gradient(), "PNG")[:90], "cannot be decoded|not a picture"),
        (encoded(gradient(), "TIFF")[:60], "cannot be decoded|not a picture"),
        (encoded(gradient(), "PPM"), "not a picture"),
    ],
    ids=["empty", "html", "half a JPEG", "half a PNG", "half a TIFF", "a kind that is not allowed"],
)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_broken_file_is_named_with_its_fault(tmp_path, content, reason):
    file = tmp_path / "broken.jpg"
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"broken\.jpg: ({reason})"):
        open_image(file)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png: no such file"):
        open_image(tmp_path / "gone.png")
    with pytest.raises(DataError, match="a folder, not a picture"):
        open_image(tmp_path)


def test_too_many_pixels_are_refused_before_decoding():
    with pytest.raises(DataError, match="64 x 40 pixels, more than the 1000 allowed"):
        open_image(encoded(gradient(), "PNG"), max_pixels=1000)


def test_a_decompression_bomb_is_refused(tmp_path):
    file = tmp_path / "bomb.png"
    Image.new("1", (20000, 20000)).save(file)
    with pytest.raises(DataError, match=r"bomb\.png: .*more than the"):
        open_image(file)


def test_pictures_are_found_below_a_folder_without_hidden_ones(tmp_path):
    for name in ("b.PNG", "a/c.jpeg", "a/notes.txt", ".cache/d.jpg", ".e.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_images(tmp_path) == [tmp_path / "a/c.jpeg", tmp_path / "b.PNG"]


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_keep_the_order_and_leave_out_what_is_broken(tmp_path, workers):
    paths = []
    for i in range(12):
        paths.append(tmp_path / f"{i}.png")
        paths[-1].write_bytes(encoded(Image.new("RGB", (20, 20), (i, 0, 0)), "PNG"))
    paths[4].write_bytes(b"no picture")
    batches = list(read_batches(paths, Preprocess((8, 8)), batch_size=3, workers=workers))
    assert [path for batch in batches for path, _ in batch.failed] == [paths[4]]
    assert [path for batch in batches for path, _ in batch.outcomes] == paths
    assert [len(batch.read) for batch in batches] == [3, 3, 3, 2]
    assert [path for batch in batches for path in batch.read] == paths[:4] + paths[5:]
    reds = np.concatenate([batch.pixels[:, 0, 0, 0] for batch in batches])
    assert reds.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]


def test_where_nothing_can_be_read_batches_of_errors_come_all_the_same(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(40)]
    batches = list(read_batches(paths, Preprocess((8, 8)), batch_size=2))
    assert [len(batch.outcomes) for batch in batches] == [16, 16, 8]
    assert all(batch.pixels.shape == (0, 8, 8, 3) and not batch.read for batch in batches)


def test_a_million_names_are_not_read_ahead(tmp_path):
    picture = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(picture)
    drawn = 0

    def names():
        nonlocal drawn
        for _ in range(1_000_000):
            drawn += 1
            yield picture

    batches = read_batches(names(), Preprocess((8, 8)), batch_size=4, workers=2)
    next(batches)
    batches.close()
    assert drawn <= 3 * 4 + 1


@pytest.mark.parametrize("workers", [1, 3])
def test_a_picture_too_thin_for_the_model_is_left_out_like_a_broken_one(tmp_path, workers):
    for name, size in (("a.png", (20, 20)), ("strip.png", (60_000, 1)), ("z.png", (20, 20))):
        Image.new("RGB", size).save(tmp_path / name)
    (batch,) = read_batches(find_images(tmp_path), Preprocess((8, 8)), workers=workers)
    assert [path.name for path in batch.read] == ["a.png", "z.png"]
    ((path, error),) = batch.failed
    assert str(error).startswith(f"{tmp_path / 'strip.png'}: 60000 x 1 pixels is too thin")
    assert path == tmp_path / "strip.png"


def test_a_name_that_is_not_utf8_is_left_out_and_told_in_escapes(tmp_path):
    for name in (b"a.png", b"caf\xe9.png"):
        Image.new("RGB", (20, 20)).save(tmp_path / os.fsdecode(name), "PNG")
    (batch,) = read_batches(find_images(tmp_path), Preprocess((8, 8)))
    assert [path.name for path in batch.read] == ["a.png"]
    ((path, error),) = batch.failed
    assert os.fsencode(path.name) == b"caf\xe9.png"
    assert str(error) == rf"{tmp_path}/caf\udce9.png: this name is not UTF-8 text; rename it"


def test_folders_are_walked_in_the_order_of_their_names_and_links_to_folders_are_not(tmp_path):
    for name in ("b/x.png", "a.png", "c.png", "b.d/y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "d.png").symlink_to(tmp_path / "a.png")
    found = [path.relative_to(tmp_path).as_posix() for path in walk_images(tmp_path)]
    assert found == ["a.png", "b/x.png", "b.d/y.png", "c.png", "d.png"]
    assert found == [path.relative_to(tmp_path).as_posix() for path in sorted(walk_images(tmp_path))]


@pytest.mark.parametrize("name", ["plain.png", "Gewebe, gefärbt.png", "病理.png", "a\u2028b.png"])
def test_a_utf8_name_is_printed_as_it_is(name):
    assert printable(Path(name)) == name


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ([float("nan"), 1, 2, 3], "not finite"),
        ([0, 1, 2, float("inf")], "not finite"),
        ([0, 0.25, 0.5, 1], "from 0 to 1, but"),
        ([0, 10, 200, 256], "from 0 to 256, but"),
        ([-1, 10, 200, 255], "from -1 to 255, but"),
    ],
)
def test_floating_values_that_would_turn_black_or_white_are_refused_by_name(tmp_path, values, fault):
    file = tmp_path / "float.tif"
    Image.fromarray(np.array([values], np.float32)).save(file)
    with pytest.raises(DataError, match=rf"float\.tif: floating values .*{fault}"):
        open_image(file)


@pytest.mark.parametrize("values", [[0, 10, 200, 255], [0, 0, 0, 0]])
def test_floating_values_of_a_picture_are_kept(values):
    content = encoded(Image.fromarray(np.array([values], np.float32)), "TIFF")
    assert np.asarray(open_image(content))[0, :, 0].tolist() == values


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_has_no_end_is_refused_without_waiting_for_it(tmp_path, kind):
    file = tmp_path / "endless.png"
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    faults = []

    def read():
        try:
            open_image(file)
        except DataError as error:
            faults.append(str(error))

    # A thread of its own: without a writer, opening a pipe would wait for ever.
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(10)
    assert faults == [f"{file}: a device or a pipe, not a file"]


def test_a_file_of_too_many_bytes_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(DataError, match=r"large\.png: larger than 512 MiB"):
        open_image(tmp_path / "large.png")


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 300 + ".png"], ids=["NUL", "long"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_name_that_no_file_can_have_is_one_bad_picture(tmp_path, name, workers):
    Image.new("RGB", (20, 20)).save(tmp_path / "good.png")
    paths = [tmp_path / name, tmp_path / "good.png"]
    (batch,) = read_batches(paths, Preprocess((8, 8)), workers=workers)
    assert batch.read == paths[1:]
    assert "cannot be read" in str(batch.failed[0][1])


@pytest.mark.parametrize("workers", [1, 3])
def test_what_was_asked_for_before_the_names_went_wrong_is_read_first(tmp_path, workers):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")

    def names():
        yield from [tmp_path / "a.png"] * 3
        raise DataError("a bad line")

    read = []
    with pytest.raises(DataError, match="a bad line"):
        for batch in read_batches(names(), Preprocess((8, 8)), batch_size=2, workers=workers):
            read += batch.read
    assert len(read) == 3
