import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given

from pathclip.errors import ConfigError, DataError
from pathclip.sources import open_dump, read_posts, twitter
from pathclip.sources.distinct import DistinctPosts
from pathclip.types import Malformed, Notice, Post
from tests.sources.spoiled import check, spoiled


def tweet(number: int, text: str = "a case", **more) -> dict:
    return {"id": str(number), "text": text, "author_id": "7", **more}


def dump(folder: Path, *lines: object, name: str = "posts.jsonl") -> Path:
    path = folder / name
    path.write_text(
        "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), "utf-8"
    )
    return path


def read(path: Path, **options) -> list[Post]:
    return [item for item in read_posts("twitter", path, **options) if isinstance(item, Post)]


def malformed(path: Path) -> list[Malformed]:
    return [item for item in read_posts("twitter", path) if isinstance(item, Malformed)]


def notices(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    """What stands in a file beside posts; nothing in it may be malformed."""
    items = list(twitter.read(path))
    assert not any(isinstance(item, Malformed) for item in items)
    return [(item.kind, item.deleted) for item in items if isinstance(item, Notice)]


def test_media_of_a_page_are_joined_by_key_with_their_alt_text(tmp_path):
    page = {
        "data": [tweet(1, attachments={"media_keys": ["3_11", "3_12"]})],
        "includes": {
            "media": [
                {"media_key": "3_12", "type": "photo", "url": "https://x/12.jpg"},
                {"media_key": "3_11", "type": "photo", "url": "https://x/11.jpg", "alt_text": "H&E, x40"},
            ]
        },
    }
    (post,) = read(dump(tmp_path, page))
    assert [media.key for media in post.media] == ["3_11", "3_12"]
    assert post.media[0].alt_text == "H&E, x40"
    assert post.media[1].url == "https://x/12.jpg"


def test_a_flattened_line_and_a_stream_object_give_the_same_post(tmp_path):
    media = {"media_key": "3_1", "type": "photo", "url": "https://x/1.jpg"}
    flat = tweet(1, attachments={"media_keys": ["3_1"], "media": [media]})
    stream = {
        "data": tweet(1, attachments={"media_keys": ["3_1"]}),
        "includes": {"media": [media]},
        "matching_rules": [],
    }
    assert read(dump(tmp_path, flat, name="a.jsonl")) == read(dump(tmp_path, stream, name="b.jsonl"))


def test_marks_of_the_platform_become_flags(tmp_path):
    page = {
        "data": [
            tweet(1, possibly_sensitive=True),
            tweet(2, withheld={"copyright": False, "country_codes": ["IN"]}),
            tweet(3, referenced_tweets=[{"type": "retweeted", "id": "9"}]),
            tweet(4, referenced_tweets=[{"type": "replied_to", "id": "1"}, {"type": "quoted", "id": "2"}]),
        ]
    }
    posts = read(dump(tmp_path, page))
    assert [set(post.flags) for post in posts] == [{"sensitive"}, {"withheld"}, {"retweet"}, {"quote"}]
    assert posts[3].in_reply_to == "1"


def test_the_last_edit_wins_and_comes_once_even_if_an_earlier_version_knew_of_no_edit(tmp_path):
    path = dump(
        tmp_path,
        {"data": [tweet(10, "frist", edit_history_tweet_ids=["10"])]},
        {"data": [tweet(12, "first", edit_history_tweet_ids=["10", "12"])]},
        {"data": [tweet(20, "other", edit_history_tweet_ids=["20"])]},
    )
    posts = read(path)
    assert [(post.id, post.text) for post in posts] == [("12", "first"), ("20", "other")]
    assert "edited" in posts[0].flags and posts[0].versions == ("10", "12")


def test_every_version_comes_out_with_the_ids_of_all_the_oldest_first(tmp_path):
    path = dump(tmp_path, *(tweet(n, edit_history_tweet_ids=["100", "9", "12"]) for n in (9, 100)))
    assert [(post.id, post.versions) for post in twitter.read(path)] == [
        ("9", ("9", "12", "100")),
        ("100", ("9", "12", "100")),
    ]


def test_a_tweet_that_several_pages_hold_comes_once(tmp_path):
    page = {"data": [tweet(1), tweet(2)], "includes": {"tweets": [tweet(2, "cut …"), tweet(3)]}}
    posts = read(dump(tmp_path, page, page))
    assert [post.id for post in posts] == ["1", "2", "3"]
    assert posts[1].text == "a case"


def test_tweets_only_referred_to_are_left_out_on_request(tmp_path):
    page = {"data": [tweet(1)], "includes": {"tweets": [tweet(3)]}}
    assert [post.id for post in read(dump(tmp_path, page), referenced=False)] == ["1"]


def test_the_long_text_of_a_note_tweet_replaces_the_cut_one(tmp_path):
    page = {"data": [tweet(1, "cut …", note_tweet={"text": "the whole of it #dermpath"})]}
    (post,) = read(dump(tmp_path, page))
    assert post.text == "the whole of it #dermpath"
    assert post.hashtags == ("dermpath",)


@pytest.mark.parametrize(
    "line",
    [
        '{"data": [{"id": "1", "te',
        "[1, 2",
        '"a string"',
        "[" * 100_000,
        '{"data": [{"text": "no id"}]}',
        '{"data": [{"id": "../../x", "text": "a"}]}',
        '{"data": [{"id": true, "text": "a"}]}',
        '{"data": [7]}',
        '{"hello": "world"}',
        '{"data": {"hello": "world"}}',
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_a_line_without_a_tweet_is_counted_with_its_number_and_the_rest_is_read(tmp_path, line):
    path = dump(tmp_path, {"data": [tweet(1)]}, line, {"data": [tweet(2)]})
    items = list(read_posts("twitter", path))
    assert [item.id for item in items if isinstance(item, Post)] == ["1", "2"]
    (bad,) = [item for item in items if isinstance(item, Malformed)]
    assert (bad.file, bad.line) == ("posts.jsonl", 2)
    assert bad.reason


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"errors": [{"title": "Not Found", "resource_type": "tweet", "value": "9"}]}, ("error", ())),
        ({"title": "ConnectionException", "detail": "too slow", "connection_issue": "x"}, ("error", ())),
        ({"errors": [{"code": 34, "message": "Sorry"}]}, ("error", ())),
        ({"data": [tweet(1)], "errors": [{"title": "Forbidden"}]}, ("error", ())),
        ({"data": [{"start": "a", "end": "b", "tweet_count": 3}], "meta": {}}, ("count", ())),
        ({"meta": {"total_tweet_count": 3}}, ("count", ())),
        ({"meta": {"result_count": 0}}, ("empty", ())),
        ([], ("empty", ())),
        ({"data": [], "meta": {"result_count": 0}}, ("empty", ())),
        ({"data": [{"id": "7", "username": "a", "name": "A"}]}, ("user", ())),
        ({"data": {"id": "7", "type": "tweets", "download_url": "https://x"}}, ("job", ())),
        (
            {"id": "9", "action": "delete", "created_at": "a", "redacted_at": "b", "reason": "suspended"},
            ("deletion", ("9",)),
        ),
        ({"id": "9", "action": "delete", "reason": "scrub_geo"}, ("compliance", ())),
        ({"data": {"delete": {"tweet": {"id": "9"}, "event_at": "a"}}}, ("deletion", ("9",))),
        ({"data": {"delete": {"tweet": {"id": "9"}, "quote_tweet_id": "8"}}}, ("deletion", ("9",))),
        ({"data": {"tweet_delete": {"tweet": {"id": "9"}}}}, ("deletion", ("9",))),
        ({"data": {"drop": {"tweet": {"id": "9"}}}}, ("deletion", ("9",))),
        ({"data": {"undrop": {"tweet": {"id": "9"}}}}, ("restored", ())),
        (
            {"data": {"withheld": {"tweet": {"id": "9"}, "withheld_in_countries": ["IN"]}}},
            ("withheld", ("9",)),
        ),
        ({"data": {"tweet_edit": {"tweet": {"id": "9"}, "initial_tweet_id": "8"}}}, ("edit", ())),
        ({"data": {"user_delete": {"user": {"id": "7"}}}}, ("user", ())),
        ({"data": {"user_suspend": {"user": {"id": "7"}}}}, ("user", ())),
        ({"data": {"user_undelete": {"user": {"id": "7"}}}}, ("user", ())),
        ({"data": {"scrub_geo": {"user": {"id": "7"}}}}, ("scrub_geo", ())),
        ({"delete": {"status": {"id": 9, "id_str": "9", "user_id": 7}}}, ("deletion", ("9",))),
        ({"status_withheld": {"id": 9, "user_id": 7, "withheld_in_countries": ["DE"]}}, ("withheld", ("9",))),
        ({"scrub_geo": {"user_id": 7, "up_to_status_id": 9}}, ("scrub_geo", ())),
        ({"limit": {"track": 1234}}, ("stream", ())),
        ({"disconnect": {"code": 4, "reason": "stall"}}, ("stream", ())),
        ({"friends": [1, 2]}, ("stream", ())),
        ({"user_withheld": {"id": 7}}, ("user", ())),
    ],
)
def test_what_is_no_tweet_is_told_by_its_kind_and_the_tweets_that_must_go(tmp_path, line, told):
    assert notices(dump(tmp_path, line)) == [told]


