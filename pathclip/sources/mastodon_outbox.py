"""The outbox of a Mastodon account's archive: a collection of ActivityStreams activities.

The archive holds the pictures beside `outbox.json`. It holds every status of the account, also what went to
followers or single persons only: such is no post.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from pathclip.sources.dumps import Place
from pathclip.sources.fields import (
    a_dict,
    a_list,
    a_text,
    a_url,
    dicts,
    distinct,
    parse_time,
    pseudonym,
    safe_name,
)
from pathclip.sources.mastodon_html import joined, plain_text
from pathclip.types import Malformed, Media, Notice, Post

_COLLECTIONS = ("OrderedCollection", "OrderedCollectionPage", "Collection", "CollectionPage")
_ACTIVITIES = ("Create", "Update", "Announce", "Delete", "Undo", "Add", "Remove", "Like", "Follow", "Accept")
_POSTS = ("Note", "Article", "Question", "Image", "Video", "Page")
# How ActivityStreams names everybody.
_PUBLIC = {"https://www.w3.org/ns/activitystreams#Public", "as:Public", "Public"}
_ADDRESS = re.compile(r"https?://[A-Za-z0-9.-]{1,253}(?::\d{1,5})?/[!-~]{1,500}")
# /media_attachments/files/109/876/543/210/987/654/original/0123456789abcdef.png: the digits are its id.
_STORED = re.compile(r"media_attachments/files/((?:\d{1,3}/)+)original/")


def is_activity(entry: Mapping[str, Any]) -> bool:
    """Whether an object is of ActivityStreams: a collection, an activity, a status or what is left of it."""
    return entry.get("type") in (*_COLLECTIONS, *_ACTIVITIES, *_POSTS, "Tombstone")


def items(entry: Mapping[str, Any], place: Place, folder: Path) -> Iterator[Post | Malformed | Notice]:
    """The posts of a collection, an activity or an object.

    Args:
        entry: as it stands in the outbox.
        place: where.
        folder: of the archive, as `Media.path` is to begin.
    """
    if entry.get("type") not in _COLLECTIONS:
        yield from _activity(entry, place, folder)
        return
    name = next((key for key in ("orderedItems", "items") if isinstance(entry.get(key), list)), None)
    activities = entry[name] if name else []
    if not activities:
        yield place.notice("empty")
    for activity in activities:
        if isinstance(activity, dict):
            yield from _activity(activity, place, folder)
        else:
            yield place.no_object(activity)


def _activity(entry: Mapping[str, Any], place: Place, folder: Path) -> Iterator[Post | Malformed | Notice]:
    kind, inner = entry.get("type"), a_dict(entry, "object")
    if kind in ("Delete", "Tombstone"):
        name = entry.get("id") if kind == "Tombstone" else inner.get("id") or entry.get("object")
        yield place.notice("deletion", (name,) if (name := _address(name)) else ())
    elif kind == "Announce":
        yield place.notice("boost")  # it has no text of its own, and mostly only names what it repeats
        item = _object(inner, place, folder)
        if isinstance(item, Post):
            yield replace(item, flags=item.flags | {"referenced"})
    elif kind in ("Create", "Update"):
        item = _object(inner, place, folder)
        if kind == "Update" and isinstance(item, Post):
            item = replace(item, flags=item.flags | {"edited"})
        yield item
    elif kind in _POSTS:
        yield _object(entry, place, folder)
    elif kind in _ACTIVITIES:
        yield place.notice("activity")
    else:
        yield place.malformed(f"an object of the unknown type {str(kind)[:40]!r}")


def _object(entry: Mapping[str, Any], place: Place, folder: Path) -> Post | Malformed | Notice:
    """A Note and the like: https://docs.joinmastodon.org/spec/activitypub/#Status."""
    name, content = _address(entry.get("id")), entry.get("content")
    if entry.get("type") == "Tombstone":
        return place.notice("deletion", (name,) if name else ())
    if name is None or not isinstance(content, str):
        return place.malformed("a status without id or content")
    if not _PUBLIC & {*_recipients(entry, "to"), *_recipients(entry, "cc")}:
        return place.notice("private")
    author = a_text(entry, "attributedTo")
    quotes = any(a_text(entry, key) for key in ("quote", "quoteUrl", "quoteUri", "_misskey_quote"))
    languages = a_dict(entry, "contentMap")
    marks = {
        "quote": quotes,
        "sensitive": entry.get("sensitive") is True,
        "edited": parse_time(entry.get("updated")) is not None,
    }
    tags = [tag.get("name") for tag in dicts(entry, "tag") if tag.get("type") == "Hashtag"]
    return Post(
        id=name,
        platform="mastodon",
        text=joined(a_text(entry, "summary"), plain_text(content)),
        author=pseudonym("mastodon", author) if author else "",
        created_at=parse_time(entry.get("published")),
        language=next(iter(distinct(languages)), None),
        media=tuple(_media(entry, folder)),
        in_reply_to=_address(entry.get("inReplyTo")),
        hashtags=distinct(tag.removeprefix("#") for tag in tags if isinstance(tag, str)),
        flags=frozenset(mark for mark, holds in marks.items() if holds),
    )


def _address(value: Any) -> str | None:
    return value if isinstance(value, str) and _ADDRESS.fullmatch(value) else None


def _recipients(entry: Mapping[str, Any], key: str) -> list[str]:
    value = entry.get(key)
    return [value] if isinstance(value, str) else [one for one in a_list(entry, key) if isinstance(one, str)]


def _media(entry: Mapping[str, Any], folder: Path) -> Iterator[Media]:
    seen = set()
    for one in dicts(entry, "attachment"):
        place, kind = a_text(one, "url"), str(one.get("mediaType"))
        if not place or not kind.startswith(("image/", "video/")):
            continue
        url = a_url(one, "url")
        # In an archive the address is a path below it, written as from its root.
        inside = PurePosixPath(place.lstrip("/")) if url is None else None
        if inside is not None and ".." in inside.parts:
            continue
        stored = _STORED.search(place)
        key = stored[1].replace("/", "") if stored else safe_name(place.lstrip("/"))
        if key not in seen:
            seen.add(key)
            path = str(folder / inside) if inside is not None else None
            yield Media(key=key, path=path, url=url, alt_text=a_text(one, "name"))
