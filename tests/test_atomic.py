from __future__ import annotations

import hashlib
import subprocess
import sys
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


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_a_staged_file_that_fails_leaves_the_old_one_and_no_other(tmp_path, fault):
    atomic.write_text(tmp_path / "a.txt", "old")
    with pytest.raises(fault), atomic.staged_file(tmp_path / "a.txt") as staged:
        staged.write_text("half")
        assert (tmp_path / "a.txt").read_text() == "old"
        raise fault
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_staged_file_takes_its_place_whole(tmp_path):
    with atomic.staged_file(tmp_path / "x" / "a.txt") as staged:
        assert staged.parent == tmp_path / "x"
        staged.write_text("new")
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["a.txt"]
    assert (tmp_path / "x/a.txt").read_text() == "new"


def test_others_of_the_machine_may_read_what_is_written(tmp_path):
    atomic.write_text(tmp_path / "a.txt", "a")
    with atomic.staged_folder(tmp_path / "b"):
        pass
    with atomic.staged_file(tmp_path / "c.txt"):
        pass
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "c.txt").stat().st_mode & 0o777 == 0o644
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


def renames_that_fail(monkeypatch, *numbers: int) -> None:
    """Lets the renames with these numbers, counted from 1, raise."""
    rename, calls = Path.replace, iter(range(1, 100))

    def replace(source, target):
        if next(calls) in numbers:
            raise OSError("no rename today")
        return rename(source, target)

    monkeypatch.setattr(Path, "replace", replace)


def replace_out(folder: Path) -> None:
    with atomic.staged_folder(folder / "out") as staging:
        (staging / "new").touch()


@pytest.fixture
def earlier(tmp_path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").touch()
    return tmp_path


@pytest.mark.parametrize("number", [1, 2])
def test_a_replacing_that_fails_puts_the_earlier_folder_back(earlier, monkeypatch, number):
    renames_that_fail(monkeypatch, number)
    with pytest.raises(OSError, match="no rename today"):
        replace_out(earlier)
    assert [p.name for p in earlier.rglob("*")] == ["out", "old"]


def test_an_earlier_folder_that_cannot_be_put_back_is_not_deleted(earlier, monkeypatch):
    renames_that_fail(monkeypatch, 2, 3)
    with pytest.raises(OSError, match="no rename today"):
        replace_out(earlier)
    assert [str(p.relative_to(p.parents[1])) for p in earlier.rglob("old")] == ["out/old"]


KILLED = """
import os, sys
from pathlib import Path
from pathclip import atomic

rename, calls = Path.replace, iter(range(1, 100))
Path.replace = lambda source, to: rename(source, to) if next(calls) == 1 else os._exit(9)
with atomic.staged_folder(Path(sys.argv[1])):
    pass
"""


def killed_between_the_renames(folder: Path) -> None:
    run = subprocess.run([sys.executable, "-c", KILLED, str(folder / "out")], check=False)
    assert run.returncode == 9
    assert not (folder / "out").exists()
    for staging in folder.glob(".out.*.tmp"):
        staging.rmdir()


def test_what_a_kill_between_the_renames_left_aside_is_put_back_by_the_next_call(earlier):
    killed_between_the_renames(earlier)
    with pytest.raises(RuntimeError), atomic.staged_folder(earlier / "out"):
        assert [p.name for p in (earlier / "out").iterdir()] == ["old"]
        raise RuntimeError
    assert [p.name for p in earlier.rglob("*")] == ["out", "old"]
    killed_between_the_renames(earlier)
    replace_out(earlier)
    assert [p.name for p in earlier.rglob("*")] == ["out", "new"]


def test_nothing_is_put_back_over_a_folder_that_is_there_or_from_among_several(earlier):
    killed_between_the_renames(earlier)
    (earlier / "out").mkdir()
    with pytest.raises(RuntimeError), atomic.staged_folder(earlier / "out"):
        raise RuntimeError
    assert list((earlier / "out").iterdir()) == []
    killed_between_the_renames(earlier)
    with pytest.raises(RuntimeError), atomic.staged_folder(earlier / "out"):
        raise RuntimeError
    assert not (earlier / "out").exists()


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 300_000)
    assert atomic.sha256_file(tmp_path / "a") == hashlib.sha256(b"x" * 300_000).hexdigest()
