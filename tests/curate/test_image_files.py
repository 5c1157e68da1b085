import gzip
import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from pathclip.curate.image_files import PictureFiles, Place, index_tar
from pathclip.errors import DataError
from pathclip.types import Media

from .feed import cases, jpeg, reasons, run, samples, tissue, tweet, write_feed


def write_tar(path: Path, members: dict[str, bytes], **options) -> Path:
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def opened(tar: Path) -> PictureFiles:
    index = tar.with_suffix(".sqlite")
    index_tar(tar, index)
    return PictureFiles(tar, index)


def content(files: PictureFiles, media: Media) -> bytes | None:
    place = files.find(media)
    return place.read() if place else None


MEMBERS = {
    "2022/01/k1.jpg": b"one",
    "./2022/k2.PNG": b"two",
    "k3.webp": b"three",
    "deep/er/F1abc.jpg": b"four",
    "2022/k1.jpg": b"another of that name",
    "a" * 120 + "/" + "b" * 80 + "/k4.jpg": b"a long name",
    "größe/ä.jpg": b"umlauts",
}


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_picture_in_a_tar_is_found_by_key_by_the_name_in_its_url_and_by_its_path(tmp_path, format):
    files = opened(write_tar(tmp_path / "a.tar", MEMBERS, format=format))
    assert content(files, Media("k1")) == b"one"
    assert content(files, Media("k3")) == b"three"
    assert content(files, Media("k4")) == b"a long name"
    assert content(files, Media("x", url="https://pbs.example.org/media/F1abc.jpg?name=large")) == b"four"
    assert content(files, Media("x", path="2022/k2.PNG")) == b"two"
    assert content(files, Media("x", path="größe/ä.jpg")) == b"umlauts"
    assert content(files, Media("x", path="2022/k1.jpg")) == b"another of that name"
    assert content(files, Media("x", path="2022/none.jpg")) is None
    assert content(files, Media("none", url="https://example.org/none.jpg")) is None


def test_what_is_no_file_in_a_tar_is_not_found(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (
            ("link.jpg", tarfile.SYMTYPE),
            ("hard.jpg", tarfile.LNKTYPE),
            ("d.jpg", tarfile.DIRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    files = opened(tmp_path / "a.tar")
    assert [content(files, Media(key)) for key in ("link", "hard", "d")] == [None] * 3


@pytest.mark.parametrize(
    "name",
    ["../../etc/k1.jpg", "/etc/k1.jpg", "a\\k1.jpg", "..", "\udcff\udcfe.jpg", "a\nb\x07.jpg", "k1.jpg" * 80],
)
def test_a_hostile_name_of_a_member_reaches_nothing_outside_and_spoils_no_other(tmp_path, name):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    tar = write_tar(tmp_path / "a.tar", {name: b"hostile", "ok.jpg": b"fine"}, errors="surrogateescape")
    files = opened(tar)
    assert content(files, Media("ok")) == b"fine"
    for path in (name, "../secret.jpg", str(secret), "secret.jpg"):
        assert content(files, Media("x", path=path)) in (None, b"hostile")


def test_a_tar_that_was_cut_off_is_refused_or_gives_what_it_holds(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", {f"k{n}.jpg": bytes([n]) * 5000 for n in range(10)})
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:22_000])
    with pytest.raises(DataError, match=r"source\.images=.*cut\.tar: not a readable tar"):
        opened(tmp_path / "cut.tar")


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_a_compressed_tar_is_refused_in_one_line(tmp_path, suffix):
    with tarfile.open(tmp_path / "a.tar", f"w:{suffix}") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(DataError, match=r"a\.tar: not a readable tar .* has to be unpacked") as refused:
        opened(tmp_path / "a.tar")
    assert "\n" not in str(refused.value)


JUNK = {"empty": b"", "picture": jpeg(tissue(1)), "zeros": b"\0" * 10_240, "gzip": gzip.compress(b"x" * 1000)}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_what_is_no_tar_is_refused_or_holds_nothing(tmp_path, junk):
    (tmp_path / "a.tar").write_bytes(junk)
    try:
        files = opened(tmp_path / "a.tar")
    except DataError as error:
        assert "not a readable tar" in str(error) and "\n" not in str(error)
    else:
        assert files.find(Media("a")) is None


def test_a_tar_of_many_files_is_indexed_in_little_memory(tmp_path):
    write_tar(tmp_path / "a.tar", {f"folder/{n:06d}.jpg": b"x" for n in range(3000)})
    index_tar(tmp_path / "a.tar", tmp_path / "i.sqlite")
    tracemalloc.start()
    index_tar(tmp_path / "a.tar", tmp_path / "i.sqlite")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000  # tarfile by itself keeps some kilobytes of each member


def test_an_index_that_is_made_anew_is_read_anew(tmp_path):
    """One process may curate into one folder from two tars, one after the other."""
    first = opened(write_tar(tmp_path / "a.tar", {"k.jpg": b"first", "l.jpg": b"l"}))
    assert content(first, Media("k")) == b"first"
    second = opened(write_tar(tmp_path / "a.tar", {"l.jpg": b"l" * 2000, "k.jpg": b"second"}))
    assert content(second, Media("k")) == b"second"


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "images" / "sub").mkdir(parents=True)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    for name in ("k1.jpg", "k2.webp", "F1abc.jpg", "sub/k3.jpg"):
        (tmp_path / "images" / name).write_bytes(name.encode())
    return tmp_path / "images"


def test_a_picture_in_a_folder_is_found_by_key_by_the_name_in_its_url_and_by_its_path(folder):
    files = PictureFiles(folder)
    assert content(files, Media("k1")) == b"k1.jpg"
    assert content(files, Media("k2")) == b"k2.webp"
    assert (
        content(files, Media("x", url="https://pbs.example.org/media/F1abc.jpg?name=large")) == b"F1abc.jpg"
    )
    assert content(files, Media("x", path="sub/k3.jpg")) == b"sub/k3.jpg"
    assert files.find(Media("none")) is None


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "sub/../../secret.jpg", "/etc/passwd", "", "a\0b", "x" * 5000, "\udcff", "."]
)
def test_no_name_of_a_dump_leads_out_of_the_folder(folder, name):
    files = PictureFiles(folder)
    assert files.find(Media("x", path=name or None)) is None
    assert files.find(Media(name)) is None
    assert files.find(Media("x", url=f"https://example.org/{name}")) is None
    assert files.find(Media("x", url=f"http://[{name}")) is None


