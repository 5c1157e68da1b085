import gzip
import json
from pathlib import Path

import pytest

from pathclip.errors import ConfigError, DataError
from pathclip.sources import read_posts
from pathclip.types import Malformed, Post


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
    assert [(post.id, post.text) for post in posts] == [("20", "other"), ("12", "first")]
    assert "edited" in posts[1].flags


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
        '{"errors": [{"title": "Not Found"}]}',
        '{"data": [{"start": "a", "end": "b", "tweet_count": 3}]}',
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
