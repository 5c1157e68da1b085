import io
import tarfile

import pytest

from pathclip.errors import DataError
from pathclip.shards import tar
from pathclip.shards.order import Reference
from pathclip.shards.samples import SampleReader, group_number, index_shard
from tests import tiny_shards

LONG = "folder/" + "n" * 120


def write_tar(path, files, format=tarfile.USTAR_FORMAT, **info):
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in info.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(content))
    return str(path)


def read_all(shard, size):
    reader = SampleReader({shard: size})
    return reader.read([Reference(shard, number) for number in range(size)])


def test_any_sample_can_be_read_in_any_order(tmp_path):
    tiny_shards.write(tmp_path, n=10, per_shard=10)
    shard, written = str(tmp_path / "000000.tar"), tiny_shards.samples(10)
    chosen = [7, 0, 9, 7]
    read = SampleReader({shard: 10}).read([Reference(shard, n) for n in chosen])
    assert [sample["__key__"] for sample in read] == [written[n].key for n in chosen]
    assert [sample["jpg"] for sample in read] == [written[n].image for n in chosen]
    assert [sample["txt"].decode() for sample in read] == [written[n].text for n in chosen]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("stem", ["a", "folder/b", LONG, "größe"])
def test_shards_of_every_tar_format_are_read(tmp_path, format, stem):
    if format == tarfile.USTAR_FORMAT and stem == LONG:
        pytest.skip("ustar cannot hold a name that long")
    files = [(f"{stem}{n}.{end}", f"{end}{n}".encode()) for n in range(3) for end in ("jpg", "TXT")]
    # A time with a fraction is how other writers bring PAX headers into plain tars.
    shard = write_tar(tmp_path / "s.tar", files, format, mtime=1.5 if format == tarfile.PAX_FORMAT else 1)
    read = read_all(shard, 3)
    assert [(s["__key__"], s["jpg"], s["txt"]) for s in read] == [
        (f"{stem}{n}", f"jpg{n}".encode(), f"txt{n}".encode().replace(b"txt", b"TXT")) for n in range(3)
    ]


def test_folders_links_and_notes_between_samples_are_stepped_over(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name, kind in (
            ("d", tarfile.DIRTYPE),
            ("__notes__", None),
            ("a.txt", None),
            ("l.txt", tarfile.SYMTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type = kind or tarfile.REGTYPE
            member.size = 0 if kind else 3
            tar.addfile(member, None if kind else io.BytesIO(b"abc"))
    (sample,) = read_all(str(tmp_path / "s.tar"), 1)
    assert (sample["__key__"], sample["txt"]) == ("a", b"abc")


def test_the_group_of_a_sample_is_that_of_its_json_or_its_own(tmp_path):
    files = [
        ("a.json", b'{"group": "g"}'),
        ("a.txt", b"t"),
        ("b.txt", b"t"),
        ("c.txt", b"t"),
        ("c.json", b"{}"),
    ]
    shard = write_tar(tmp_path / "s.tar", files)
    reader = SampleReader({shard: 3}, with_groups=True)
    found = [reader.group(Reference(shard, number)) for number in range(3)]
    assert found == [group_number({"group": "g"}, "a"), group_number({}, "b"), group_number({}, "c")]


def test_a_json_that_is_none_is_named_where_groups_matter(tmp_path):
    shard = write_tar(tmp_path / "s.tar", [("a.json", b"[1]"), ("a.txt", b"t")])
    assert len(index_shard(shard, 1).starts) == 1
    with pytest.raises(DataError, match=r"s\.tar: sample 'a': its \.json is no JSON object"):
        index_shard(shard, 1, with_groups=True)


def test_a_sample_with_the_same_file_twice_is_named(tmp_path):
    shard = write_tar(tmp_path / "s.tar", [("a.txt", b"1"), ("a.txt", b"2")])
    with pytest.raises(DataError, match=r"s\.tar: not a readable sample .*duplicate file name"):
        read_all(shard, 1)


def test_fewer_samples_than_promised_are_noticed(tmp_path):
    shard = write_tar(tmp_path / "s.tar", [("a.txt", b"1"), ("b.txt", b"2")])
    with pytest.raises(DataError, match=r"holds 2 samples, fewer than the 3 that sizes\.json"):
        index_shard(shard, 3)


def test_no_more_is_looked_at_than_is_used(tmp_path):
    tiny_shards.write(tmp_path, n=10, per_shard=10)
    shard = tmp_path / "000000.tar"
    shard.write_bytes(shard.read_bytes()[:-12_000])
    assert len(index_shard(str(shard), 2).starts) == 2


@pytest.mark.parametrize("content", [b"", b"<html>" * 500, b"\x1f\x8b" + bytes(2000)])
def test_what_is_no_tar_is_one_line(tmp_path, content):
    shard = tmp_path / "s.tar"
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"s\.tar: ") as error:
        index_shard(str(shard), 1)
    assert "write the shards again" in str(error.value) and "\n" not in str(error.value)


def test_every_damaged_byte_of_a_header_is_noticed(tmp_path):
    shard = write_tar(tmp_path / "s.tar", [("a.txt", b"1" * 600), ("b.txt", b"2")])
    whole = (tmp_path / "s.tar").read_bytes()
    for place in range(0, 512, 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0x11
        (tmp_path / "s.tar").write_bytes(damaged)
        with pytest.raises(DataError):
            index_shard(shard, 2)


def test_a_shard_that_was_cut_while_training_is_one_line(tmp_path):
    tiny_shards.write(tmp_path, n=10, per_shard=10)
    shard = tmp_path / "000000.tar"
    reader = SampleReader({str(shard): 10})
    reader.read([Reference(str(shard), 0)])
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(DataError, match="became shorter"):
        reader.read([Reference(str(shard), 9)])


def test_a_member_that_would_end_before_it_begins_is_refused():
    """Read as it stands, it would lead back to itself for ever."""
    header = bytearray(tarfile.TarInfo("a.txt").tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = b"-0000002000\0"
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(tarfile.ReadError, match="invalid header"):
        list(tar.members(io.BytesIO(bytes(header) * 4), 4 * 512))


def test_a_header_that_would_fill_the_memory_is_refused():
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.XHDTYPE, 2 << 20
    content = header.tobuf(tarfile.USTAR_FORMAT) + bytes(2 << 20)
    with pytest.raises(tarfile.ReadError, match="a header of 2,097,152 bytes"):
        list(tar.members(io.BytesIO(content), len(content)))
