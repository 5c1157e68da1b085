import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import libipld
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathclip.curate.select import file_name
from pathclip.errors import ConfigError
from pathclip.sources import bluesky, bluesky_car, read_posts
from pathclip.types import Malformed, Notice, Post
from tests.sources.spoiled import check, check_post, spoiled

DID, OTHER = "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "did:web:path.example.org"
CREATED = "2024-03-01T10:00:00.000Z"
CID = "bafkreihltcnuuyqp2jm24aqydpnlj7b6w3ogwrplomrjtg5rifv44mmjey"


def uri(key: str, did: str = DID) -> str:
    return f"at://{did}/app.bsky.feed.post/{key}"


def image(cid: str = CID, alt: str = "") -> dict:
    return {
        "alt": alt,
        "image": {"$type": "blob", "ref": {"$link": cid}, "mimeType": "image/jpeg", "size": 5},
    }


def record(text: str = "a case", **more) -> dict:
    return {"$type": "app.bsky.feed.post", "text": text, "createdAt": CREATED, **more}


def view(key: str, content: dict | None = None, did: str = DID, **more) -> dict:
    content = record() if content is None else content
    return {"uri": uri(key, did), "cid": CID, "author": {"did": did}, "record": content, **more}


def dump(folder: Path, *lines: object, name: str = "posts.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def read(path: Path, **options) -> list[Post | Malformed | Notice]:
    return list(bluesky.read(path, **options))


def one(folder: Path, line: dict, **options) -> Post:
    (post,) = read(dump(folder, line), **options)
    assert isinstance(post, Post), post
    return post


FULL = record(
    "Lipoma, #dermpath see path.org/a/ver…",
    langs=["en-GB", "de"],
    tags=["pathology"],
    facets=[
        {
            "index": {"byteStart": 8, "byteEnd": 17},
            "features": [{"$type": "app.bsky.richtext.facet#tag", "tag": "dermpath"}],
        },
        {
            "index": {"byteStart": 22, "byteEnd": 39},
            "features": [{"$type": "app.bsky.richtext.facet#link", "uri": "https://path.org/a/very/long"}],
        },
    ],
    reply={"root": {"uri": uri("1"), "cid": CID}, "parent": {"uri": uri("2", OTHER), "cid": CID}},
    labels={"$type": "com.atproto.label.defs#selfLabels", "values": [{"val": "graphic-media"}]},
    embed={"$type": "app.bsky.embed.images", "images": [image(alt="H&E, x40"), image(CID[:-1] + "a")]},
)


def test_a_record_gives_all_its_fields(tmp_path):
    post = one(tmp_path, {"uri": uri("3"), **FULL})
    assert (post.id, post.platform, post.language) == (uri("3"), "bluesky", "en-GB")
    assert post.text == "Lipoma, #dermpath see https://path.org/a/very/long"
    assert post.hashtags == ("dermpath", "pathology")
    assert (post.in_reply_to, post.conversation) == (uri("2", OTHER), uri("1"))
    assert post.flags == {"sensitive"}
    assert [(media.key, media.url, media.alt_text) for media in post.media] == [
        (CID, None, "H&E, x40"),
        (CID[:-1] + "a", None, None),
    ]
    assert post.created_at == datetime(2024, 3, 1, 10, tzinfo=UTC)
    assert DID not in post.author


def test_a_bare_record_a_listing_a_view_and_an_event_give_the_same_post(tmp_path):
    event = {
        "did": DID,
        "kind": "commit",
        "time_us": 1709287200000000,
        "commit": {"operation": "create", "collection": "app.bsky.feed.post", "rkey": "3", "record": FULL},
    }
    lines = [
        {"uri": uri("3"), **FULL},
        {"did": DID, "rkey": "3", "record": FULL},
        {"uri": uri("3"), "cid": CID, "value": FULL},
        {"records": [{"uri": uri("3"), "cid": CID, "value": FULL}], "cursor": "x"},
        view("3", FULL),
        {"posts": [view("3", FULL)]},
        {"feed": [{"post": view("3", FULL)}]},
        {"thread": {"$type": "app.bsky.feed.defs#threadViewPost", "post": view("3", FULL)}},
        event,
    ]
    posts = read(dump(tmp_path, *lines))
    assert len(posts) == len(lines) and set(map(repr, posts)) == {repr(posts[0])}
    assert read(dump(tmp_path, {"posts": [view("3", FULL)]}, name="page.json")) == posts[:1]


def test_bytes_of_facets_are_of_utf_8_and_words_that_carry_a_link_stay(tmp_path):
    text = "🔬 é path.org/a… here"
    start = len("🔬 é ".encode())
    features = [{"$type": "app.bsky.richtext.facet#link", "uri": "https://www.path.org/abc"}]
    end = start + len("path.org/a…".encode())
    facets = [
        {"index": {"byteStart": start, "byteEnd": end}, "features": features},
        {"index": {"byteStart": end + 1, "byteEnd": end + 5}, "features": features},
        {"index": {"byteStart": 0, "byteEnd": 10**9}, "features": features},
        {"index": {"byteStart": 3, "byteEnd": 2}, "features": features},
    ]
    post = one(tmp_path, {"uri": uri("3"), **record(text, facets=facets)})
    assert post.text == "🔬 é https://www.path.org/abc here"


def test_a_view_adds_addresses_counts_labels_and_the_time_it_was_first_seen(tmp_path):
    url = f"https://cdn.bsky.app/img/feed_fullsize/plain/{DID}/{CID}@jpeg"
    shown = view(
        "3",
        record(
            embed={"$type": "app.bsky.embed.images", "images": [image()]}, createdAt="2031-01-01T00:00:00Z"
        ),
        embed={"$type": "app.bsky.embed.images#view", "images": [{"thumb": url, "fullsize": url, "alt": ""}]},
        likeCount=7,
        repostCount=2,
        labels=[{"val": "porn", "src": DID}, {"val": "!hide", "src": DID}],
        indexedAt=CREATED,
    )
    post = one(tmp_path, shown)
    assert post.media[0].url == url
    assert post.metrics == {"like_count": 7, "repost_count": 2}
    assert post.flags == {"sensitive", "withheld"}
    assert post.created_at == datetime(2024, 3, 1, 10, tzinfo=UTC)


def test_a_label_that_was_taken_back_does_not_count(tmp_path):
    labels = [{"val": "porn"}, {"val": "porn", "neg": True}]
    assert one(tmp_path, view("3", labels=labels)).flags == frozenset()


def test_a_film_has_its_still_and_the_preview_of_a_link_is_no_picture(tmp_path):
    blob = {"$type": "blob", "ref": {"$link": CID}, "mimeType": "video/mp4", "size": 5}
    film = view(
        "3",
        record(embed={"$type": "app.bsky.embed.video", "video": blob, "alt": "a film"}),
        embed={"$type": "app.bsky.embed.video#view", "cid": CID, "thumbnail": "https://video.bsky.app/t.jpg"},
    )
    link = view("4", record(embed={"$type": "app.bsky.embed.external", "external": {"thumb": blob}}))
    with_film, with_link = read(dump(tmp_path, film, link))
    assert [(media.url, media.alt_text) for media in with_film.media] == [
        ("https://video.bsky.app/t.jpg", "a film")
    ]
    assert with_link.media == ()


def test_quoted_answered_and_reposted_posts_come_out_as_referenced(tmp_path):
    quoted = {"$type": "app.bsky.embed.record#viewRecord", "uri": uri("1"), "value": record("quoted")}
    quoting = view(
        "3",
        record(
            embed={
                "$type": "app.bsky.embed.recordWithMedia",
                "record": {"record": {"uri": uri("1"), "cid": CID}},
                "media": {"$type": "app.bsky.embed.images", "images": [image()]},
            }
        ),
        embed={"$type": "app.bsky.embed.recordWithMedia#view", "record": {"record": quoted}},
    )
    feed = [
        {"post": quoting, "reply": {"root": view("5"), "parent": {"uri": uri("6"), "notFound": True}}},
        {"post": view("7", did=OTHER), "reason": {"$type": "app.bsky.feed.defs#reasonRepost", "by": {}}},
    ]
    path = dump(tmp_path, {"feed": feed})
    items = read(path)
    assert [(item.id, sorted(item.flags)) for item in items if isinstance(item, Post)] == [
        (uri("3"), ["quote"]),
        (uri("1"), ["referenced"]),
        (uri("5"), ["referenced"]),
        (uri("7", OTHER), ["referenced"]),
    ]
    assert items[0].media[0].key == CID
    assert [item.kind for item in items if isinstance(item, Notice)] == ["repost"]
    assert [item.id for item in read(path, referenced=False) if isinstance(item, Post)] == [uri("3")]


def test_a_thread_is_read_with_its_parents_first_and_its_replies(tmp_path):
    thread = {
        "post": view("2"),
        "parent": {"post": view("1")},
        "replies": [
            {"post": view("3"), "replies": [{"post": view("4")}]},
            {"uri": uri("9"), "blocked": True},
        ],
    }
    items = read(dump(tmp_path, {"thread": thread}))
    assert [item.id for item in items if isinstance(item, Post)] == [uri(key) for key in "2134"]
    assert [item.kind for item in items if isinstance(item, Notice)] == ["error"]


def event(operation: str, collection: str = "app.bsky.feed.post", **more) -> dict:
    commit = {"operation": operation, "collection": collection, "rkey": "3", **more}
    return {"did": DID, "time_us": 1709287200000000, "kind": "commit", "commit": commit}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (event("delete"), ("deletion", (uri("3"),))),
        (event("delete", "app.bsky.feed.like"), ("undone", ())),
        (event("create", "app.bsky.feed.repost", record={"subject": {"uri": uri("1")}}), ("repost", ())),
        (event("create", "app.bsky.graph.follow", record={}), ("follow", ())),
        ({"did": DID, "kind": "account", "account": {"active": False, "status": "deleted"}}, ("user", ())),
        ({"did": DID, "kind": "identity", "identity": {}}, ("user", ())),
        ({"posts": []}, ("empty", ())),
        ([], ("empty", ())),
        ({"uri": uri("3"), "notFound": True}, ("error", ())),
        ({"error": "InvalidRequest", "message": "x"}, ("error", ())),
    ],
)
def test_what_is_no_post_is_told_by_its_kind_and_the_posts_that_must_go(tmp_path, line, told):
    assert [(item.kind, item.deleted) for item in read(dump(tmp_path, line))] == [told]