@pytest.mark.parametrize("value", ["../9", "", None, True, 9.5, -9, "9" * 30, ["9"], {}])
def test_a_deletion_without_a_proper_id_names_none(tmp_path, value):
    assert notices(dump(tmp_path, {"delete": {"status": {"id_str": value}}})) == [("deletion", ())]


def test_a_stream_with_rules_keep_alives_and_a_last_line_that_breaks_off_is_read_to_its_end(tmp_path):
    rules = [{"id": "1", "tag": "dermpath"}]
    path = dump(
        tmp_path,
        {"data": tweet(1), "matching_rules": rules},
        "\r",
        {"errors": [{"title": "operational-disconnect", "disconnect_type": "Operational"}]},
        '{"data": {"id": "2", "text": "cut o',
    )
    assert [type(item).__name__ for item in twitter.read(path)] == ["Post", "Notice", "Malformed"]


def test_tweets_nested_in_flattened_ones_come_out_as_referenced(tmp_path):
    inner = tweet(1, attachments={"media_keys": ["3_1"], "media": [{"media_key": "3_1", "alt_text": "x40"}]})
    middle = tweet(2, referenced_tweets=[{"type": "quoted", **inner}])
    outer = tweet(3, referenced_tweets=[{"type": "retweeted", **middle}, {"type": "quoted", "id": "4"}])
    posts = list(twitter.read(dump(tmp_path, outer)))
    assert [(post.id, "referenced" in post.flags) for post in posts] == [
        ("3", False),
        ("2", True),
        ("1", True),
    ]
    assert posts[2].media[0].alt_text == "x40"


