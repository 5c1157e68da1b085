import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathclip.config import config_dir
from pathclip.curate.image_files import PictureFiles, Place
from pathclip.errors import ConfigError
from pathclip.sources import mastodon
from pathclip.sources.mastodon_html import plain_text
from pathclip.types import Malformed, Notice, Post
from tests.sources.spoiled import check, spoiled

HOME = "https://med.example.org"
PUBLIC = "https://www.w3.org/ns/activitystreams#Public"
STORED = "/media_attachments/files/109/876/543/210/987/654/original/0123456789abcdef.png"


def attachment(name: str = "109876543210987654", **more) -> dict:
    return {"id": name, "type": "image", "url": f"https://files.example.org/{name}.png", **more}


def status(name: str = "5", content: str = "<p>a case</p>", **more) -> dict:
    return {
        "id": name,
        "uri": f"{HOME}/users/ann/statuses/{name}",
        "created_at": "2024-03-01T10:00:00.000Z",
        "visibility": "public",
        "content": content,
        "account": {"id": "7", "acct": "ann", "uri": f"{HOME}/users/ann"},
        **more,
    }


def note(name: str = "5", **more) -> dict:
    return {
        "id": f"{HOME}/users/ann/statuses/{name}",
        "type": "Note",
        "content": "<p>a case</p>",
        "published": "2024-03-01T10:00:00Z",
        "attributedTo": f"{HOME}/users/ann",
        "to": [PUBLIC],
        "cc": [f"{HOME}/users/ann/followers"],
        **more,
    }


def outbox(*activities: dict) -> dict:
    return {"@context": "x", "id": "outbox.json", "type": "OrderedCollection", "orderedItems": [*activities]}


def create(item: dict) -> dict:
    return {"type": "Create", "id": item.get("id", "") + "/activity", "object": item}


def dump(folder: Path, *lines: object, name: str = "posts.jsonl") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def read(path: Path, **options) -> list[Post | Malformed | Notice]:
    return list(mastodon.read(path, **options))


def one(folder: Path, line: dict, **options) -> Post:
    (post,) = read(dump(folder, line), **options)
    assert isinstance(post, Post), post
    return post


def test_a_status_gives_all_its_fields(tmp_path):
    post = one(
        tmp_path,
        status(
            content='<p>Lipoma<br>of the back</p><p><a class="hashtag">#<span>dermpath</span></a></p>',
            spoiler_text="Pathology, gross",
            sensitive=True,
            language="en",
            in_reply_to_id="4",
            favourites_count=3,
            reblogs_count=2,
            replies_count=1,
            edited_at="2024-03-02T10:00:00.000Z",
            tags=[{"name": "dermpath", "url": "x"}],
            media_attachments=[attachment(description="H&E, x40"), attachment("8", type="audio")],
        ),
    )
    assert (post.id, post.platform, post.language, post.in_reply_to) == ("5", "mastodon", "en", "4")
    assert post.text == "Pathology, gross\n\nLipoma\nof the back\n\n#dermpath"
    assert post.flags == {"sensitive", "edited"}
    assert post.hashtags == ("dermpath",)
    assert post.metrics == {"like_count": 3, "repost_count": 2, "reply_count": 1}
    assert [(media.key, media.alt_text) for media in post.media] == [("109876543210987654", "H&E, x40")]
    assert post.created_at == datetime(2024, 3, 1, 10, tzinfo=UTC)
    assert "ann" not in post.author


def test_a_timeline_a_search_a_context_and_a_stream_give_the_same_statuses(tmp_path):
    first, second = status("5"), status("6")
    pages = [
        [first, second],
        {"statuses": [first, second], "accounts": [], "hashtags": []},
        {"ancestors": [first], "descendants": [second]},
    ]
    for number, page in enumerate(pages):
        assert [post.id for post in read(dump(tmp_path, page, name=f"{number}.json"))] == ["5", "6"]
    events = [{"event": "update", "payload": json.dumps(entry)} for entry in (first, second)]
    assert read(dump(tmp_path, *events, name="a.jsonl")) == read(
        dump(tmp_path, first, second, name="b.jsonl")
    )


