import gc
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathclip.sources.distinct import DistinctPosts, FileCount, decode, encode
from pathclip.types import Malformed, Media, Notice, Post


def post(name: str, text: str = "", **more) -> Post:
    return Post(id=name, platform="twitter", text=text or f"text of {name}", **more)


def edited(*versions: str, text: str = "") -> Post:
    """The last of the versions, as a platform gives it that tells the others."""
    return post(versions[-1], text, versions=versions)


def referenced(one: Post) -> Post:
    return replace(one, flags=one.flags | {"referenced"})


def picture(key: str = "k", url: str | None = "https://example.org/k.jpg") -> Media:
    return Media(key, url=url)


@pytest.fixture
def posts():
    with DistinctPosts() as opened:
        yield opened


def add(posts: DistinctPosts, *files: list) -> list:
    """Adds files named a, b, c … and returns what is no post."""
    start = len(posts.counts())
    return [other for n, items in enumerate(files, start) for other in posts.add("abcdefgh"[n], items)]


def test_a_post_comes_out_as_it_went_in(posts):
    whole = Post(
        id="1",
        platform="bluesky",
        text="Ä “tumour” \u2028 𝔸",
        author="x",
        created_at=datetime(2022, 1, 2, 3, 4, 5, 678, UTC),
        language="en",
        media=(Media("k", "a/b.jpg", "https://example.org", "alt"), Media("l")),
        in_reply_to="0",
        conversation="00",
        metrics={"like_count": 3},
        hashtags=("a", "b"),
        flags=frozenset({"quote", "sensitive"}),
        licence="CC0",
        case="c",
        label="l",
        split="test",
        versions=("1", "1b"),
    )
    assert decode(encode(whole)) == whole
    add(posts, [whole])
    assert list(posts) == [whole]


def test_a_post_comes_out_once_and_in_the_order_in_which_it_first_appeared(posts):
    add(posts, [post("3"), post("1"), post("3")], [post("2"), post("1"), post("3")])
    assert [one.id for one in posts] == ["3", "1", "2"]
    assert len(posts) == 3


def test_what_is_no_post_comes_out_as_it_is(posts):
    others = [Malformed("a", 1, "broken"), Notice("a", 2, "count")]
    assert add(posts, [others[0], post("1"), others[1]]) == others
    assert [one.id for one in posts] == ["1"]


def test_rows_of_the_same_id_are_different_posts_where_the_dump_says_so(posts):
    list(posts.add("t.csv", [post("1", "one"), post("1", "two"), post("1", "one")], repeats=True))
    assert [one.text for one in posts] == ["one", "two", "one"]
    assert posts.first_row("1").read().text == "one" and posts.first_row("2") is None


EDITS = {
    "before the edit": post("9", "first"),
    "after it": edited("9", "10", text="second"),
    "after another": edited("9", "10", "11", text="third"),
    "an earlier version again": edited("9", "10", "11", text="third"),
}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1), (0, 2, 1), (1, 0, 2)])
@pytest.mark.parametrize("one_file", [True, False])
def test_of_an_edited_post_the_last_version_stays_in_whatever_order_they_were_collected(
    posts, order, one_file
):
    versions = [list(EDITS.values())[n] for n in order]
    add(posts, *([versions] if one_file else [[one] for one in versions]))
    assert [(one.id, one.text) for one in posts] == [("11", "third")]


def test_versions_compare_as_numbers_although_they_are_text(posts):
    add(posts, [edited("9", "10", text="new"), post("9", "old")])
    assert [one.text for one in posts] == ["new"]


def test_a_post_that_was_collected_stays_rather_than_one_carried_along(posts):
    own, carried = post("1", "own", media=(picture(),)), post("1", "carried", media=(picture(),))
    for order in ([own, referenced(carried)], [referenced(carried), own]):
        with DistinctPosts() as some:
            add(some, order)
            assert [one.text for one in some] == ["own"]


def test_a_post_whose_pictures_are_described_stays_rather_than_one_without(posts):
    bare, described = post("1", media=(picture(url=None),)), post("1", media=(picture(),))
    add(posts, [bare, described, bare])
    assert [one.media[0].url for one in posts] == ["https://example.org/k.jpg"]


def test_a_newer_version_that_was_carried_along_stays_rather_than_an_older_one_that_was_collected(posts):
    add(posts, [post("9", "old"), referenced(edited("9", "10", text="new"))])
    assert [one.text for one in posts] == ["new"]


def test_a_post_that_was_edited_under_its_id_stays_rather_than_what_it_was(posts):
    new = post("1", "new", flags=frozenset({"edited"}))
    for order in ([post("1", "old"), new], [new, post("1", "old")]):
        with DistinctPosts() as some:
            add(some, order)
            assert [one.text for one in some] == ["new"]


