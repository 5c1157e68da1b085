"""The same command again, another command after it, and folders that lie in each other."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import psutil
import pytest

from pathclip.curate.curate import curate
from pathclip.curate.ledger import sole
from pathclip.curate.source import read_tombstones
from pathclip.curate.withdraw import STAGED, withdraw
from pathclip.errors import DataError
from pathclip.launch import compose
from pathclip.shards.reader import read_samples

from .feed import jpeg, tissue, tweet, write_feed

POSTS = [tweet(n, f"Melanoma of case {n} #dermpath", f"3_{n}", at=f"2021-0{n}-01") for n in range(1, 5)]
IMAGES = {f"3_{n}": jpeg(tissue(n)) for n in range(1, 5)}
NAMES = ("train", "val", "test")


def run(overrides: list[str], *more: str):
    return curate(compose("curate", [*overrides, "workers=1", *more]))


def keys(out: Path) -> set[str]:
    return {sample.key for name in NAMES for sample in read_samples(out / name)}


def test_a_run_that_keeps_nothing_leaves_the_earlier_shards_and_reports(tmp_path):
    overrides = write_feed(tmp_path, POSTS, IMAGES)
    out = run(overrides).out
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="not one pair is left"):
        run(overrides, f"source.images={tmp_path / 'none'}")
    assert {path: path.read_bytes() for path in before} == before
    assert json.loads((out / "nothing_left" / "funnel.json").read_text())["pairs"]["kept"] == 0


def test_out_may_lie_in_the_folder_of_the_dump(tmp_path):
    write_feed(tmp_path, POSTS, IMAGES)
    named = [f"source.posts={tmp_path}", f"source.images={tmp_path / 'images'}", f"out={tmp_path / 'shards'}"]
    for _ in range(2):
        result = run(["source=twitter", *named])
        assert [row["file"] for row in result.funnel["files"]] == ["posts.jsonl"]


def test_an_edited_vocabulary_is_another_curation_even_in_the_same_process(tmp_path):
    tags = tmp_path / "tags.yaml"
    tags.write_text("mine: [other]\n")
    overrides = [*write_feed(tmp_path, POSTS, IMAGES), f"rules.hashtag_file={tags}", "rules.hashtags=[mine]"]
    with pytest.raises(DataError, match="no_hashtag"):
        run(overrides)
    tags.write_text("mine: [dermpath]\n")
    assert len(keys(run(overrides).out)) == 4


def test_a_distance_of_zero_finds_equal_hashes(tmp_path):
    images = IMAGES | {"3_2": jpeg(tissue(1), quality=89)}
    result = run(write_feed(tmp_path, POSTS, images), "dedup.max_distance=0")
    assert len(keys(result.out)) in (3, 4)


def test_rows_with_one_id_take_time_in_proportion(tmp_path):
    (tmp_path / "1.jpg").write_bytes(IMAGES["3_1"])
    count = 4000
    rows = "".join(f"slide,1.jpg,melanoma {n}\n" for n in range(count))
    (tmp_path / "t.csv").write_text("id,image,text\n" + rows)
    named = [f"source.posts={tmp_path / 't.csv'}", f"out={tmp_path / 'out'}", "source.columns.id=id"]
    started = time.monotonic()
    result = run(["source=table", *named], "dedup.near_duplicates=off", "dedup.captions=off")
    assert time.monotonic() - started < 60
    assert len(keys(result.out)) == count and f"slide-{count}" in keys(result.out)


def test_a_whole_path_in_a_tar_stands_before_a_files_own_name(tmp_path):
    for name, seed in (("train/x.jpg", 1), ("x.jpg", 2)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(jpeg(tissue(seed)))
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        tar.add(tmp_path / "train/x.jpg", "train/x.jpg")
        tar.add(tmp_path / "x.jpg", "x.jpg")
    (tmp_path / "t.csv").write_text("image,text\nx.jpg,a melanoma\n")
    named = [f"source.posts={tmp_path / 't.csv'}", f"source.images={tmp_path / 'images.tar'}"]
    result = run(["source=table", *named, f"out={tmp_path / 'out'}"])
    (sample,) = [s for name in NAMES for s in read_samples(result.out / name)]
    assert sample.image == jpeg(tissue(2))


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (b"\xef\xbb\xbf123\n", {"123"}),
        (b"123 # gone\n# remark\n", {"123"}),
        (b"slides/img#3.png\n", {"slides/img#3.png"}),
        (b"\r\n 7 \r\n", {"7"}),
    ],
)
def test_tombstones_may_hold_a_mark_of_unicode_remarks_and_names_with_a_hash(tmp_path, content, ids):
    (tmp_path / "gone.txt").write_bytes(content)
    assert read_tombstones(tmp_path / "gone.txt") == ids


def test_two_withdrawals_at_once_and_a_curation_during_one_are_refused(tmp_path):
    overrides = write_feed(tmp_path, POSTS, IMAGES)
    out = run(overrides).out
    with sole(out / STAGED):
        with pytest.raises(DataError, match="another process"):
            withdraw(out, frozenset({"1"}))
        with pytest.raises(DataError, match="another process"):
            run(overrides)
    withdraw(out, frozenset({"1"}))
    assert len(keys(out)) == 3


def test_a_withdrawal_that_was_stopped_half_way_is_finished_before_anything_else(tmp_path, monkeypatch):
    overrides = write_feed(tmp_path, POSTS, IMAGES)
    out = run(overrides).out
    with monkeypatch.context() as patch:
        patch.setattr("pathclip.curate.withdraw._apply", lambda out: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            withdraw(out, frozenset({"1"}))
    with pytest.raises(DataError, match="finish it first"):
        run(overrides, "seed=1")
    withdraw(out, frozenset({"1"}))
    assert len(keys(out)) == 3
    assert len(keys(run(overrides).out)) == 4


def test_temporary_files_of_a_killed_run_are_swept(tmp_path):
    overrides = write_feed(tmp_path, POSTS, IMAGES)
    for name in ("out/.funnel.json.abc.tmp", "out/train/.sizes.json.abc.tmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("half")
    out = run(overrides).out
    assert not list(out.rglob(".*.tmp"))


def test_workers_end_soon_after_a_parent_that_was_killed(tmp_path):
    code = (
        "import time\nfrom pathclip.curate.engine import Engine\n"
        "from tests.curate.test_again import slow\n"
        "if __name__ == '__main__':\n"
        "    for _ in Engine('local', 2).map(slow, range(10000), 1): print('x', flush=True)\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=environment)
    assert parent.stdout is not None and parent.stdout.readline()
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) >= 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


def slow(items: list[int]) -> list[int]:
    time.sleep(0.05)
    return items


def test_long_ids_of_any_platform_become_names_that_a_tar_can_hold(tmp_path):
    did, cid = "did:plc:" + "a" * 24, "bafkrei" + "b" * 52
    (tmp_path / f"{cid}.jpg").write_bytes(IMAGES["3_1"])
    image = {"$type": "blob", "ref": {"$link": cid}, "mimeType": "image/jpeg", "size": 1}
    record = {
        "$type": "app.bsky.feed.post",
        "text": "A fine melanoma of the skin #dermpath",
        "tags": ["dermpath"],
        "createdAt": "2024-01-01T00:00:00Z",
        "embed": {"$type": "app.bsky.embed.images", "images": [{"alt": "", "image": image}]},
    }
    line = {"uri": f"at://{did}/app.bsky.feed.post/3kabcdefghijk", "value": record}
    (tmp_path / "posts.jsonl").write_text(json.dumps(line) + "\n")
    result = run(["source=bluesky", f"source.posts={tmp_path / 'posts.jsonl'}", f"out={tmp_path / 'out'}"])
    (key,) = keys(result.out)
    assert len(f"{key}.json") <= 100


@pytest.mark.parametrize("source", ["table", "figures"])
def test_long_file_names_are_no_hindrance(tmp_path, source):
    name = "x" * 120
    (tmp_path / f"{name}.jpg").write_bytes(IMAGES["3_1"])
    (tmp_path / f"{name}.txt").write_text("A fine melanoma of the skin")
    (tmp_path / "t.csv").write_text(f"image,text\n{name}.jpg,A fine melanoma of the skin\n")
    posts = tmp_path / "t.csv" if source == "table" else tmp_path
    result = run([f"source={source}", f"source.posts={posts}", f"out={tmp_path / 'out'}"])
    assert len(keys(result.out)) == 1


def test_an_interrupt_while_workers_start_is_one_line(tmp_path):
    overrides = write_feed(tmp_path, POSTS * 200, IMAGES)
    command = [sys.executable, "-m", "pathclip.curate", "source=synthetic", "source.synthetic.posts=80"]
    done = subprocess.Popen(
        [*command, f"out={tmp_path / 'o'}", "workers=2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert overrides
    while len(psutil.Process(done.pid).children(recursive=True)) < 2 and done.poll() is None:
        time.sleep(0.02)
    os.killpg(done.pid, signal.SIGINT)
    _, errors = done.communicate(timeout=60)
    assert "Traceback" not in errors and done.returncode in (0, 130), errors
