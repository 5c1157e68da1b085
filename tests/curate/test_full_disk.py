"""A small disk of memory that fills up while pictures are curated onto it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pathclip.curate.curate import UNFINISHED

from .feed import cases, contents, write_feed

SIZE = 6 << 20  # bytes of the disk


@pytest.fixture(scope="module")
def disk(tmp_path_factory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(scope="module")
def feed(tmp_path_factory) -> list[str]:
    return [*write_feed(tmp_path_factory.mktemp("feed"), *cases(range(100, 140))), "samples_per_shard=8"]


def curated(feed: list[str], out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pathclip.curate", *feed, f"out={out}", *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def earlier(feed, disk) -> dict[str, bytes]:
    """What an earlier run left on the disk."""
    assert curated(feed, disk / "out", "text.hashtags=words", "limit=15").returncode == 0
    return contents(disk / "out")


@pytest.fixture(scope="module")
def whole(feed, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole")
    assert curated(feed, out).returncode == 0
    return contents(out)


def leave_free(disk: Path, earlier: dict[str, bytes], free: int) -> None:
    """Puts the disk back to what the earlier run left, and fills it but for so many bytes."""
    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, content in earlier.items():
        (disk / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (disk / "out" / name).write_bytes(content)
    state = os.statvfs(disk)
    left = state.f_bavail * state.f_frsize
    assert left > free
    (disk / "ballast").write_bytes(bytes(left - free))


def is_one_line_about_space(done: subprocess.CompletedProcess[str], out: Path) -> None:
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"pathclip curate: {out}: no space left on this disk")
    assert "give the same command again" in done.stderr


def fills_up_and_goes_on(feed, disk, earlier, whole, free: int) -> bool:
    """Returns whether the disk was too small; then there is space, and the same command finishes."""
    out = disk / "out"
    leave_free(disk, earlier, free)
    done = curated(feed, out)
    if done.returncode == 0:
        assert contents(out) == whole
        return False
    is_one_line_about_space(done, out)
    left = {name: content for name, content in contents(out).items() if UNFINISHED not in name}
    assert left == earlier
    (disk / "ballast").unlink()
    assert curated(feed, out).returncode == 0
    assert contents(out) == whole
    return True


# Kilobytes: not one table; some posts; all pictures looked at; some shards written.
@pytest.mark.parametrize("free", [24, 500])
def test_a_run_that_fills_the_disk_says_so_and_goes_on_when_there_is_space(feed, disk, earlier, whole, free):
    assert fills_up_and_goes_on(feed, disk, earlier, whole, free << 10)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_wherever_the_disk_fills_up_earlier_results_stay_and_the_run_can_go_on(feed, disk, earlier, whole):
    free, small = 0, True
    while small:
        free += 60 << 10
        small = fills_up_and_goes_on(feed, disk, earlier, whole, free)
    assert free > 600 << 10


def test_a_first_run_onto_a_full_disk_is_told_in_a_line_too(feed, disk, earlier):
    leave_free(disk, earlier, 0)
    done = curated(feed, disk / "new")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().count("\n") == 0 and "No space left" in done.stderr
