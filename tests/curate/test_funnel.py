import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pathclip.curate.curate import curate
from pathclip.curate.funnel import audit, count, read_dropped, write_dropped
from pathclip.curate.ledger import Ledger
from pathclip.curate.rules import REASONS
from pathclip.errors import DataError
from pathclip.launch import compose
from pathclip.types import Dropped

from .feed import chart, jpeg, samples, tissue, tweet

PICTURES = {
    **{f"3_{n}": jpeg(tissue(n)) for n in range(4)},
    "3_4": jpeg(tissue(1).rotate(90), quality=70),  # near 3_1
    "3_5": jpeg(tissue(2)),  # 3_2 once more
    "3_6": jpeg(chart()),
    "3_7": jpeg(tissue(3, 50)),
    "3_8": b"<html>no picture</html>",
}  # and 3_9 is nowhere
TEXTS = (
    "Invasive ductal carcinoma of the breast #BreastPath",
    "A fine lipoma of the shoulder #BSTpath",
    "What is your diagnosis? #GIpath",
    "Lipoma",
    "Eine schöne Darstellung des Adenokarzinoms, wie man sie selten sieht #GIpath",
    "A tubular adenoma without any hashtag",
    "Register now for our course on adenoma #GIpath",
    "Thanks for sharing!",
    "",
    "\ud83d broken \u2028 text \0 of an adenoma #GIpath",
)


@st.composite
def a_post(draw) -> dict[str, Any]:
    """A tweet among twelve, so that many of a dump are repeats, answers or versions of each other."""
    number = draw(st.integers(1, 12))
    post = tweet(
        number,
        draw(st.sampled_from(TEXTS)),
        *draw(st.lists(st.sampled_from([f"3_{n}" for n in range(10)]), max_size=3, unique=True)),
        at=f"2022-01-{draw(st.integers(1, 28)):02d}",
        public_metrics={"like_count": draw(st.integers(0, 3))},
    )
    if draw(st.booleans()):
        kind = draw(st.sampled_from(["replied_to", "replied_to", "quoted", "retweeted"]))
        post["referenced_tweets"] = [{"type": kind, "id": str(draw(st.integers(1, 14)))}]
    if draw(st.booleans()):
        post["conversation_id"] = str(draw(st.integers(1, 14)))
    if draw(st.integers(0, 4)) == 0:
        post["edit_history_tweet_ids"] = [str(number), str(number + 20)][: draw(st.integers(1, 2))]
        post["id"] = post["edit_history_tweet_ids"][-1]
    if draw(st.integers(0, 5)) == 0:
        post["possibly_sensitive"] = True
    return post


BROKEN = st.sampled_from(["", "{", "[1, 2]", "null", '{"data": 3}', '{"data": [{"id": "7"}]}', "\0\0", "{}"])
OTHER = st.sampled_from(
    [
        '{"meta": {"result_count": 0}}',
        '{"errors": [{"title": "Not Found Error", "value": "9"}]}',
        '{"data": []}',
    ]
)
LINE = st.one_of(
    st.lists(a_post(), min_size=1, max_size=3).map(lambda posts: {"data": posts}),
    st.tuples(a_post(), st.lists(a_post(), max_size=2)).map(
        lambda both: {"data": [both[0]], "includes": {"tweets": both[1]}}
    ),
    BROKEN,
    OTHER,
)
DUMP = st.tuples(
    st.lists(LINE, max_size=8),
    st.lists(LINE, max_size=4),
    st.sets(st.integers(1, 34), max_size=3),  # deleted
    st.sampled_from(["drop", "group", "off"]),
)


