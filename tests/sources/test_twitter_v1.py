import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given

from pathclip.sources import open_dump, twitter, twitter_v1
from pathclip.types import Malformed, Notice, Post
from tests.sources.spoiled import check, spoiled

CREATED = "Wed Oct 10 20:19:24 +0000 2018"


def photo(number: int, **more) -> dict:
    url = f"https://pbs.twimg.com/media/{number}.jpg"
    return {"id": number, "id_str": str(number), "type": "photo", "media_url_https": url, **more}


def status(number: int, text: str = "a case", **more) -> dict:
    return {
        "created_at": CREATED,
        "id": number,
        "id_str": str(number),
        "full_text": text,
        "user": {"id": 7, "id_str": "7", "screen_name": "drwho"},
        **more,
    }


def dump(folder: Path, *lines: object, name: str = "posts.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def read(path: Path, **options) -> list[Post | Malformed | Notice]:
    return list(twitter.read(path, **options))


def one(folder: Path, line: dict) -> Post:
    (post,) = read(dump(folder, line))
    return post


NUMBER, PARENT = 1050118621198921728, 1050118621198921700
# The same tweet, as each API gives it.
OLD = status(
    NUMBER,
    "H&amp;E of a lipoma #dermpath #pathology https://t.co/x",
    # As a number the id is one that floating point has rounded.
    id=1050118621198921700,
    lang="en",
    possibly_sensitive=True,
    in_reply_to_status_id=PARENT,
    in_reply_to_status_id_str=str(PARENT),
    favorite_count=5,
    retweet_count=2,
    reply_count=1,
    quote_count=0,
    withheld_in_countries=["DE"],
    is_quote_status=True,
    quoted_status_id_str="9",
    display_text_range=[0, 40],
    entities={
        "hashtags": [{"text": "dermpath", "indices": [16, 25]}, {"text": "pathology", "indices": [26, 36]}],
        "media": [photo(11)],
    },
    extended_entities={"media": [photo(11, ext_alt_text="x40"), photo(12)]},
)
NEW = {
    "id": str(NUMBER),
    "text": "H&amp;E of a lipoma #dermpath #pathology https://t.co/x",
    "author_id": "7",
    "created_at": "2018-10-10T20:19:24.000Z",
    "lang": "en",
    "possibly_sensitive": True,
    "referenced_tweets": [{"type": "replied_to", "id": str(PARENT)}, {"type": "quoted", "id": "9"}],
    "public_metrics": {"like_count": 5, "retweet_count": 2, "reply_count": 1, "quote_count": 0},
    "withheld": {"copyright": False, "country_codes": ["DE"]},
    "entities": {"hashtags": [{"tag": "dermpath"}, {"tag": "pathology"}]},
    "attachments": {"media_keys": ["3_11", "3_12"]},
}
NEW_MEDIA = [
    {"media_key": "3_11", "type": "photo", "url": "https://pbs.twimg.com/media/11.jpg", "alt_text": "x40"},
    {"media_key": "3_12", "type": "photo", "url": "https://pbs.twimg.com/media/12.jpg"},
]


def test_a_tweet_gives_the_same_post_in_both_forms_of_the_api(tmp_path):
    old, new = read(dump(tmp_path, OLD, {"data": NEW, "includes": {"media": NEW_MEDIA}}))
    assert old == new
    assert old.id == str(NUMBER) and len(old.media) == 2 and old.flags == {"sensitive", "withheld", "quote"}


def test_a_stream_gives_the_whole_text_and_all_pictures_in_an_object_of_their_own(tmp_path):
    streamed = {
        **{
            name: value
            for name, value in OLD.items()
            if name not in ("full_text", "entities", "extended_entities")
        },
        "text": "H&amp;E of a lip… https://t.co/y",
        "truncated": True,
        "entities": {"hashtags": []},
        "extended_tweet": {name: OLD[name] for name in ("full_text", "entities", "extended_entities")},
    }
    assert one(tmp_path, streamed) == one(tmp_path, OLD)


def test_old_tweets_without_extended_entities_keep_their_picture_and_those_without_full_text_their_text(
    tmp_path,
):
    post = one(
        tmp_path, {"id_str": "1", "text": "old", "entities": {"media": [photo(11)]}, "user": {"id": 7}}
    )
    assert (post.text, [media.key for media in post.media]) == ("old", ["3_11"])


@pytest.mark.parametrize(
    ("kind", "folder", "key"),
    [
        ("photo", "media", "3_11"),
        ("video", "ext_tw_video_thumb/1/pu/img", "7_11"),
        ("animated_gif", "tweet_video_thumb", "16_11"),
        ("video", "amplify_video_thumb/1/img", "13_11"),
    ],
)
def test_keys_of_media_are_those_of_v2(tmp_path, kind, folder, key):
    media = photo(11, type=kind, media_url_https=f"https://pbs.twimg.com/{folder}/a.jpg")
    post = one(tmp_path, status(1, extended_entities={"media": [media]}))
    assert post.media[0].key == key


def test_retweeted_and_quoted_tweets_come_out_as_referenced(tmp_path):
    quoted = status(1, "a case", extended_entities={"media": [photo(11)]})
    original = status(2, "see this", quoted_status=quoted, quoted_status_id_str="1", is_quote_status=True)
    retweet = status(
        3,
        "RT @drwho: see this",
        retweeted_status=original,
        quoted_status=quoted,
        quoted_status_id_str="1",
        is_quote_status=True,
    )
    path = dump(tmp_path, retweet)
    posts = read(path)
    assert [(post.id, sorted(post.flags)) for post in posts] == [
        ("3", ["retweet"]),
        ("2", ["quote", "referenced"]),
        ("1", ["referenced"]),
        ("1", ["referenced"]),
    ]
    assert [post.id for post in read(path, referenced=False)] == ["3"]


def test_edits_are_known_from_the_api_and_from_an_archive(tmp_path):
    api = status(9, edit_history={"edit_tweet_ids": ["8", "9"]})
    last = status(9, edit_info={"edit": {"editControlInitial": {"editTweetIds": ["8", "9"]}}})
    first = status(8, edit_info={"initial": {"editTweetIds": ["8", "9"]}})
    never = status(7, edit_info={"initial": {"editTweetIds": ["7"]}})
    posts = read(dump(tmp_path, api, last, first, never))
    assert [post.versions for post in posts] == [("8", "9")] * 3 + [()]
    assert ["edited" in post.flags for post in posts] == [True, True, True, False]


@pytest.mark.parametrize("wrapper", ["statuses", "results"])
def test_pages_of_a_search_are_read_and_empty_ones_told(tmp_path, wrapper):
    path = dump(tmp_path, {wrapper: [status(1), status(2), {"id": 3}]}, {wrapper: [], "search_metadata": {}})
    items = read(path)
    assert [item.id for item in items if isinstance(item, Post)] == ["1", "2"]
    assert [type(item).__name__ for item in items[2:]] == ["Malformed", "Notice"]


def archive(folder: Path, *tweets: dict, name: str = "tweets.js") -> Path:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    content = json.dumps([{"tweet": tweet} for tweet in tweets], indent=1)
    part = name.removesuffix(".js").replace("-", "_")
    (data / name).write_text(f"window.YTD.{part}.part0 = {content}")
    return data / name


def test_an_account_archive_gives_its_tweets_with_their_pictures_beside_them(tmp_path):
    tweet = status(5, favorite_count="3", extended_entities={"media": [photo(11)]})
    del tweet["user"]
    archive(tmp_path, tweet)
    archive(tmp_path, status(6), name="tweets-part1.js")
    archive(tmp_path, status(7), name="follower.js")
    (tmp_path / "data" / "tweets_media").mkdir()
    found = open_dump("twitter", tmp_path)
    assert [file.name for file in found.files] == ["tweets-part1.js", "tweets.js"]
    (post,) = read(found.files[1], root=tmp_path)
    assert post.media[0].path == "data/tweets_media/5-11.jpg"
    assert post.metrics == {"like_count": 3}


def test_deleted_tweets_of_an_archive_are_deletions_whatever_they_said(tmp_path):
    archive(tmp_path, status(5, deleted_at=CREATED), name="deleted-tweets.js")
    archive(tmp_path, {"tweet_id": "6", "deleted_at": CREATED}, name="deleted-tweet-headers.js")
    items = [item for file in open_dump("twitter", tmp_path).files for item in read(file)]
    assert [(item.kind, item.deleted) for item in items] == [("deletion", ("6",)), ("deletion", ("5",))]


def test_the_path_of_an_archived_picture_leaves_no_folder(tmp_path):
    media = photo(11, media_url_https="https://pbs.twimg.com/media/..%2f..%2fx/..")
    file = archive(tmp_path, status(5, extended_entities={"media": [media]}))
    (tmp_path / "data" / "tweets_media").mkdir()
    (post,) = read(file)
    assert ".." not in Path(post.media[0].path).parts


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (CREATED, datetime(2018, 10, 10, 20, 19, 24, tzinfo=UTC)),
        ("Wed Oct 10 20:19:24 +0230 2018", datetime(2018, 10, 10, 17, 49, 24, tzinfo=UTC)),
        ("Wed Oct 10 20:19:24 -0100 2018", datetime(2018, 10, 10, 21, 19, 24, tzinfo=UTC)),
        ("2018-10-10T20:19:24.000Z", None),
        ("Wed Okt 10 20:19:24 +0000 2018", None),
        ("Wed Feb 31 20:19:24 +0000 2018", None),
        ("Wed Oct 10 20:19:24 +0000 " + "9" * 5000, None),
        (None, None),
    ],
)
def test_times_of_v1_are_read_in_any_language_of_the_machine(value, moment):
    assert twitter_v1.parse_v1_time(value) == moment


def test_a_rounded_id_is_used_only_where_there_is_no_other(tmp_path):
    assert one(tmp_path, status(5, id=1.5e18)).id == "5"
    assert one(tmp_path, {"id": 6, "full_text": "a"}).id == "6"
    assert isinstance(one(tmp_path, {"id": 1.5e18, "full_text": "a"}), Malformed)


@given(record=spoiled({**OLD, "retweeted_status": status(2, quoted_status=status(3))}))
def test_a_tweet_with_anything_in_it_is_read_and_accounted_for(tmp_path_factory, record):
    check(twitter.read, tmp_path_factory.mktemp("fuzz") / "a.jsonl", record)


@given(
    record=spoiled(
        [{"tweet": {**OLD, "edit_info": {"edit": {"editControlInitial": {"editTweetIds": ["1"]}}}}}]
    )
)
def test_an_archive_with_anything_in_it_is_read_and_accounted_for(tmp_path_factory, record):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "tweets_media").mkdir()
    check(twitter.read, folder / "a.jsonl", record)
