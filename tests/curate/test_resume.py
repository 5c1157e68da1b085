"""A curation that was killed goes on where it stopped and ends with the same bytes."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from contextlib import closing
from pathlib import Path

import pytest

from pathclip.curate import look, select
from pathclip.curate.curate import UNFINISHED, curate
from pathclip.curate.ledger import FILE, Ledger
from pathclip.errors import DataError
from pathclip.launch import compose
from pathclip.shards.reader import read_manifest, read_samples
from pathclip.sources import distinct

from .feed import cases, contents, jpeg, run, samples, tissue, write_feed
from .kills import COMMITS, FILE_CHANGES, killed_at
from .test_curate import IMAGES, POSTS


@pytest.fixture(scope="module")
def feed(tmp_path_factory) -> list[str]:
    """Two hundred cases, as overrides that read them."""
    folder = tmp_path_factory.mktemp("feed")
    return [*write_feed(folder, *cases(range(100, 300))), "samples_per_shard=15"]


@pytest.fixture(scope="module")
def undisturbed(feed, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    return contents(run(feed, f"out={out}").out)


@pytest.fixture
def small_steps(monkeypatch) -> None:
    """Commits so often that a feed of a dozen posts has many moments to be killed at."""
    monkeypatch.setattr(distinct, "BATCH", 4)
    monkeypatch.setattr(select, "POSTS_PER_PARTITION", 4)
    monkeypatch.setattr(look, "PICTURES_PER_PARTITION", 2)
    monkeypatch.setattr(look, "PICTURES_PER_COMMIT", 2)


def a_tar(folder: Path) -> Path:
    """The pictures of the small feed as a tar, which takes a stage more."""
    with tarfile.open(folder / "images.tar", "w") as tar:
        tar.add(folder / "images", "images")
    return folder / "images.tar"


def killed_at_every(stride: int, folder: Path) -> int:
    overrides = write_feed(folder, POSTS, IMAGES)
    a_tar(folder)
    overrides += [f"source.images={folder / 'images.tar'}", "samples_per_shard=1"]
    out = folder / "out"
    earlier = contents(run(overrides, "text.hashtags=words").out)
    shutil.copytree(out, folder / "earlier")
    expected = contents(run(overrides, f"out={folder / 'whole'}").out)
    cfg = compose("curate", overrides)
    step, calls = 1 - stride, ["killed"]
    while calls[-1] == "killed":
        step += stride
        shutil.rmtree(out)
        shutil.copytree(folder / "earlier", out)
        with killed_at(step, (*COMMITS, *FILE_CHANGES)) as calls:
            curate(cfg)
        left = {name: content for name, content in contents(out).items() if UNFINISHED not in name}
        if set(earlier) <= set(left):  # not yet publishing, or just done
            assert left in (earlier, expected), step
        curate(cfg)
        assert contents(out) == expected, step
    return step


def test_a_kill_at_any_commit_and_renaming_changes_nothing(tmp_path, small_steps):
    assert killed_at_every(5, tmp_path) > 60


@pytest.mark.slow
def test_a_kill_at_every_single_commit_and_renaming_changes_nothing(tmp_path, small_steps):
    assert killed_at_every(1, tmp_path) > 60


def looked_at(ledger: Path) -> int:
    """Pictures that a ledger nobody has open says were looked at."""
    with closing(sqlite3.connect(ledger / FILE)) as database:
        return database.execute("select count(*) from picture").fetchone()[0]


def test_what_was_looked_at_before_a_kill_is_not_looked_at_again(tmp_path, small_steps):
    overrides = write_feed(tmp_path, *cases(range(100, 112)))
    with pytest.MonkeyPatch.context() as patch:
        seen = iter(range(8))
        inspect = look.inspect

        def stopping(*arguments):
            next(seen)
            return inspect(*arguments)

        patch.setattr(look, "inspect", stopping)
        with pytest.raises(RuntimeError):  # the ninth picture ends the counting
            run(overrides)
    ledger = tmp_path / "out" / UNFINISHED
    assert looked_at(ledger) == 8
    with closing(sqlite3.connect(ledger / FILE)) as database:
        database.execute("update picture set width = 4321")  # which a second look would put right
        database.commit()
    out = run(overrides).out
    widths = [sample.meta["width"] for sample in samples(out)]
    assert widths.count(4321) == 8 and widths.count(160) == 4


def test_shards_that_were_written_before_a_kill_are_not_written_again(tmp_path, monkeypatch):
    overrides = [*write_feed(tmp_path, *cases(range(100, 112))), "samples_per_shard=2", "split.by=hash"]
    with killed_at(9, FILE_CHANGES):
        run(overrides)
    staged = sorted((tmp_path / "out" / UNFINISHED).glob("*/*.tar"))
    assert len(staged) > 2
    before = {file.relative_to(tmp_path / "out" / UNFINISHED): file.stat().st_ino for file in staged}
    out = run(overrides).out
    assert (
        before.items() <= {file.relative_to(out): file.stat().st_ino for file in out.glob("*/*.tar")}.items()
    )


def command(feed: list[str], *more: str) -> list[str]:
    return [sys.executable, "-m", "pathclip.curate", *feed, *more]


def started(feed: list[str], *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(feed, *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> bool:
    deadline = time.monotonic() + 60
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    return path.exists()


def nothing_half_is_visible(out: Path) -> None:
    for split in ("train", "val", "test"):
        for shard in (out / split).glob("*.tar"):
            with tarfile.open(shard) as tar:
                assert len(tar.getmembers()) % 3 == 0
        if (out / split / "sizes.json").exists():
            manifest = read_manifest(out / split)
            assert len(list(read_samples(out / split))) == manifest.samples


def killed(feed: list[str], out: Path, seconds: float, *more: str) -> bool:
    """Starts a run and kills it with all its processes so long after it began to work."""
    process = started(feed, f"out={out}", *more)
    wait_for(out / UNFINISHED / FILE, process)
    time.sleep(seconds)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return alive and process.returncode == -signal.SIGKILL


def kills(feed: list[str], out: Path, times: int, seed: int, *more: str) -> None:
    """Kills one run again and again at random moments, then lets it end."""
    moments, progress = random.Random(seed), 0
    for _ in range(times):
        if not killed(feed, out, moments.uniform(0.05, 1.2), *more):
            break
        nothing_half_is_visible(out)
        if (out / UNFINISHED / FILE).exists():
            copy = out.parent / f"{out.name}-ledger"
            shutil.copytree(out / UNFINISHED, copy)
            before, progress = progress, looked_at(copy)
            assert progress >= before
            shutil.rmtree(copy)
    end = subprocess.run(command(feed, f"out={out}", *more), capture_output=True, text=True, check=False)
    assert end.returncode == 0, end.stderr


def test_a_run_killed_three_times_ends_with_the_same_bytes(feed, undisturbed, tmp_path):
    kills(feed, tmp_path / "out", 3, 0)
    assert contents(tmp_path / "out") == undisturbed


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(1, 11))
def test_runs_killed_at_ten_other_moments_end_with_the_same_bytes(feed, undisturbed, tmp_path, seed):
    kills(feed, tmp_path / "out", 2, seed, f"workers={1 + seed % 2}")
    assert contents(tmp_path / "out") == undisturbed


@pytest.mark.slow
def test_a_synthetic_feed_that_was_being_drawn_is_drawn_again(tmp_path):
    overrides = ["source=synthetic", "source.synthetic.posts=120", "seed=1", "workers=1"]
    whole = contents(run(overrides, f"out={tmp_path / 'whole'}").out)
    moments, out = random.Random(5), tmp_path / "out"
    for _ in range(4):
        killed(overrides, out, moments.uniform(0.1, 2.5))
    assert contents(run(overrides, f"out={out}").out) == whole


def test_a_second_run_in_the_same_folder_is_refused_and_the_first_goes_on(feed, undisturbed, tmp_path):
    first = started(feed, f"out={tmp_path / 'out'}")
    assert wait_for(tmp_path / "out" / UNFINISHED / FILE, first)
    time.sleep(0.05)
    with pytest.raises(DataError, match="another `pathclip curate` is at work in this folder") as refused:
        run(feed, f"out={tmp_path / 'out'}")
    assert "\n" not in str(refused.value)
    assert first.communicate()[1] == "" and first.returncode == 0
    assert contents(tmp_path / "out") == undisturbed


def test_the_command_line_refuses_a_second_run_in_one_line(feed, tmp_path):
    with Ledger(tmp_path / "out" / UNFINISHED, "somebody's"):
        second = subprocess.run(
            command(feed, f"out={tmp_path / 'out'}"), capture_output=True, text=True, check=False
        )
    assert second.returncode == 1
    assert second.stderr.startswith(
        f"pathclip curate: {tmp_path / 'out'}: another `pathclip curate` is at work"
    )
    assert second.stderr.count("\n") == 1


def test_other_settings_in_the_same_folder_begin_anew(tmp_path):
    overrides = write_feed(tmp_path, *cases(range(100, 106)))
    with killed_at(25, COMMITS) as calls:
        run(overrides, "text.hashtags=words")
    assert calls[-1] == "killed"
    texts = {sample.text for sample in samples(run(overrides).out)}
    assert not any("GIpath" in text for text in texts)


def test_another_dump_under_the_same_name_begins_anew(tmp_path):
    overrides = write_feed(tmp_path, *cases(range(100, 106)))
    with killed_at(25, COMMITS) as calls:
        run(overrides)
    assert calls[-1] == "killed"
    shutil.rmtree(tmp_path / "images")
    (tmp_path / "posts.jsonl").unlink()
    for folder in (tmp_path / "again",):
        write_feed(folder, *cases(range(200, 204)))
        (folder / "posts.jsonl").rename(tmp_path / "posts.jsonl")
        (folder / "images").rename(tmp_path / "images")
    assert {sample.meta["post"] for sample in samples(run(overrides).out)} == {"200", "201", "202", "203"}


def test_a_picture_that_changed_while_the_run_was_stopped_is_told_and_the_next_run_is_sound(tmp_path):
    overrides = write_feed(tmp_path, *cases(range(100, 106)))
    with killed_at(2, FILE_CHANGES) as calls:  # all was looked at, the first shard not yet written
        run(overrides)
    assert calls[-1] == "killed"
    (tmp_path / "images" / "3_100.jpg").write_bytes(jpeg(tissue(7)))
    with pytest.raises(DataError, match=r"3_100\.jpg: changed since it was looked at; run again"):
        run(overrides)
    assert {sample.key: sample.image for sample in samples(run(overrides).out)}["100_3_100"] == jpeg(
        tissue(7)
    )