@contextmanager
def curated(dump: Any) -> Iterator[tuple[Path, dict[str, Any]]]:
    first, second, deleted, near_duplicates = dump
    folder = Path(tempfile.mkdtemp())
    try:
        for name, lines in (("a.jsonl", first), ("b.jsonl", second)):
            written = (line if isinstance(line, str) else json.dumps(line) for line in lines)
            (folder / "posts" / name).parent.mkdir(exist_ok=True)
            (folder / "posts" / name).write_text("".join(f"{line}\n" for line in written), "utf-8")
        (folder / "images").mkdir()
        for key, content in PICTURES.items():
            (folder / "images" / f"{key}.jpg").write_bytes(content)
        (folder / "gone.txt").write_text("".join(f"{name}\n" for name in deleted))
        overrides = [
            *("source=twitter", f"source.posts={folder / 'posts'}", f"source.images={folder / 'images'}"),
            *(f"source.tombstones={folder / 'gone.txt'}", f"out={folder / 'out'}", "workers=1"),
            *(f"dedup.near_duplicates={near_duplicates}", "samples_per_shard=3", "split.by=hash"),
        ]
        out = folder / "out"
        try:
            curate(compose("curate", overrides))
        except DataError as error:
            assert "not one pair is left" in str(error)
            out /= "nothing_left"
        yield out, json.loads((out / "funnel.json").read_text())
    finally:
        shutil.rmtree(folder)


def adds_up(part: dict[str, Any]) -> None:
    left = part["read"]
    for step in part["steps"]:
        left -= step["dropped"]
        assert step["left"] == left and step["dropped"] >= 0
    assert left == part["kept"]