def test_media_that_no_page_describes_are_kept_by_their_keys_and_unsafe_keys_made_safe(tmp_path):
    (post,) = read(dump(tmp_path, tweet(1, attachments={"media_keys": ["3_11", "../../x", "3_11"]})))
    assert [media.url for media in post.media] == [None, None]
    assert post.media[0].key == "3_11" and "/" not in post.media[1].key


def test_signs_that_the_api_escapes_stay_so_for_the_cleaner_to_undo(tmp_path):
    (post,) = read(dump(tmp_path, tweet(1, "H&amp;E, p &lt; 0.05")))
    assert post.text == "H&amp;E, p &lt; 0.05"


PAGE = {
    "data": [
        tweet(
            3,
            "a case #dermpath",
            created_at="2021-05-06T10:00:00.000Z",
            lang="en",
            conversation_id="1",
            attachments={"media_keys": ["3_1"]},
            entities={"hashtags": [{"tag": "dermpath"}]},
            public_metrics={"like_count": 3},
            referenced_tweets=[{"type": "replied_to", "id": "1"}],
            edit_history_tweet_ids=["2", "3"],
            note_tweet={"text": "longer", "entities": {}},
            withheld={"country_codes": ["IN"]},
        )
    ],
    "includes": {
        "media": [{"media_key": "3_1", "url": "https://x/1.jpg", "alt_text": "x40"}],
        "tweets": [tweet(1)],
    },
    "errors": [{"title": "a"}],
    "meta": {"result_count": 1},
}


@given(record=spoiled(PAGE))
def test_a_page_with_anything_in_it_is_read_and_accounted_for(tmp_path_factory, record):
    check(twitter.read, tmp_path_factory.mktemp("fuzz") / "a.jsonl", record)


