from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pathclip import atomic


def test_json_is_written_the_same_for_equal_values(tmp_path):
    atomic.write_json(tmp_path / "a.json", {"b": "ü", "a": 1})
    atomic.write_json(tmp_path / "b.json", {"a": 1, "b": "ü"})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert "ü" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_missing_folders_are_made(tmp_path):
    atomic.write_text(tmp_path / "x" / "y" / "a.txt", "a")
    assert (tmp_path / "x/y/a.txt").read_text() == "a"


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    atomic.write_text(tmp_path / "a.txt", "old")

    def full(handle):
        raise OSError("disk full")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        atomic.write_text(tmp_path / "a.txt", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_reader_never_sees_a_part(tmp_path, monkeypatch):
    atomic.write_text(tmp_path / "a.txt", "old")
    seen = []
    rename = Path.replace

    def spy(source, target):
        seen.append((tmp_path / "a.txt").read_text())
        return rename(source, target)

    monkeypatch.setattr(Path, "replace", spy)
    atomic.write_text(tmp_path / "a.txt", "new")
    assert seen == ["old"]
    assert (tmp_path / "a.txt").read_text() == "new"


def test_others_of_the_machine_may_read_what_is_written(tmp_path):
    atomic.write_text(tmp_path / "a.txt", "a")
    with atomic.staged_folder(tmp_path / "b"):
        pass
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o755


def test_a_folder_appears_whole(tmp_path):
    with atomic.staged_folder(tmp_path / "out") as staging:
        (staging / "a").write_text("a")
        assert not (tmp_path / "out").exists()
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "a"]


def test_a_folder_replaces_an_earlier_one_whole(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").touch()
    with atomic.staged_folder(tmp_path / "out") as staging:
        (staging / "new").touch()
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "new"]


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_a_failed_folder_leaves_the_earlier_one_and_no_other(tmp_path, fault):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").touch()
    with pytest.raises(fault), atomic.staged_folder(tmp_path / "out") as staging:
        (staging / "new").touch()
        raise fault
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "old"]


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 300_000)
    assert atomic.sha256_file(tmp_path / "a") == hashlib.sha256(b"x" * 300_000).hexdigest()