def test_an_update_is_an_edit_and_a_time_ahead_of_the_stream_is_set_back(tmp_path):
    changed = event("update", record=record(createdAt="2030-01-01T00:00:00Z"))
    post = one(tmp_path, changed)
    assert post.flags == {"edited"}
    assert post.created_at == datetime(2024, 3, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "name",
    [
        "at://did:plc:x/app.bsky.feed.post/../../etc",
        "at://did:plc:x/app.bsky.feed.post/a\0",
        "at://alice.example.org/app.bsky.feed.post/3",
        "https://bsky.app/profile/x/post/3",
        7,
    ],
)
def test_a_record_with_an_address_that_is_none_is_malformed(tmp_path, name):
    (item,) = read(dump(tmp_path, {"uri": name, **record()}))
    assert isinstance(item, Malformed)


def test_ids_and_keys_make_names_of_files_that_stay_apart(tmp_path):
    names = [file_name(f"{uri(key, did)}_{CID}") for key in ("3k", "3K") for did in (DID, OTHER)]
    assert len(set(names)) == 4 and all(len(name) < 200 and "/" not in name for name in names)


def test_pictures_known_by_content_alone_get_an_address_on_request(tmp_path):
    post = one(tmp_path, view("3", FULL), cdn="https://cdn.example.org/{did}/{cid}@jpeg")
    assert post.media[0].url == f"https://cdn.example.org/{DID}/{CID}@jpeg"
    with pytest.raises(ConfigError, match=r"source\.cdn"):
        bluesky.read(tmp_path / "a.jsonl", cdn="https://cdn.example.org/")
    with pytest.raises(ConfigError, match="Did you mean cdn"):
        read_posts("bluesky", tmp_path, cnd="")


