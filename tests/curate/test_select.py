"""Posts are added to the ledger as a reader yields them; only the rules that are always on are asked."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from pathclip.curate.engine import Engine
from pathclip.curate.ledger import Ledger
from pathclip.curate.rules import RuleSettings
from pathclip.curate.select import file_name, media_key, read_media, select
from pathclip.curate.text import TextCleaner
from pathclip.types import Dropped, Media, Post

RULES = RuleSettings()


def post(
    name: str, *media: str, text: str = "a fine lipoma", day: int = 1, likes: int = 0, **more: Any
) -> Post:
    return Post(
        id=name,
        platform="twitter",
        text=text,
        created_at=datetime(2022, 1, day, tzinfo=UTC),
        media=tuple(Media(key) for key in media),
        metrics={"like_count": likes},
        **more,
    )


@pytest.fixture
def ledger(tmp_path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger", "test") as opened:
        yield opened


def selected(
    ledger: Ledger, *posts: Post, deleted: set[str] | None = None, repeats: bool = False, **labels: str
) -> list[dict[str, Any]]:
    """The candidates that the posts make, as mappings."""
    list(ledger.posts.add("a", posts, repeats))
    select(ledger, RULES, TextCleaner(), frozenset(deleted or ()), labels, Engine(workers=1))
    cursor = ledger.database.execute("select * from candidate order by number")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def fell(ledger: Ledger) -> dict[str, str]:
    return {row.id: row.reason for row in ledger.dropped()}


def test_each_picture_of_a_post_is_a_candidate_with_its_caption_and_group(ledger):
    found = selected(ledger, post("1", "a", "b", licence="CC0", label="fat", split="test"))
    assert [(one["id"], one["grp"], one["text"]) for one in found] == [
        ("1_a", "twitter:1", "a fine lipoma"),
        ("1_b", "twitter:1", "a fine lipoma"),
    ]
    assert {(one["licence"], one["label"], one["split"]) for one in found} == {("CC0", "fat", "test")}
    assert found[0]["created_at"] == "2022-01-01T00:00:00+00:00"
    assert read_media(found[0]["media"]) == Media("a")
    assert ledger.get("posts kept") == "1"


def test_a_post_without_any_picture_falls(ledger):
    assert not selected(ledger, post("1"), post("2", in_reply_to="9"))
    assert list(ledger.dropped()) == [
        Dropped("1", "no_image", "no picture: none in the post", "1"),
        Dropped("2", "no_image", "no picture: the post it answers has none here", "2"),
    ]


def test_a_reply_describes_the_first_picture_of_what_it_answers(ledger):
    found = selected(ledger, post("1", "a", "b"), post("2", text="a lipoma indeed", in_reply_to="1"))
    answer = found[2]
    assert (answer["id"], answer["pictured"], answer["grp"]) == ("2_a", "1", "twitter:1")
    assert answer["media"] == found[0]["media"]


def test_a_reply_to_a_reply_describes_the_picture_of_the_first_post_of_the_thread(ledger):
    thread = [
        post("1", "a", conversation="1"),
        post("2", text="nice", in_reply_to="1", conversation="1"),
        post("3", text="a lipoma indeed", in_reply_to="2", conversation="1"),
    ]
    assert [one["id"] for one in selected(ledger, *thread)] == ["1_a", "3_a"]


def test_a_reply_with_a_picture_of_its_own_describes_that_and_stays_in_the_group(ledger):
    found = selected(ledger, post("1", "a"), post("2", "b", in_reply_to="1", conversation="1"))
    assert [(one["id"], one["pictured"], one["grp"]) for one in found][1] == ("2_b", None, "twitter:1")


def test_a_reply_to_a_version_that_was_edited_since_describes_the_last_one(ledger):
    new = post("12", "b", text="a melanoma", versions=("10", "11", "12"))
    found = selected(ledger, post("10", "a"), post("20", text="a melanoma it is", in_reply_to="10"), new)
    assert [(one["id"], one["pictured"]) for one in found] == [("12_b", None), ("20_b", "12")]
    assert {one["grp"] for one in found} == {"twitter:10"}


def test_the_answer_to_a_question_that_falls_is_a_candidate(ledger):
    list(ledger.posts.add("a", [post("1", "a", text="Any ideas?"), post("2", in_reply_to="1")]))
    rules = RuleSettings(question="published")
    select(ledger, rules, TextCleaner(), frozenset(), {}, Engine(workers=1))
    assert fell(ledger) == {"1": "question"}
    assert list(ledger.rows("select id, pictured from candidate")) == [("2_a", "1")]


def test_of_several_answers_the_most_liked_stays_and_of_equals_the_earliest(ledger):
    answers = [
        post("2", in_reply_to="1", likes=3, day=3),
        post("3", in_reply_to="1", likes=5, day=4),
        post("4", in_reply_to="1", likes=5, day=2),
        post("5", in_reply_to="1", likes=4, day=1),
    ]
    assert [one["id"] for one in selected(ledger, post("1", "a"), *answers)] == ["1_a", "4_a"]
    assert fell(ledger) == {name: "reply_not_most_liked" for name in "235"}
    assert ledger.get("posts kept") == "2"


def test_each_pictured_post_has_a_most_liked_answer_of_its_own(ledger):
    found = selected(
        ledger,
        *(post("1", "a"), post("2", "b")),
        *(
            post("3", in_reply_to="1", likes=1),
            post("4", in_reply_to="2"),
            post("5", in_reply_to="2", likes=9),
        ),
    )
    assert [one["id"] for one in found] == ["1_a", "2_b", "3_a", "5_b"]


def test_deleted_posts_take_their_answers_along(ledger):
    thread = [
        post("1", "a"),
        post("2", "b", in_reply_to="1"),
        post("3", "c", in_reply_to="2"),
        post("4", "d"),
    ]
    assert [one["id"] for one in selected(ledger, *thread, deleted={"1"})] == ["4_d"]
    assert fell(ledger) == dict.fromkeys("123", "deleted")


def test_a_candidate_names_every_post_whose_deletion_takes_it_along(ledger):
    thread = [
        post("11", "a", conversation="9", in_reply_to="9", versions=("10", "11")),
        post("12", "b", conversation="9", in_reply_to="10"),
        post("13", text="a lipoma indeed", conversation="9", in_reply_to="12"),
    ]
    found = {one["id"]: set(one["depends_on"].splitlines()) for one in selected(ledger, *thread)}
    assert found["11_a"] == {"9", "10", "11"}
    assert found["12_b"] == {"9", "10", "11", "12"}
    assert found["13_b"] >= {"9", "10", "11", "12", "13"}


def test_rows_with_the_same_id_get_numbers_behind_it(ledger):
    rows = [post("1", "1", text=f"a lipoma number {n}") for n in range(4)]
    found = selected(ledger, *rows, post("1-2", "1-2", text="a melanoma"), repeats=True)
    assert [one["id"] for one in found] == ["1", "1-2", "1-3", "1-4", "1-2-2"]


def test_labels_that_are_known_apart_from_the_posts_go_with_the_picture(ledger):
    found = selected(ledger, post("1", "a", "b", label="own"), a="fat")
    assert [one["label"] for one in found] == ["fat", "own"]


def test_cases_of_a_table_are_groups(ledger):
    found = selected(ledger, post("1", "a", case="P1"), post("2", "b", case="P1"))
    assert {one["grp"] for one in found} == {"twitter:case:P1"}


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_selects_the_same_in_the_same_order(tmp_path, workers):
    posts = [post(str(n), f"k{n}", text="ok" if n % 7 == 0 else "a fine lipoma") for n in range(1500)]
    posts += [post(str(2000 + n), in_reply_to=str(n), likes=n % 5) for n in range(300)]
    with Ledger(tmp_path / "ledger", "test") as ledger:
        list(ledger.posts.add("a", posts))
        select(ledger, RULES, TextCleaner(), frozenset({"3"}), {}, Engine(workers=workers))
        names = [name for (name,) in ledger.rows("select id from candidate order by number")]
        reasons = [(row.id, row.reason) for row in ledger.dropped()]
    assert len(names) > 1200 and names == sorted(names, key=lambda name: int(name.split("_")[0]))
    assert ("3", "deleted") in reasons and len(names) + len({name for name, _ in reasons}) == 1800


def test_names_are_made_fit_for_files_and_stay_apart():
    names = ["a/b", "a-b", "a b", "ä", "x" * 300, "x" * 301, "..", "-"]
    made = [file_name(name) for name in names]
    assert len(set(made)) == len(names)
    assert all(
        len(name) <= 180 and not set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-_") for name in made
    )
    assert file_name("1_3_1") == "1_3_1"


def test_a_picture_is_written_and_read_back():
    for media in (Media("k", "a/ö.jpg", "https://example.org/“"), Media("k")):
        assert read_media(media_key(media)) == media
