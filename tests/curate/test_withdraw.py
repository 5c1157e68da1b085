"""A curated feed with small shards, from which posts are then withdrawn."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pathclip.curate import withdraw as module
from pathclip.curate.curate import UNFINISHED
from pathclip.curate.funnel import read_dropped
from pathclip.curate.withdraw import RECORD, STAGED, Withdrawal, withdraw
from pathclip.errors import DataError
from pathclip.shards.reader import read_manifest, read_samples
from pathclip.shards.writer import write_shards
from tests import tiny_shards

from .feed import contents, jpeg, reasons, reply, run, samples, tissue, tweet, write_feed
from .kills import FILE_CHANGES, killed_at

# Ids of fifteen digits, as no hash and no number in a tar's header holds them by chance.
BASE = 700_000_000_000_000


def number(n: int) -> int:
    return BASE + n


def case(n: int, text: str = "", *media: str, **more: Any) -> dict[str, Any]:
    keys = media or (f"3_{n}",)
    return tweet(number(n), text or f"Adenocarcinoma of case {n} #GIpath", *keys, **more)


def answer(n: int, to: int, likes: int = 5, **more: Any) -> dict[str, Any]:
    return reply(number(n), number(to), f"Agree, an adenocarcinoma, answer {n} #GIpath", likes, **more)


def edited(post: dict[str, Any], *versions: int) -> dict[str, Any]:
    return {**post, "edit_history_tweet_ids": [str(number(n)) for n in versions]}


POSTS = [
    case(1, at="2021-01-01"),
    answer(2, 1, at="2021-01-02"),  # describes the picture of 1
    answer(3, 1, likes=1, at="2021-01-02"),  # falls: less liked
    # A reply with a picture of its own, and a reply to that one.
    {**answer(4, 1, at="2021-01-03"), "attachments": {"media_keys": ["3_4"]}},
    {
        **answer(5, 4, at="2021-01-04"),
        "conversation_id": str(number(1)),
        "attachments": {"media_keys": ["3_5", "3_missing"]},
    },
    case(6, "Adenocarcinoma, another field of it #GIpath", "3_6", "3_66", at="2021-02-01"),  # 3_6 is near 3_1
    *(case(n, at=f"2021-03-{n:02d}") for n in range(10, 22)),
    edited(case(33, at="2021-04-01"), 31, 32, 33),
    answer(34, 32, at="2021-04-02"),  # to a version before the last
    {**answer(35, 32, at="2021-04-02"), "attachments": {"media_keys": ["3_35"]}},
    case(40, "What is your diagnosis of this adenocarcinoma? #GIpath", at="2021-04-03"),  # falls: a question
    answer(41, 40, at="2021-04-04"),  # and its answer stays
]
PICTURES = {f"3_{n}": jpeg(tissue(n)) for n in (1, 4, 5, 66, *range(10, 22), 33, 35, 40)}
PICTURES["3_6"] = jpeg(tissue(1).rotate(90), quality=70)


@pytest.fixture(scope="module")
def curated(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("curated")
    overrides = write_feed(folder, POSTS, PICTURES)
    return run(overrides, "samples_per_shard=2", "split.val=0.2", "split.test=0.2").out


@pytest.fixture
def out(curated, tmp_path) -> Path:
    shutil.copytree(curated, tmp_path / "out")
    return tmp_path / "out"


def ids(*numbers: int) -> frozenset[str]:
    return frozenset(str(number(n)) for n in numbers)


def posts_of(out: Path) -> set[int]:
    return {int(sample.meta["post"]) - BASE for sample in samples(out)}


def mentions(out: Path, *numbers: int) -> list[str]:
    """Files that hold any of the ids: their bytes, names, and what a Parquet file says when it is read."""
    found = []
    for file in sorted(out.rglob("*")):
        text = file.read_bytes() if file.is_file() else b""
        if file.suffix == ".parquet":
            text += json.dumps(pq.read_table(file).to_pylist()).encode()
        if any(str(number(n)).encode() in text + str(file.relative_to(out)).encode() for n in numbers):
            found.append(str(file.relative_to(out)))
    return found


def is_whole(out: Path) -> None:
    """The manifest says the truth of every shard, and the funnel of the pairs that are left."""
    for split in ("train", "val", "test"):
        manifest = read_manifest(out / split)
        assert sorted(manifest.sizes) == sorted(file.name for file in (out / split).glob("*.tar"))
        assert len(list(read_samples(out / split))) == manifest.samples == sum(manifest.sizes.values())
        for name, digest in manifest.sha256.items():
            assert hashlib.sha256((out / split / name).read_bytes()).hexdigest() == digest
    assert not (out / STAGED).exists()


def test_the_feed_is_what_the_tests_below_believe(curated):
    kept = posts_of(curated)
    assert kept == {1, 2, 4, 5, 6, *range(10, 22), 33, 34, 35, 41}
    assert reasons(curated)[str(number(6)) + "_3_6"] == "near_duplicate"
    groups = {sample.meta["post"]: sample.meta["group"] for sample in samples(curated)}
    assert {groups[str(number(n))] for n in (1, 2, 4, 5, 6)} == {f"twitter:{number(1)}"}
    assert mentions(curated, 1) and mentions(curated, 31) and mentions(curated, 40)


def test_a_withdrawn_post_is_nowhere_any_more_and_takes_its_replies_along(out):
    done = withdraw(out, ids(1))
    assert mentions(out, 1, 2, 4, 5) == []
    assert posts_of(out) == {6, *range(10, 22), 33, 34, 35, 41}
    assert done.posts == 4 and done.pairs == 4
    is_whole(out)


def test_a_group_that_was_named_after_it_is_named_after_one_that_stays(out):
    before = {sample.meta["post"]: sample.meta["group"] for sample in samples(out)}
    withdraw(out, ids(1))
    after = {sample.meta["post"]: sample.meta["group"] for sample in samples(out)}
    assert after[str(number(6))] == f"twitter:{number(6)}"
    assert {post: group for post, group in after.items() if post != str(number(6))}.items() <= before.items()


def test_shards_that_hold_nothing_of_it_keep_their_bytes_and_the_others_are_counted(out):
    before = contents(out)
    done = withdraw(out, ids(12))
    after = contents(out)
    tars = {name for name in before if name.endswith(".tar")}
    changed = {name for name in tars if after.get(name) != before[name]}
    assert len(changed) == 1 and done == Withdrawal(posts=1, pairs=1, rewritten=1, shards=len(tars))
    record = json.loads((out / RECORD).read_text())
    assert {*record["shards"]} == changed
    is_whole(out)


def test_only_what_names_the_withdrawn_post_is_taken_from_a_shard(out):
    before = {sample.key: sample for sample in samples(out)}
    withdraw(out, ids(12))
    after = {sample.key: sample for sample in samples(out)}
    assert before.keys() - after.keys() == {f"{number(12)}_3_12"}
    assert all(before[key] == sample for key, sample in after.items())


def test_a_shard_of_which_nothing_is_left_is_deleted(out):
    shard = next(iter(read_manifest(out / "train").sizes))
    held = {int(sample.meta["post"]) for sample in module.read_shard(out / "train" / shard)}
    withdraw(out, frozenset(map(str, held)))
    assert not (out / "train" / shard).exists()
    assert shard not in read_manifest(out / "train").sizes
    is_whole(out)


def test_when_everything_is_withdrawn_empty_folders_of_shards_are_left(out):
    withdraw(out, frozenset(str(number(n)) for n in range(1, 50)))
    assert samples(out) == [] and not list(out.glob("*/*.tar"))
    is_whole(out)


def test_nothing_to_withdraw_changes_nothing_but_the_record(out):
    before = contents(out)
    assert withdraw(out, ids(999)) == Withdrawal(0, 0, 0, sum(name.endswith(".tar") for name in before))
    after = contents(out)
    tars = [name for name in before if name.endswith((".tar", "sizes.json", "manifest.json", ".parquet"))]
    assert all(after[name] == before[name] for name in tars)
    assert {name for name in after if after[name] != before.get(name)} == {RECORD}
    is_whole(out)


@pytest.mark.parametrize("version", [31, 32, 33])
def test_the_id_of_any_version_withdraws_the_post_and_the_replies_to_any_version(out, version):
    withdraw(out, ids(version))
    assert posts_of(out) & {33, 34, 35} == set()
    assert mentions(out, 31, 32, 33, 34, 35) == []
    is_whole(out)


def test_a_withdrawn_post_that_had_fallen_takes_its_answer_along(out):
    withdraw(out, ids(40))
    assert 41 not in posts_of(out)
    assert mentions(out, 40, 41) == []


def test_a_withdrawn_reply_leaves_the_post_that_it_answers(out):
    withdraw(out, ids(4))
    assert posts_of(out) & {1, 2, 4, 5} == {1, 2}
    assert mentions(out, 4, 5) == []


def test_rows_that_fell_lose_what_they_say_of_it_and_keep_the_rest(out):
    before = {row.id: row for row in read_dropped(out / "dropped.parquet")}
    withdraw(out, ids(1))
    after = {row.id: row for row in read_dropped(out / "dropped.parquet")}
    # The less liked reply, of which there is no pair, does not tell what it answers.
    assert set(before) - set(after) == {f"{number(5)}_3_missing"}
    assert after[f"{number(6)}_3_6"].detail == re.sub(
        rf"{number(1)}\S*", "a withdrawn post", before[f"{number(6)}_3_6"].detail
    )


def test_rows_of_a_withdrawn_post_that_had_fallen_are_gone(out):
    withdraw(out, ids(40))
    assert str(number(40)) not in {row.id for row in read_dropped(out / "dropped.parquet")}


def test_the_report_tells_how_many_were_withdrawn_and_shows_none(out):
    withdraw(out, ids(1))
    withdraw(out, ids(12))
    assert json.loads((out / "funnel.json").read_text())["withdrawn"] == 5
    page = (out / "report.html").read_text()
    assert "data:image/jpeg" not in page


def test_the_record_holds_hashes_and_no_id(out):
    before = read_manifest(out / "train").sha256
    withdraw(out, ids(10), "hash of the file")
    record = json.loads((out / RECORD).read_text())
    assert record["tombstones_sha256"] == "hash of the file" and record["pairs"] == 1
    assert record["posts_sha256"] == [hashlib.sha256(str(number(10)).encode()).hexdigest()]
    ((shard, change),) = record["shards"].items()
    after = read_manifest(out / shard.split("/")[0]).sha256
    name = shard.split("/")[1]
    assert change == {"before": before[name], "after": after[name]} and before[name] != after[name]


def test_each_withdrawal_adds_a_line_to_the_record(out):
    withdraw(out, ids(10))
    withdraw(out, ids(11))
    assert len((out / RECORD).read_text().splitlines()) == 2


def test_a_kill_at_any_step_is_made_good_by_the_same_command(curated, tmp_path):
    def readable(out: Path) -> set[int]:
        found = set()
        for split in ("train", "val", "test"):
            try:
                found |= {int(sample.meta["post"]) - BASE for sample in read_samples(out / split)}
            except DataError:  # sizes are not there: readers refuse, which is as good
                continue
        return found

    shutil.copytree(curated, tmp_path / "whole")
    withdraw(tmp_path / "whole", ids(1))

    def told(out: Path) -> dict[str, bytes]:
        return {name: content for name, content in contents(out).items() if name != RECORD}

    expected, step, calls = told(tmp_path / "whole"), 0, ["killed"]
    while calls[-1] == "killed":
        step += 1
        out = tmp_path / str(step)
        shutil.copytree(curated, out)
        changes = (*FILE_CHANGES, (shutil, "rmtree"))
        with killed_at(step, changes) as calls:
            withdraw(out, ids(1))
        for split in ("train", "val", "test"):
            for shard in (out / split).glob("*.tar"):
                list(module.read_shard(shard))
        if readable(out) & {1, 2, 4, 5} and not (out / STAGED / "plan.json").exists():
            assert posts_of(out) == posts_of(curated), step
        withdraw(out, ids(1))
        assert told(out) == expected, step
        is_whole(out)
        lines = [json.loads(line) for line in (out / RECORD).read_text().splitlines()]
        assert sum(line["pairs"] for line in lines) == 4, step
    assert step > 15


def test_one_folder_of_shards_without_reports_is_enough(tmp_path):
    written = [
        replace(sample, meta={**sample.meta, "post": sample.key}) for sample in tiny_shards.samples(10)
    ]
    write_shards(tmp_path, written, 3, "hash of the config")
    done = withdraw(tmp_path, frozenset({"s0004"}))
    assert done == Withdrawal(1, 1, 1, 4)
    assert [sample.key for sample in read_samples(tmp_path)] == [
        sample.key for sample in written if sample.key != "s0004"
    ]
    assert read_manifest(tmp_path).config_hash == "hash of the config"
    assert sorted(file.name for file in tmp_path.iterdir() if file.suffix != ".tar") == sorted(
        ["manifest.json", "sizes.json", RECORD]
    )


def test_shards_that_a_killed_run_left_half_replaced_are_refused(out):
    """Without its sizes a folder is not whole: what it holds of the post would stay."""
    (out / "train" / "sizes.json").unlink()
    before = contents(out)
    with pytest.raises(DataError, match=r"train: shards without sizes\.json"):
        withdraw(out, ids(1))
    assert contents(out) == before


def test_a_curation_that_was_not_finished_is_told_because_it_holds_the_posts_too(out):
    (out / UNFINISHED).mkdir()
    with pytest.raises(DataError, match="a curation that was not finished, with posts in it"):
        withdraw(out, ids(1))


ADDRESS = "at://did:plc:abcdefgh/app.bsky.feed.post/3k"


def test_a_pair_whose_name_was_made_from_an_address_is_nowhere_either(tmp_path):
    """An address is changed to name a file, and a row that fell calls the pair by the changed name."""
    pictures = {"a.jpg": jpeg(tissue(1)), "b.jpg": jpeg(tissue(1).rotate(90), 70), "c.jpg": jpeg(tissue(2))}
    for name, picture in pictures.items():
        (tmp_path / name).write_bytes(picture)
    rows = [f"{ADDRESS},a.jpg,a fine lipoma", "two,b.jpg,another lipoma", "three,c.jpg,a melanoma"]
    (tmp_path / "t.csv").write_text("\n".join(["id,image,text", *rows]) + "\n")
    table = [f"source.posts={tmp_path / 't.csv'}", "source.columns.id=id", f"out={tmp_path / 'out'}"]
    out = run(["source=table", *table, "images.pathology=false"]).out
    (fell,) = read_dropped(out / "dropped.parquet")
    assert fell.reason == "near_duplicate" and "abcdefgh" in fell.detail and ADDRESS not in fell.detail
    withdraw(out, frozenset({ADDRESS}))
    assert not [name for name, content in contents(out).items() if b"abcdefgh" in content]
    (fell,) = read_dropped(out / "dropped.parquet")
    assert fell.detail.endswith("a withdrawn post")


def command(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pathclip.curate", "source=shards", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )


def test_the_command_tells_what_was_done(out, tmp_path):
    (tmp_path / "gone.txt").write_text(f"{number(1)}  # by its author\n")
    before = {file.relative_to(out) for file in out.rglob("*")}
    done = command(f"source.posts={out}", "source.tombstones=gone.txt", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 deleted ids: 4 posts with 4 pairs withdrawn; " in done.stdout
    assert f"record: {out / RECORD}" in done.stdout
    assert mentions(out, 1, 2, 4, 5) == []
    assert {file.relative_to(out) for file in out.rglob("*")} - before == {Path(RECORD)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["source.posts=absent", "source.tombstones=gone.txt"],
            "source.posts=absent: no such folder",
        ),
        (
            ["source.posts=empty", "source.tombstones=absent.txt"],
            "source.tombstones=absent.txt: no such file",
        ),
        (["source.tombstones=gone.txt"], "source.posts: name the folder of shards"),
        (["source.posts=empty", "source.tombstone=gone.txt"], "'source.tombstone': there is no such key"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_leaves_nothing(tmp_path, words, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "gone.txt").write_text("1\n")
    before = sorted(tmp_path.rglob("*"))
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and message in done.stderr, done.stderr
    assert sorted(tmp_path.rglob("*")) == before
