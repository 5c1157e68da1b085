"""Reads dumps of Bluesky: JSON of the API, Jetstream events, and exported repositories (CAR).

A post's id is its address `at://<did>/app.bsky.feed.post/<key>`: replies and deletions name it so. A repost
has neither text nor pictures of its own, so it comes out as a `Notice`; the post that a feed shows for it
comes out as 'referenced'. The objects: https://docs.bsky.app/docs/category/http-reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pathclip.config import check_values
from pathclip.errors import ConfigError
from pathclip.sources import bluesky_car, bluesky_record
from pathclip.sources.bluesky_record import POSTS, Shown, address
from pathclip.sources.compressed import plain_name
from pathclip.sources.dumps import JSON_SUFFIXES, Place, read_objects
from pathclip.sources.fields import a_dict, a_text, dicts, from_unix
from pathclip.types import Malformed, Notice, Post

SUFFIXES = (*JSON_SUFFIXES, ".car")
_MAX_POSTS = 100_000  # of one page or thread
_OPERATIONS = {"c": "create", "u": "update", "d": "delete"}  # as the first version of Jetstream called them
_PAGES = ("posts", "feed", "records", "thread")


def read(file: Path, referenced: bool = True, cdn: str | None = None) -> Iterator[Post | Malformed | Notice]:
    """Reads a file of the dump; a post comes out as often as it stands there.

    Args:
        file: lines of JSON, a page of the API, or a `.car`; compressed or not.
        referenced: also yield the posts that others answer, quote or repost and that the dump shows with
            them, flagged 'referenced'.
        cdn: address that serves the pictures which the dump knows by their content alone, with `{did}` and
            `{cid}`; without it such pictures have no address.

    Raises:
        ConfigError: `cdn` is no such address, or `referenced` neither true nor false.
    """
    check_values(
        {"source": {"referenced": referenced, "cdn": cdn}},
        {"source.referenced": bool, "source.cdn": str | None},
    )
    if cdn is not None and not (cdn.startswith("https://") and "{did}" in cdn and "{cid}" in cdn):
        raise ConfigError(f"source.cdn: expected an https address with {{did}} and {{cid}}, got {cdn!r}")
    exported = plain_name(file).endswith(".car")
    found = _exported(file) if exported else read_objects(file, _items, referenced)
    return (bluesky_record.with_addresses(one, cdn) if isinstance(one, Post) else one for one in found)


def _exported(file: Path) -> Iterator[Post | Malformed | Notice]:
    for number, did, collection, key, record in bluesky_car.records(file):
        place = Place(file.name, number)
        if isinstance(record, str):
            yield place.malformed(record)
        else:
            yield _record(address(did, collection, key), collection, record, Shown(), place)


def _items(entry: Mapping[str, Any], place: Place) -> Iterator[Post | Malformed | Notice]:
    if isinstance(entry.get("did"), str) and ("commit" in entry or "kind" in entry or "time_us" in entry):
        yield _event(entry, place)
        return
    name = next((name for name in _PAGES if isinstance(entry.get(name), list | dict)), None)
    if name is None:
        yield from _feed_item(entry, place)
        return
    found = entry[name] if isinstance(entry[name], list) else [entry[name]]
    if not found:
        yield place.notice("empty")
    for inner in found:
        if not isinstance(inner, dict):
            yield place.no_object(inner)
        elif name == "thread":
            yield from _thread(inner, place)
        else:
            yield from _feed_item(inner, place)


def _event(entry: Mapping[str, Any], place: Place) -> Post | Malformed | Notice:
    """A Jetstream event: https://github.com/bluesky-social/jetstream."""
    commit = a_dict(entry, "commit")
    if not commit:
        return place.notice("user")
    operation = a_text(commit, "operation") or _OPERATIONS.get(str(commit.get("type")), "")
    collection = str(commit.get("collection"))
    name = address(entry["did"], collection, commit.get("rkey"))
    if operation == "delete":
        if collection != POSTS:
            return place.notice("undone")
        return place.notice("deletion", (name,)) if name else place.malformed("a deletion without address")
    item = _record(
        name, collection, a_dict(commit, "record"), Shown(seen=from_unix(entry.get("time_us"))), place
    )
    if operation == "update" and isinstance(item, Post):
        item = replace(item, flags=item.flags | {"edited"})
    return item


def _thread(entry: Mapping[str, Any], place: Place) -> Iterator[Post | Malformed | Notice]:
    waiting = [entry]
    for _ in range(_MAX_POSTS):
        if not waiting:
            return
        inner = waiting.pop()
        yield from _feed_item(inner, place)
        parent = a_dict(inner, "parent")
        waiting += [*reversed(dicts(inner, "replies")), *([parent] if parent else [])]
    yield place.malformed(f"a thread of more than {_MAX_POSTS} posts; the rest is not read")


def _feed_item(entry: Mapping[str, Any], place: Place) -> Iterator[Post | Malformed | Notice]:
    """A post as a feed, a search or a listing shows it, and those that it is shown with."""
    if entry.get("notFound") is True or entry.get("blocked") is True or isinstance(entry.get("error"), str):
        yield place.notice("error")
        return
    view = a_dict(entry, "post") or entry
    reposted = str(a_dict(entry, "reason").get("$type", "")).endswith("#reasonRepost")
    item = _view(view, place)
    if isinstance(item, Post) and reposted:
        item = replace(item, flags=item.flags | {"referenced"})
    yield item
    if reposted:
        yield place.notice("repost")
    others = [
        *bluesky_record.quoted(view),
        *(a_dict(a_dict(entry, "reply"), key) for key in ("root", "parent")),
    ]
    for other in others:
        shown = _view(other, place)
        if isinstance(shown, Post):
            yield replace(shown, flags=shown.flags | {"referenced"})


def _view(view: Mapping[str, Any], place: Place) -> Post | Malformed | Notice:
    """A post with what the API shows of it, or a record with its address."""
    record = next((a_dict(view, key) for key in ("record", "value") if a_dict(view, key)), view)
    name = a_text(view, "uri") or address(view.get("did"), POSTS, view.get("rkey"))
    if name is not None and (parts := bluesky_record.parse_address(name)):
        return _record(name, parts[1], record, bluesky_record.shown(view), place)
    return place.malformed("a record without address")


def _record(
    name: str | None, collection: str, record: Mapping[str, Any], shown: Shown, place: Place
) -> Post | Malformed | Notice:
    if collection != POSTS:
        # A like, a follow, a repost …: what the last part of the collection's name says.
        kind = collection.rpartition(".")[2]
        return place.notice(kind if kind.isascii() and kind.isalnum() and len(kind) <= 40 else "record")
    if name is None:
        return place.malformed("a post without a well-formed address")
    return bluesky_record.post(name, record, shown) or place.malformed("a post without text")