def test_boosted_and_quoted_statuses_come_out_as_referenced(tmp_path):
    quoting = status("6", quote={"state": "accepted", "quoted_status": status("5")})
    boost = status("7", reblog=quoting)
    path = dump(tmp_path, boost)
    assert [(post.id, sorted(post.flags)) for post in read(path)] == [
        ("7", ["retweet"]),
        ("6", ["quote", "referenced"]),
        ("5", ["referenced"]),
    ]
    assert [post.id for post in read(path, referenced=False)] == ["7"]


def test_the_still_of_a_film_stands_for_it(tmp_path):
    film = attachment("9", type="gifv", url="https://x.org/a.mp4", preview_url="https://x.org/a.png")
    assert one(tmp_path, status(media_attachments=[film])).media[0].url == "https://x.org/a.png"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (status(visibility="private"), ("private", ())),
        (status(visibility="direct"), ("private", ())),
        (create(note(to=[f"{HOME}/users/ann/followers"], cc=[])), ("private", ())),
        (create(note(to=f"{HOME}/users/bob", cc=[])), ("private", ())),
        ({"event": "delete", "payload": "5"}, ("deletion", ("5",))),
        ({"event": "filters_changed"}, ("stream", ())),
        (
            {"type": "Delete", "object": f"{HOME}/users/ann/statuses/5"},
            ("deletion", (f"{HOME}/users/ann/statuses/5",)),
        ),
        (
            {"type": "Delete", "object": {"type": "Tombstone", "id": f"{HOME}/users/ann/statuses/5"}},
            ("deletion", (f"{HOME}/users/ann/statuses/5",)),
        ),
        (
            {"type": "Tombstone", "id": f"{HOME}/users/ann/statuses/5"},
            ("deletion", (f"{HOME}/users/ann/statuses/5",)),
        ),
        ({"type": "Delete", "object": "../../etc"}, ("deletion", ())),
        ({"type": "Announce", "object": "https://other.example.org/1"}, ("boost", ())),
        ({"type": "Like", "object": "https://other.example.org/1"}, ("activity", ())),
        (outbox(), ("empty", ())),
        ({"statuses": []}, ("empty", ())),
        ([], ("empty", ())),
        ({"error": "Record not found"}, ("error", ())),
    ],
)
def test_what_is_no_public_status_is_told_by_its_kind_and_what_must_go(tmp_path, line, told):
    assert [(item.kind, item.deleted) for item in read(dump(tmp_path, line))] == [told]


def test_an_outbox_gives_its_statuses_with_their_pictures_beside_it(tmp_path):
    full = note(
        summary="gross",
        sensitive=False,
        inReplyTo=f"{HOME}/users/ann/statuses/4",
        contentMap={"de": "<p>a case</p>"},
        updated="2024-03-02T10:00:00Z",
        attachment=[
            {"type": "Document", "mediaType": "image/png", "url": STORED, "name": "H&E, x40"},
            {"type": "Document", "mediaType": "audio/mpeg", "url": "/a.mp3"},
        ],
        tag=[{"type": "Hashtag", "name": "#dermpath"}, {"type": "Mention", "name": "@bob"}],
    )
    path = dump(tmp_path, outbox(create(full)), name="archive/outbox.json")
    (post,) = read(path, root=tmp_path)
    assert (post.id, post.language) == (f"{HOME}/users/ann/statuses/5", "de")
    assert post.in_reply_to == f"{HOME}/users/ann/statuses/4"
    assert (post.text, post.hashtags, post.flags) == ("gross\n\na case", ("dermpath",), {"edited"})
    (media,) = post.media
    assert (media.key, media.alt_text, media.url) == ("109876543210987654", "H&E, x40", None)
    picture = tmp_path / "archive" / STORED.lstrip("/")
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"x")
    assert PictureFiles(tmp_path).find(media) == Place(str(picture))


def test_the_outbox_may_be_spread_over_lines(tmp_path):
    path = tmp_path / "outbox.json"
    path.write_text(json.dumps(outbox(create(note("5")), create(note("6"))), indent=2))
    assert [post.id[-1] for post in read(path)] == ["5", "6"]


def test_a_boost_in_an_outbox_shows_what_it_repeats_as_referenced(tmp_path):
    items = read(dump(tmp_path, outbox({"type": "Announce", "object": note("5")})))
    assert [type(item).__name__ for item in items] == ["Notice", "Post"]
    assert items[1].flags == {"referenced"}