# Curating takes too long for hypothesis to look for a smaller dump.
@settings(
    max_examples=25,
    phases=[Phase.generate],
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(DUMP)
def test_the_funnel_of_any_dump_adds_up_and_every_row_is_in_exactly_one_place(dump):
    with curated(dump) as (out, funnel):
        posts, pairs = funnel["posts"], funnel["pairs"]
        adds_up(posts)
        adds_up(pairs)
        dropped = read_dropped(out / "dropped.parquet")
        kept = samples(out) if pairs["kept"] else []

        # What was read is what the files hold.
        assert posts["read"] == sum(file["found"] + file["malformed"] for file in funnel["files"])
        assert sum(funnel["notices"].values()) == sum(file["other"] for file in funnel["files"])
        steps = {step["reason"]: step["dropped"] for step in (*posts["steps"], *pairs["steps"])}
        assert Counter(row.reason for row in dropped) == Counter(steps) - Counter(
            {"repeated": steps["repeated"]}
        )

        # No post is in two places, and none in no place.
        on_posts = [step["reason"] for step in posts["steps"]]
        fell = [row.post for row in dropped if row.reason in on_posts and row.reason != "malformed"]
        assert len(fell) == len(set(fell))
        assert len(fell) + posts["kept"] + steps["repeated"] + steps["malformed"] == posts["read"]
        shown = {sample.meta["post"] for sample in kept}
        lost = {row.post for row in dropped if row.reason not in on_posts}
        assert not set(fell) & (shown | lost)
        assert len(shown | lost) == posts["kept"]

        # Nor is a pair.
        names = [sample.key for sample in kept]
        gone = [row.id for row in dropped if row.reason not in on_posts]
        assert len({*names, *gone}) == len(names) + len(gone) == pairs["read"]
        assert pairs["kept"] == len(names) == sum(part["pairs"] for part in funnel["splits"].values())


def test_a_row_that_is_lost_stops_the_run(tmp_path):
    with Ledger(tmp_path, "test") as ledger:
        ledger.set("posts kept", "1")
        with pytest.raises(AssertionError, match="the funnel does not add up: 0 rows, 0 left, but 1 kept"):
            count(ledger, "time")


def test_a_picture_that_nobody_looked_at_stops_the_run(tmp_path):
    with Ledger(tmp_path, "test") as ledger:
        ledger.database.execute("insert into candidate (id, media) values ('1', 'k')")
        with pytest.raises(AssertionError, match="nobody looked at 1 pictures"):
            count(ledger, "time")


def test_rules_stand_in_their_order_also_those_that_dropped_nothing(tmp_path):
    with Ledger(tmp_path, "test") as ledger:
        funnel = count(ledger, "time")
    order = [step["reason"] for part in ("posts", "pairs") for step in funnel[part]["steps"]]
    assert order == ["malformed", "repeated", *REASONS[1:]]


def test_a_split_is_told_with_its_groups_and_its_first_and_last_moment(tmp_path):
    def day(n: int) -> str:
        return f"2022-01-0{n}T00:00:00+00:00"

    with Ledger(tmp_path, "test") as ledger:
        for n, split in enumerate(["train", "train", "train", "test"], 1):
            moment = None if n == 1 else day(n)
            ledger.database.execute(
                "insert into candidate (id, media, created_at) values (?, ?, ?)", (f"{n}", f"{n}", moment)
            )
            ledger.database.execute(
                "insert into picture (media, panel, flags) values (?, 0, '[]')", (f"{n}",)
            )
            ledger.database.execute(
                "insert into pair (candidate, panel, id, grp, split) values (?, 0, ?, ?, ?)",
                (n, f"{n}", f"g{n // 2}", split),
            )
        splits = count(ledger, "time")["splits"]
    assert splits == {
        "train": {"pairs": 3, "groups": 2, "first": day(2), "last": day(3)},
        "val": {"pairs": 0, "groups": 0, "first": None, "last": None},
        "test": {"pairs": 1, "groups": 1, "first": day(4), "last": day(4)},
    }


def test_dropped_rows_come_back_as_they_were_written_and_the_same_bytes_each_time(tmp_path):
    rows = [Dropped(str(n), "retweet", "d“ \0 𝔸", str(n)) for n in range(3)]
    for name in "ab":
        write_dropped(tmp_path / f"{name}.parquet", iter(rows))
    assert read_dropped(tmp_path / "a.parquet") == rows
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    write_dropped(tmp_path / "none.parquet", [])
    assert read_dropped(tmp_path / "none.parquet") == []


def test_a_file_of_dropped_rows_that_is_missing_or_none_is_told(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_dropped(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_text("not at all")
    with pytest.raises(DataError, match="not a table of dropped rows"):
        read_dropped(tmp_path / "a.parquet")


def test_the_audit_blames_the_rule_that_took_another_rules_row(tmp_path):
    truth = [
        {"kind": "post", "id": "1", "post": "1", "reason": "question"},
        {"kind": "media", "id": "3_1", "post": "1", "reason": "question"},
        {"kind": "post", "id": "2", "post": "2", "reason": "kept"},
        {"kind": "media", "id": "3_2", "post": "2", "reason": "not_pathology"},
        {"kind": "line", "id": "4", "post": None, "reason": "malformed"},
    ]
    (tmp_path / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in truth))
    dropped = [
        Dropped("1", "advertisement"),
        Dropped("2_3_2", "not_pathology"),
        Dropped("posts.jsonl:4", "malformed"),
    ]
    scores = {score.reason: score for score in audit(dropped, tmp_path / "truth.jsonl")}
    assert (scores["question"].recall, scores["advertisement"].precision) == (0, 0)
    assert (scores["not_pathology"].precision, scores["not_pathology"].recall) == (1, 1)
    assert scores["malformed"].recall == 1


def test_the_audit_counts_an_answer_as_a_pair_of_its_own(tmp_path):
    """Post 1 asks and falls; answer 2 is kept with its picture."""
    truth = [
        {"kind": "post", "id": "1", "post": "1", "reason": "question"},
        {"kind": "media", "id": "3_1", "post": "1", "reason": "question"},
        {"kind": "post", "id": "2", "post": "2", "reason": "kept"},
    ]
    (tmp_path / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in truth))

    def kept(*dropped):
        return audit(dropped, tmp_path / "truth.jsonl")[-1]

    assert (kept(asked := Dropped("1", "question")).n, kept(asked).found, kept(asked).recall) == (1, 1, 1)
    assert kept(asked, Dropped("2_3_1", "not_pathology")).recall == 0
    assert kept(asked, Dropped("2", "advertisement")).recall == 0
    assert kept().precision == 0.5