def test_a_link_in_the_folder_is_the_persons_own(folder):
    (folder / "linked.jpg").symlink_to(folder.parent / "secret.jpg")
    assert content(PictureFiles(folder), Media("linked")) == b"secret"


def test_a_place_is_written_and_read_back():
    for place in (Place("/a/ö b.jpg"), Place("/a.tar", 512, 10)):
        assert Place.parse(place.write()) == place


def test_a_tar_of_pictures_gives_the_same_shards_as_the_folder(tmp_path):
    posts, pictures = cases(range(100, 120))
    overrides = write_feed(tmp_path, posts, pictures)
    tar = write_tar(
        tmp_path / "images.tar", {f"some/{n % 3}/3_{n}.jpg": pictures[f"3_{n}"] for n in range(100, 120)}
    )
    one = run(overrides, f"out={tmp_path / 'folder'}").out
    other = run(overrides, f"source.images={tar}", f"out={tmp_path / 'tar'}").out
    assert samples(one) == samples(other) and len(samples(other)) == 20
    for name in ("train", "val", "test"):
        assert (one / name / "manifest.json").read_bytes() == (other / name / "manifest.json").read_bytes()


def test_a_tar_is_read_by_several_processes(tmp_path):
    posts, pictures = cases(range(100, 140))
    overrides = write_feed(tmp_path, posts, pictures)
    tar = write_tar(tmp_path / "images.tar", {f"{key}.jpg": content for key, content in pictures.items()})
    assert len(samples(run(overrides, f"source.images={tar}", "workers=2").out)) == 40


def test_pictures_that_a_tar_lacks_are_told(tmp_path):
    overrides = write_feed(tmp_path, [tweet(1, "A fine lipoma #BSTpath", "3_1", "3_2")], {})
    tar = write_tar(tmp_path / "images.tar", {"x/3_1.jpg": jpeg(tissue(1))})
    result = run(overrides, f"source.images={tar}")
    assert reasons(result.out) == {"1_3_2": "image_unreachable"}
    assert result.dropped[0].detail == "no 3_2.jpg in images.tar"