def cid(block: bytes) -> bytes:
    return b"\x01\x71\x12\x20" + hashlib.sha256(block).digest()


def varint(number: int) -> bytes:
    out = b""
    while number >= 128:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


class Repository:
    """A small CAR file, as a personal data server exports it."""

    def __init__(self) -> None:
        self.blocks: dict[bytes, bytes] = {}

    def add(self, value: object) -> bytes:
        block = libipld.encode_dag_cbor(value)
        self.blocks[cid(block)] = block
        return cid(block)  # which the encoder writes as a link

    def write(self, path: Path, tree: object, did: object = DID) -> Path:
        root = self.add({"did": did, "version": 3, "data": tree, "rev": "3k", "prev": None, "sig": b"s"})
        header = libipld.encode_dag_cbor({"roots": [root], "version": 1})
        parts = [varint(len(header)), header]
        for name, block in self.blocks.items():
            parts += [varint(len(name) + len(block)), name, block]
        path.write_bytes(b"".join(parts))
        return path


POSTS = "app.bsky.feed.post"
BLOB = b"\x01\x55\x12\x20" + hashlib.sha256(b"a picture").digest()


def entry(before: str, key: str, value: bytes, right: bytes | None = None) -> dict:
    shared = next(n for n in range(len(key) + 1) if key[: n + 1] != before[: n + 1])
    return {"p": shared, "k": key[shared:].encode(), "v": value, "t": right}


