import json
from pathlib import Path

import pytest

from pathclip.errors import DataError
from pathclip.shards.reader import read_manifest, read_samples, shard_sizes
from pathclip.shards.writer import Sample, image_suffix, replace_shards, write_shards
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


def test_shards_take_the_place_of_earlier_ones_and_other_files_stay(tmp_path):
    tiny_shards.write(tmp_path / "train", n=12, per_shard=4)
    (tmp_path / "train" / "notes.txt").touch()
    tiny_shards.write(tmp_path / "new", n=6, per_shard=4)
    replace_shards({tmp_path / "new": tmp_path / "train"})
    assert list(read_samples(tmp_path / "train")) == tiny_shards.samples(6)
    assert read_manifest(tmp_path / "train").samples == 6
    assert sorted(p.name for p in (tmp_path / "train").iterdir()) == [
        *("000000.tar", "000001.tar", "manifest.json", "notes.txt", "sizes.json")
    ]


def test_a_kill_at_any_step_of_replacing_leaves_no_mixture_that_looks_whole(tmp_path, monkeypatch):
    def kept(folder: Path) -> int:
        """Samples that a reader gets of a folder; none where it refuses."""
        try:
            return len(list(read_samples(folder)))
        except DataError:
            return 0

    killed = True
    step = 0
    while killed:
        step += 1
        folder = tmp_path / str(step)
        staged = {folder / f"new_{name}": folder / name for name in ("train", "test")}
        for new, old in staged.items():
            tiny_shards.write(old, n=12, per_shard=4)
            tiny_shards.write(new, n=6, per_shard=2)
        with monkeypatch.context() as patch:
            left = iter(range(step - 1, -1, -1))
            for name in ("replace", "unlink"):
                patch.setattr(Path, name, _until(left, getattr(Path, name)))
            try:
                replace_shards(staged)
                killed = False
            except KeyboardInterrupt:
                pass
        found = {kept(old) for old in staged.values()}
        assert found <= {0, 12} or found <= {0, 6}, step
    assert step > 10 and found == {6}


def _until(left, action):
    """The action, which is a kill once the counter has run out."""

    def act(*arguments, **options):
        if not next(left):
            raise KeyboardInterrupt
        return action(*arguments, **options)

    return act


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