def test_of_a_key_that_comes_twice_the_last_counts(tmp_path):
    (post,) = read(dump(tmp_path, '{"id": "1", "text": "a", "text": "b", "id": "2"}'))
    assert (post.id, post.text) == ("2", "b")


def test_wrong_types_inside_a_tweet_do_no_harm(tmp_path):
    odd = tweet(
        1,
        "lone \ud800 surrogate",
        attachments=[],
        entities={"hashtags": "x"},
        referenced_tweets={"a": 1},
        public_metrics={"like_count": "many", "reply_count": True, "quote_count": 2},
        created_at=5,
        lang=None,
    )
    (post,) = read(dump(tmp_path, odd))
    post.text.encode()
    assert post.metrics == {"quote_count": 2}
    assert post.created_at is None


def test_gzip_folders_and_pretty_printed_json_are_read(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps({"data": [tweet(1)]}).encode()))
    (tmp_path / "b.json").write_text(json.dumps({"data": [tweet(2)]}, indent=2))
    (tmp_path / "c.txt").write_text("not a dump")
    assert [post.id for post in read(tmp_path)] == ["1", "2"]


def test_a_gzip_file_that_breaks_off_gives_what_it_holds_and_is_counted(tmp_path):
    lines = "".join(json.dumps({"data": [tweet(n, "x" * 50)]}) + "\n" for n in range(1, 2000))
    whole = gzip.compress(lines.encode())
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) * 2 // 3])
    assert len(read(tmp_path)) > 100
    assert len(malformed(tmp_path)) >= 1


def test_the_author_is_hashed(tmp_path):
    (post,) = read(dump(tmp_path, tweet(1, author_id="123456789")))
    assert post.author
    assert "123456789" not in repr(post)


def test_a_missing_path_and_an_unknown_option_are_told_at_once(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_posts("twitter", tmp_path / "absent.jsonl")
    with pytest.raises(ConfigError, match="Did you mean referenced"):
        read_posts("twitter", tmp_path, referencd=False)
    with pytest.raises(ConfigError, match="Did you mean twitter"):
        read_posts("twiter", tmp_path)
    with pytest.raises(ConfigError, match=r"source\.referenced: expected bool"):
        twitter.read(tmp_path / "a.jsonl", referenced="no")


@pytest.mark.real_data
def test_every_distinct_tweet_of_real_dumps_comes_out_once_with_its_media(shared_data):
    folder = shared_data / "tweets" / "twitter_api_v2"
    found: dict[str, set[str]] = {}
    replaced: set[str] = set()
    for file in folder.glob("*.jsonl"):
        for line in file.read_text("utf-8").splitlines():
            try:
                page = json.loads(line)
            except ValueError:
                continue
            data = page.get("data", page)
            tweets = [*(data if isinstance(data, list) else [data])]
            tweets += page.get("includes", {}).get("tweets", [])
            tweets += [other for one in tweets for other in one.get("referenced_tweets", [])]
            for one in tweets:
                if "text" in one:
                    keys = one.get("attachments", {}).get("media_keys", [])
                    found.setdefault(one["id"], set()).update(keys)
                    replaced.update(one.get("edit_history_tweet_ids", [])[:-1])
    posts = read(folder)
    assert len(posts) == len({post.id for post in posts}) > 1000
    wanted = {number: keys for number, keys in found.items() if number not in replaced}
    assert {post.id: {media.key for media in post.media} for post in posts} == wanted
    assert [(bad.file, bad.line) for bad in malformed(folder)] == [("streaming_output_with_error.jsonl", 8)]


@pytest.mark.real_data
def test_counts_per_file_are_those_of_a_script_that_shares_no_code(shared_data):
    folder = shared_data / "tweets" / "twitter_api_v2"
    script = Path(__file__).parents[2] / "scripts" / "count_tweets.py"
    done = subprocess.run(
        [sys.executable, "-I", script, folder, "--json"], capture_output=True, text=True, check=True
    )
    found = open_dump("twitter", folder)
    with DistinctPosts() as posts:
        for file in found.files:
            list(posts.add(file.name, found.read(file)))
        counted = {
            one.file: {"tweets": one.posts, "retweets": one.retweets, "edited": one.edits, "media": one.media}
            for one in posts.counts()
        }
    assert counted == json.loads(done.stdout)
    assert len(counted) > 10
