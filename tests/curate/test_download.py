"""Pictures that a dump names by URL, from a server on the loopback."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pathclip.curate.curate import UNFINISHED
from pathclip.curate.ledger import FILE

from .feed import contents, jpeg, reasons, run, samples, tissue, tweet, write_feed
from .picture_server import Answer, Asked, PictureServer


def linked(number: int, key: str, url: str) -> str:
    """A page with a tweet whose picture is described with its URL."""
    media = {"media_key": key, "type": "photo", "url": url}
    post = tweet(number, f"Adenocarcinoma of case {number} #GIpath", key)
    return json.dumps({"data": [post], "includes": {"media": [media]}})


SETTINGS = ("download=true", "fetch.allow_private=true", "fetch.backoff=0.01", "fetch.retries=1")


PICTURES = {f"/{n}.jpg": jpeg(tissue(n)) for n in range(100, 112)}


@pytest.fixture
def server():
    with PictureServer({path: Answer(picture) for path, picture in PICTURES.items()}) as running:
        yield running


def feed(folder: Path, server: PictureServer, *more: str, have: dict[str, bytes] | None = None) -> list[str]:
    """A dump whose pictures are on the server, but for those that are in the folder."""
    posts = [linked(n, f"3_{n}", server.url(f"/{n}.jpg")) for n in range(100, 112)]
    return [*write_feed(folder, [*posts, *more], have or {}), *SETTINGS]


def test_pictures_are_downloaded_once_and_the_second_run_asks_for_nothing(tmp_path, server):
    overrides = feed(tmp_path, server)
    out = run(overrides).out
    assert {sample.key: sample.image for sample in samples(out)} == {
        f"{n}_3_{n}": PICTURES[f"/{n}.jpg"] for n in range(100, 112)
    }
    assert set(server.requests.values()) == {1} and len(server.requests) == 12
    first = contents(out)
    run(overrides)
    assert sum(server.requests.values()) == 12
    assert contents(out) == first
    assert len([name for name in first if name.startswith("pictures/")]) >= 12


def test_what_lies_in_the_folder_is_not_asked_for(tmp_path, server):
    own = jpeg(tissue(7))
    out = run(feed(tmp_path, server, have={"3_105": own})).out
    assert "/105.jpg" not in server.requests and len(server.requests) == 11
    assert {sample.key: sample.image for sample in samples(out)}["105_3_105"] == own


def test_without_download_nothing_is_asked_for(tmp_path, server):
    overrides = feed(tmp_path, server, have={"3_105": jpeg(tissue(5))})
    out = run(overrides, "download=false").out
    assert not server.requests and len(samples(out)) == 1
    assert set(reasons(out).values()) == {"image_unreachable"}


def test_pictures_of_posts_that_fell_are_not_asked_for(tmp_path, server):
    question = tweet(200, "What is your diagnosis? #GIpath", "3_200")
    media = {"media_key": "3_200", "type": "photo", "url": server.url("/200.jpg")}
    out = run(feed(tmp_path, server, json.dumps({"data": [question], "includes": {"media": [media]}}))).out
    assert "/200.jpg" not in server.requests
    assert reasons(out)["200"] == "question"


def test_what_cannot_be_had_falls_for_its_own_reason(tmp_path, server):
    server.routes |= {
        "/100.jpg": Answer(b"", 404),
        "/101.jpg": Answer(PICTURES["/101.jpg"], headers={"X-Robots-Tag": "noai"}),
        "/102.jpg": Answer(b"<html>not a picture</html>", headers={"Content-Type": "text/html"}),
    }
    overrides = feed(tmp_path, server)
    out = run(overrides).out
    assert reasons(out) == {
        "100_3_100": "image_unreachable",
        "101_3_101": "image_opted_out",
        "102_3_102": "image_undecodable",
    }
    kept = contents(tmp_path / "out")
    assert not any(PICTURES["/101.jpg"] in kept[name] for name in kept if name.startswith("pictures/"))
    asked = sum(server.requests.values())
    run(overrides)
    assert sum(server.requests.values()) == asked  # what failed for good is not asked for again


def test_one_url_under_two_posts_is_asked_for_once(tmp_path, server):
    again = linked(300, "3_300", server.url("/100.jpg"))
    out = run(feed(tmp_path, server, again), "dedup.near_duplicates=group").out
    assert server.requests["/100.jpg"] == 1
    assert {sample.key for sample in samples(out)} >= {"100_3_100", "300_3_300"}


def test_a_folder_of_downloads_is_shared_by_runs(tmp_path, server):
    overrides = [*feed(tmp_path, server), f"pictures={tmp_path / 'shared'}"]
    run(overrides)
    out = run(overrides, f"out={tmp_path / 'other'}").out
    assert sum(server.requests.values()) == 12 and len(samples(out)) == 12
    assert not (out / "pictures").exists()


def test_what_was_downloaded_before_a_kill_is_not_asked_for_again(tmp_path, server):
    """A server that takes its time, and a run that is killed after some of the pictures."""

    def slow(asked: Asked) -> Answer:
        return Answer(PICTURES[asked.path], wait=0.05)

    server.routes = dict.fromkeys(PICTURES, slow)
    overrides = [*feed(tmp_path, server), "fetch.concurrency=2", "fetch.per_host=2"]
    whole = contents(run(overrides, f"out={tmp_path / 'whole'}", f"pictures={tmp_path / 'p'}").out)
    server.requests.clear()
    command = [sys.executable, "-m", "pathclip.curate", *overrides]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while sum(server.requests.values()) < 7 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (tmp_path / "out" / UNFINISHED / FILE).exists()
    before = sum(server.requests.values())
    assert 7 <= before < 12
    end = subprocess.run(command, capture_output=True, text=True, check=False)
    assert end.returncode == 0, end.stderr
    # Asked for twice: the two that were under way when the kill came, and on a busy machine the two before
    # them, answered and not yet on the disk. A run that begins anew would ask for all seven again.
    assert sum(server.requests.values()) <= 12 + 4
    assert len(server.requests) == 12
    after = contents(tmp_path / "out")
    assert {name: after[name] for name in whole} == whole
