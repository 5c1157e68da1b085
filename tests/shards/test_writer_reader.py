import errno
import io
import json
import tarfile

import pytest

from pathclip.errors import DataError
from pathclip.shards.reader import read_manifest, read_samples, shard_sizes
from pathclip.shards.writer import (
    Sample,
    image_suffix,
    shard_name,
    write_manifest,
    write_shard,
    write_shards,
)
from tests import tiny_shards


def test_samples_come_back_as_they_were_written(tmp_path):
    written = tiny_shards.samples(7)
    write_shards(tmp_path, written, 3)
    assert list(read_samples(tmp_path)) == written


def test_the_same_samples_give_the_same_bytes(tmp_path):
    first = tiny_shards.write(tmp_path / "a")
    second = tiny_shards.write(tmp_path / "b")
    assert first.sha256 == second.sha256
    assert first.hash == second.hash
    assert (tmp_path / "a" / "000000.tar").read_bytes() == (tmp_path / "b" / "000000.tar").read_bytes()


def test_sizes_and_manifest_count_every_shard(tmp_path):
    tiny_shards.write(tmp_path, n=10, per_shard=4)
    assert shard_sizes(tmp_path) == {"000000.tar": 4, "000001.tar": 4, "000002.tar": 2}
    assert read_manifest(tmp_path).samples == 10


def test_shards_of_a_longer_earlier_run_are_removed(tmp_path):
    tiny_shards.write(tmp_path, n=12, per_shard=4)
    tiny_shards.write(tmp_path, n=4, per_shard=4)
    assert sorted(p.name for p in tmp_path.glob("*.tar")) == ["000000.tar"]


def test_a_shard_that_cannot_be_written_leaves_no_half_of_it(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_shard(tmp_path / "000000.tar", tiny_shards.samples(3))
    assert list(tmp_path.iterdir()) == []


def test_shards_written_one_by_one_are_those_of_one_call(tmp_path):
    whole = tiny_shards.write(tmp_path / "whole", n=10, per_shard=4)
    samples = tiny_shards.samples(10)
    hashes = {
        shard_name(n): write_shard(tmp_path / "one" / shard_name(n), samples[4 * n : 4 * n + 4])
        for n in range(3)
    }
    sizes = {"000000.tar": 4, "000001.tar": 4, "000002.tar": 2}
    assert write_manifest(tmp_path / "one", sizes, hashes, "").hash == whole.hash
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "one" / file.name).read_bytes() == file.read_bytes()


def test_without_sizes_a_folder_is_refused_although_the_manifest_is_there(tmp_path):
    """The sizes are written last: a kill before leaves a folder that no reader takes for whole."""
    tiny_shards.write(tmp_path, n=4)
    (tmp_path / "sizes.json").unlink()
    with pytest.raises(DataError, match=r"no sizes\.json"):
        read_manifest(tmp_path)


def test_a_key_that_is_no_file_name_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"\.\./x"):
        write_shards(tmp_path, [Sample("../x", tiny_shards.samples(1)[0].image, "t")])


def test_a_key_that_occurs_twice_is_refused(tmp_path):
    sample = tiny_shards.samples(1)[0]
    with pytest.raises(DataError, match="twice"):
        write_shards(tmp_path, [sample, sample])


def test_a_truncated_shard_is_named(tmp_path):
    tiny_shards.write(tmp_path, n=12, per_shard=12)
    shard = tmp_path / "000000.tar"
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"000000\.tar"):
        list(read_samples(tmp_path))


def test_a_sample_whose_json_is_no_object_is_named(tmp_path):
    tiny_shards.write(tmp_path, n=1)
    with tarfile.open(tmp_path / "000000.tar", "w") as tar:
        picture = tiny_shards.samples(1)[0].image
        for name, content in (("a.jpg", picture), ("a.json", b"[1]"), ("a.txt", b"t")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    with pytest.raises(DataError, match="sample 'a': its JSON is not an object"):
        list(read_samples(tmp_path))


def test_a_shard_that_is_listed_but_missing_is_named(tmp_path):
    tiny_shards.write(tmp_path, n=12, per_shard=4)
    (tmp_path / "000001.tar").unlink()
    with pytest.raises(DataError, match=r"000001\.tar"):
        shard_sizes(tmp_path)


def test_the_parent_of_the_shards_gets_a_hint(tmp_path):
    tiny_shards.write(tmp_path / "train", n=4)
    with pytest.raises(DataError, match="train"):
        shard_sizes(tmp_path)


def test_sizes_that_point_elsewhere_are_refused(tmp_path):
    tiny_shards.write(tmp_path, n=4)
    (tmp_path / "sizes.json").write_text(json.dumps({"../other.tar": 4}))
    with pytest.raises(DataError, match="no file name"):
        shard_sizes(tmp_path)


def test_an_image_is_known_by_its_first_bytes():
    assert image_suffix(b"\xff\xd8\xff\xe0") == "jpg"
    assert image_suffix(b"\x89PNG\r\n\x1a\n") == "png"
    with pytest.raises(DataError):
        image_suffix(b"<html>")