def test_a_path_that_leaves_the_archive_is_no_picture(tmp_path):
    away = {"type": "Document", "mediaType": "image/png", "url": "/../../secret.png"}
    assert one(tmp_path, create(note(attachment=[away]))).media == ()


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("plain", "plain"),
        ("<p>one</p><p>two<br>three<br />four</p>", "one\n\ntwo\nthree\nfour"),
        ("<p>5 &lt; 6 &amp; &#39;7&#39;&nbsp;mm</p>", "5 < 6 & '7'\xa0mm"),
        ("<p>&amp;amp; stays</p>", "&amp; stays"),
        (
            '<p>See <a href="https://x.org/abc/def"><span class="invisible">https://</span>'
            '<span class="ellipsis">x.org/abc</span><span class="invisible">/def</span></a>.</p>',
            "See https://x.org/abc/def.",
        ),
        (
            '<span class="h-card"><a href="u" class="u-url mention">@<span>bob</span></a></span> '
            '<a class="hashtag">#<span>gipath</span></a>',
            "@bob #gipath",
        ),
        ('<p class="quote-inline">RE: <a href="x">x</a></p><p>new</p>', "new"),
        ('<p><span class="quote-inline"><br>RE: <span>x</span></span>new</p>', "new"),
        ("<ul><li>one</li><li>two</li></ul>", "one\n\ntwo"),
        ("<p>a<script>alert(1)</script>b</p>", "ab"),
        ("a < b and c", "a < b and c"),
        ("<p>unclosed <b", "unclosed <b"),
        ("<!-- a --><p>b</p>", "b"),
        ("&#" + "9" * 5000 + ";", "&#" + "9" * 5000 + ";"),
        ("<p>\ud800</p>", "\ufffd"),
    ],
)
def test_html_becomes_the_text_that_one_sees(html, text):
    assert plain_text(html) == text


@pytest.mark.parametrize(
    "part", ["<a ", "<!--", "<p><b ", "</", "&", '<a class="', "<?", "<script><b>", "&#9"]
)
def test_the_time_for_hostile_html_grows_with_its_length_alone(part):
    start = time.process_time()
    plain_text(part * (200_000 // len(part)))
    assert time.process_time() - start < 2  # a parser with quadratic time needs minutes


@given(st.text(alphabet="<>/!?-&;#\"'= abpr\n", max_size=60))
def test_no_html_crashes_the_reader(html):
    assert isinstance(plain_text(html), str)


FULL = status(
    spoiler_text="a",
    tags=[{"name": "dermpath"}],
    media_attachments=[attachment(description="x40")],
    reblog=status("4", quote={"state": "accepted", "quoted_status": status("3")}),
    edited_at="2024-03-02T10:00:00.000Z",
    favourites_count=3,
)
NOTE = note(
    summary="a",
    attachment=[{"type": "Document", "mediaType": "image/png", "url": STORED, "name": "x40"}],
    tag=[{"type": "Hashtag", "name": "#dermpath"}],
    contentMap={"en": "a"},
    inReplyTo=f"{HOME}/1",
)


@given(record=spoiled([FULL]))
def test_a_status_with_anything_in_it_is_read_and_accounted_for(tmp_path_factory, record):
    check(mastodon.read, tmp_path_factory.mktemp("fuzz") / "a.jsonl", record)


@given(
    record=spoiled(
        outbox(create(NOTE), {"type": "Announce", "object": NOTE}, {"type": "Delete", "object": "x"})
    )
)
def test_an_outbox_with_anything_in_it_is_read_and_accounted_for(tmp_path_factory, record):
    check(mastodon.read, tmp_path_factory.mktemp("fuzz") / "a.jsonl", record)


@given(record=spoiled({"event": "update", "payload": json.dumps(status())}))
def test_an_event_with_anything_in_it_is_read_and_accounted_for(tmp_path_factory, record):
    check(mastodon.read, tmp_path_factory.mktemp("fuzz") / "a.jsonl", record)


def test_options_are_checked_when_called(tmp_path):
    with pytest.raises(ConfigError, match=r"source\.referenced"):
        mastodon.read(tmp_path / "a.jsonl", referenced=1)
    assert (config_dir() / "source" / "mastodon.yaml").is_file()