def export(folder: Path) -> Path:
    """A like, then three posts in two layers, one with a picture, then a repost."""
    car = Repository()
    blob = {"$type": "blob", "ref": BLOB, "mimeType": "image/jpeg", "size": 9}
    pictured = record(
        "b", embed={"$type": "app.bsky.embed.images", "images": [{"alt": "x40", "image": blob}]}
    )
    values = [car.add(one) for one in ({"subject": {}}, record("a"), pictured, record("c"), {"subject": {}})]
    names = ["app.bsky.feed.like/1", f"{POSTS}/3a", f"{POSTS}/3b", f"{POSTS}/3c", "app.bsky.feed.repost/1"]
    left = car.add({"l": None, "e": [entry("", names[0], values[0]), entry(names[0], names[1], values[1])]})
    right = car.add({"l": None, "e": [entry("", names[3], values[3]), entry(names[3], names[4], values[4])]})
    return car.write(folder / "me.car", car.add({"l": left, "e": [entry("", names[2], values[2], right)]}))


def test_an_exported_repository_gives_its_posts_in_the_order_of_their_keys(tmp_path):
    items = read(export(tmp_path))
    assert [item.kind for item in items if isinstance(item, Notice)] == ["like", "repost"]
    posts = [item for item in items if isinstance(item, Post)]
    assert [(post.id, post.text) for post in posts] == [(uri(f"3{text}"), text) for text in "abc"]
    (media,) = posts[1].media
    assert (media.key, media.url, media.alt_text) == (libipld.encode_cid(BLOB), None, "x40")


def test_an_export_and_the_api_name_a_post_and_its_picture_alike(tmp_path):
    (exported,) = [item for item in read(export(tmp_path)) if isinstance(item, Post) and item.media]
    told = record(
        "b", embed={"$type": "app.bsky.embed.images", "images": [image(libipld.encode_cid(BLOB), "x40")]}
    )
    assert one(tmp_path, {"uri": uri("3b"), **told}) == exported


def test_a_file_that_is_no_repository_is_malformed(tmp_path, monkeypatch):
    for content in (b"", b"not a car", export(tmp_path).read_bytes()[:-7]):
        (tmp_path / "bad.car").write_bytes(content)
        (item,) = read(tmp_path / "bad.car")
        assert isinstance(item, Malformed)
    monkeypatch.setattr(bluesky_car, "MAX_CAR_BYTES", 100)
    (item,) = read(export(tmp_path))
    assert isinstance(item, Malformed) and "larger than" in item.reason


def test_a_tree_with_missing_nodes_records_and_wrong_prefixes_gives_what_it_holds(tmp_path):
    car = Repository()
    sound = car.add(record("a"))
    gone = cid(b"gone")
    entries = [
        entry("", f"{POSTS}/3a", sound, gone),
        {"p": 0, "k": f"{POSTS}/3b".encode(), "v": gone, "t": None},
    ]
    entries.append({"p": 999, "k": b"x", "v": sound, "t": None})
    items = read(car.write(tmp_path / "a.car", car.add({"l": gone, "e": entries})))
    assert [type(item).__name__ for item in items] == [
        "Malformed",
        "Post",
        "Malformed",
        "Malformed",
        "Malformed",
    ]


def test_a_deep_tree_is_read_without_recursion_and_shared_nodes_once(tmp_path):
    car = Repository()
    sound = car.add(record("a"))
    node = car.add({"l": None, "e": []})
    for number in range(3000):
        node = car.add({"l": node, "e": [{"p": 0, "k": f"{POSTS}/{number}".encode(), "v": sound, "t": None}]})
    assert len(read(car.write(tmp_path / "a.car", node))) == 3000
    wide = car.add({"l": node, "e": [{"p": 0, "k": f"{POSTS}/x".encode(), "v": sound, "t": node}]})
    assert len(read(car.write(tmp_path / "b.car", wide))) == 3002


@given(content=st.data())
def test_no_bytes_of_a_repository_crash_the_reader(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("fuzz")
    whole = bytearray(export(folder).read_bytes())
    for place in content.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        whole[place] = content.draw(st.integers(0, 255))
    (folder / "bad.car").write_bytes(whole)
    items = read(folder / "bad.car")
    assert items
    for item in items:
        if isinstance(item, Post):
            check_post(item)


@given(record=spoiled(view("3", FULL, embed={"record": {"record": {"uri": uri("1"), "value": record()}}})))
def test_a_view_with_anything_in_it_is_read_and_accounted_for(tmp_path_factory, record):
    check(bluesky.read, tmp_path_factory.mktemp("fuzz") / "a.jsonl", record)


@given(record=spoiled({"feed": [{"post": view("3"), "reply": {"root": view("1"), "parent": view("2")}}]}))
def test_a_feed_with_anything_in_it_is_read_and_accounted_for(tmp_path_factory, record):
    check(bluesky.read, tmp_path_factory.mktemp("fuzz") / "a.jsonl", record)


@given(record=spoiled(event("create", record=FULL)))
def test_an_event_with_anything_in_it_is_read_and_accounted_for(tmp_path_factory, record):
    check(bluesky.read, tmp_path_factory.mktemp("fuzz") / "a.jsonl", record)