@pytest.mark.parametrize("mark", ["sensitive", "withheld", "deleted"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_mark_of_any_copy_stays(posts, mark, place):
    copies = [post("1", "first"), referenced(post("1", "carried")), post("1", "again")]
    copies[place] = replace(copies[place], flags=copies[place].flags | {mark})
    add(posts, copies)
    (kept,) = posts
    assert kept.text == "first" and mark in kept.flags
    assert "referenced" not in kept.flags


def test_a_post_is_found_by_the_id_of_any_version_and_is_the_last_one(posts):
    add(posts, [edited("9", "10", "11"), post("5")])
    found = posts.find(["9", "10", "11", "5", "7"])
    assert {name: one.id for name, one in found.items()} == {"9": "11", "10": "11", "11": "11", "5": "5"}


def test_a_post_is_found_by_an_old_version_although_the_newest_was_collected_last(posts):
    add(posts, [post("9"), edited("9", "10")], [edited("9", "10", "11")])
    assert {one.id for one in posts.find(["9", "10"]).values()} == {"11"}


def test_many_ids_are_found_at_once(posts):
    add(posts, [post(str(n)) for n in range(2000)])
    assert len(posts.find(str(n) for n in range(0, 4000, 2))) == 1000


def test_a_deleted_post_takes_along_its_replies_and_theirs(posts):
    chain = [post("1"), *(post(str(n), in_reply_to=str(n - 1)) for n in range(2, 6)), post("9")]
    add(posts, chain[::-1])  # the last reply first
    assert posts.withdrawn(["2"]) == {name: "2" for name in ("2", "3", "4", "5")}


def test_the_deleted_first_post_of_a_thread_takes_along_all_of_it(posts):
    add(posts, [post("3", in_reply_to="2", conversation="1"), post("4", conversation="1"), post("9")])
    assert posts.withdrawn(["1"]) == {"3": "1", "4": "1"}


def test_a_deleted_reply_leaves_the_rest_of_the_thread(posts):
    add(posts, [post("1", conversation="1"), *(post(n, in_reply_to="1", conversation="1") for n in "234")])
    assert posts.withdrawn(["3"]) == {"3": "3"}


def test_a_deleted_old_version_takes_along_the_post_and_the_replies_to_any_version(posts):
    replies = [post(f"re{n}", in_reply_to=n) for n in ("9", "10", "11")]
    add(posts, [edited("9", "10", "11"), *replies, post("re-re", in_reply_to="re9")])
    for version in ("9", "10", "11"):
        assert set(posts.withdrawn([version])) == {"11", "re9", "re10", "re11", "re-re"}


def test_a_deleted_old_version_of_the_first_post_takes_along_the_thread(posts):
    add(posts, [edited("9", "10"), post("3", conversation="9"), post("4", conversation="10")])
    assert set(posts.withdrawn(["9"])) == set(posts.withdrawn(["10"])) == {"10", "3", "4"}


def test_deleted_rows_of_a_table_are_all_rows_of_that_id(posts):
    list(posts.add("t.csv", [post("1", "one"), post("1", "two"), post("2")], repeats=True))
    assert posts.withdrawn(["1"]) == {"1": "1"}


def test_deleted_posts_that_the_dump_lacks_take_nothing_along(posts):
    add(posts, [post("1")])
    assert posts.withdrawn(["7"]) == posts.withdrawn([]) == {}


def test_a_circle_of_replies_comes_to_an_end(posts):
    add(posts, [post("1", in_reply_to="2"), post("2", in_reply_to="1")])
    assert set(posts.withdrawn(["1"])) == {"1", "2"}


def test_each_file_is_counted_by_itself(posts):
    two = (picture("k"), picture("l"))
    first = [
        post("1", media=two),
        post("1", media=two),
        Malformed("a", 3, "broken"),
        Notice("a", 4, "count"),
        Notice("a", 5, "error"),
        post("2", flags=frozenset({"retweet"})),
        referenced(post("3", media=two)),
        edited("4", "5"),
    ]
    second = [edited("4", "5", "6"), post("3", media=two), referenced(post("1", media=two))]
    add(posts, first, second, [])
    assert posts.counts() == [
        FileCount("a", 5, 1, 2, posts=3, retweets=1, edits=1, media=2, referenced=1),
        FileCount("b", 3, 0, 0, posts=2, retweets=0, edits=1, media=2, referenced=1),
        FileCount("c", 0, 0, 0, posts=0, retweets=0, edits=0, media=0, referenced=0),
    ]


def test_a_post_that_a_file_both_carries_along_and_holds_itself_counts_as_its_own(posts):
    add(posts, [referenced(post("1")), post("1"), referenced(post("1"))])
    assert posts.counts() == [FileCount("a", 3, 0, 0, 1, 0, 0, 0, 0)]


COPY = st.tuples(
    st.integers(1, 5),  # which post
    st.integers(0, 3),  # versions after the first
    st.booleans(),  # carried along
    st.sampled_from(["", "sensitive", "withheld"]),
    st.integers(0, 2),  # file
)


@given(st.lists(COPY, max_size=25))
def test_in_any_order_the_last_version_with_all_marks_stays(copies):
    def made(which, versions, carried, mark, file):
        names = tuple(str(which * 10 + n) for n in range(versions + 1))
        one = edited(*names) if versions else post(names[0])
        one = replace(one, flags=frozenset({mark} - {""}))
        return referenced(one) if carried else one

    with DistinctPosts() as some:
        add(some, *[[made(*copy) for copy in copies if copy[4] == file] for file in range(3)])
        kept = {one.id: one.flags for one in some}
        found = sum(file.found for file in some.counts())
    last = {which: max(v for w, v, *_ in copies if w == which) for which, *_ in copies}
    marks = {which: {m for w, _, _, m, _ in copies if w == which} - {""} for which in last}
    assert {name: set(flags) - {"referenced"} for name, flags in kept.items()} == {
        str(which * 10 + versions): marks[which] for which, versions in last.items()
    }
    assert found == len(copies)


def peak(count: int) -> int:
    """Bytes that adding, going through and withdrawing posts takes at most."""
    gc.collect()
    tracemalloc.start()
    with DistinctPosts() as some:
        list(some.add("a", (post(str(n), "x" * 200, in_reply_to=str(n - 3)) for n in range(count))))
        assert sum(1 for _ in some) == len(some) == count
        assert sum(1 for _ in some.stored()) == count
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def test_memory_does_not_grow_with_the_posts():
    peak(100)  # what is loaded at first use
    assert peak(10_000) < peak(3_000) + 300_000
