"""Reads dumps of Mastodon: statuses of the API, events of its streams, and exported outboxes.

A status is named by its id on the server that was asked; in an outbox by its address. What its author did not
publish, but showed to followers or to those addressed, is no post: it comes out as a `Notice`. The objects:
https://docs.joinmastodon.org/entities/Status/ and https://www.w3.org/TR/activitystreams-vocabulary/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pathclip.config import check_values
from pathclip.sources import mastodon_outbox
from pathclip.sources.dumps import JSON_SUFFIXES, Place, parse_json, read_objects, relative_folder
from pathclip.sources.fields import (
    a_dict,
    a_list,
    a_text,
    a_url,
    counts,
    dicts,
    distinct,
    parse_time,
    pseudonym,
    safe_name,
)
from pathclip.sources.mastodon_html import joined, plain_text
from pathclip.types import Malformed, Media, Notice, Post

SUFFIXES = JSON_SUFFIXES
PUBLIC = ("public", "unlisted")
_METRICS = {"favourites_count": "like_count", "reblogs_count": "repost_count", "replies_count": "reply_count"}
_MAX_ID = 64
_MAX_EMBEDDED = 10  # reblogs and quotes in one status, however deep they nest


def read(
    file: Path, referenced: bool = True, root: Path | None = None
) -> Iterator[Post | Malformed | Notice]:
    """Reads a file of the dump; a status comes out as often as it stands there.

    Args:
        file: lines of JSON, a timeline of the API as an array, or `outbox.json`; compressed or not.
        referenced: also yield the statuses that others boost or quote and that the dump carries in them,
            flagged 'referenced'.
        root: folder that the paths of an archive's pictures are relative to; the file's own by default.

    Raises:
        ConfigError: `referenced` is neither true nor false.
    """
    check_values({"source": {"referenced": referenced}}, {"source.referenced": bool})
    return read_objects(file, partial(_items, folder=relative_folder(file, root)), referenced)


def _items(entry: Mapping[str, Any], place: Place, folder: Path) -> Iterator[Post | Malformed | Notice]:
    if isinstance(entry.get("event"), str):
        yield from _event(entry, place)
    elif mastodon_outbox.is_activity(entry):
        yield from mastodon_outbox.items(entry, place, folder)
    elif pages := next((name for name in ("statuses", "ancestors", "descendants") if name in entry), None):
        yield from _page(entry, pages, place)
    elif isinstance(entry.get("error"), str):
        yield place.notice("error")
    else:
        yield from _statuses(entry, place)


def _page(entry: Mapping[str, Any], first: str, place: Place) -> Iterator[Post | Malformed | Notice]:
    """A search's result, or the context of a status."""
    found = [status for name in (first, "descendants") for status in a_list(entry, name)]
    if not found:
        yield place.notice("empty")
    for status in found:
        yield from _statuses(status if isinstance(status, dict) else {}, place)


def _event(entry: Mapping[str, Any], place: Place) -> Iterator[Post | Malformed | Notice]:
    """An event of a stream: https://docs.joinmastodon.org/methods/streaming/."""
    kind, payload = entry["event"], entry.get("payload")
    if kind == "delete":
        name = _id(payload)
        yield place.notice("deletion", (name,) if name else ())
        return
    if kind not in ("update", "status.update"):
        yield place.notice("stream")
        return
    try:
        status = parse_json(payload.encode(errors="replace")) if isinstance(payload, str) else payload
    except ValueError as error:
        yield place.malformed(str(error))
        return
    yield from _statuses(status if isinstance(status, dict) else {}, place)


def _statuses(entry: Mapping[str, Any], place: Place) -> Iterator[Post | Malformed | Notice]:
    """A status, and those that it boosts and quotes."""
    yield _status(entry, place)
    waiting = _embedded(entry)
    for _ in range(_MAX_EMBEDDED):
        if not waiting:
            break
        inner = waiting.pop(0)
        waiting += _embedded(inner)
        item = _status(inner, place)
        if isinstance(item, Post):
            yield replace(item, flags=item.flags | {"referenced"})


def _embedded(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    quote = a_dict(entry, "quote")
    found = (a_dict(entry, "reblog"), a_dict(quote, "quoted_status"), quote if "content" in quote else {})
    return [one for one in found if one]


def _status(entry: Mapping[str, Any], place: Place) -> Post | Malformed | Notice:
    name, content = _id(entry.get("id")), entry.get("content")
    if name is None or not isinstance(content, str):
        return place.malformed("a status without id or content")
    if entry.get("visibility", "public") not in PUBLIC:
        return place.notice("private")
    account = a_dict(entry, "account")
    author = a_text(account, "uri") or a_text(account, "url") or _id(account.get("id"))
    edited = parse_time(entry.get("edited_at"))
    quote = a_dict(entry, "quote")
    marks = {
        "retweet": bool(a_dict(entry, "reblog")),
        "quote": bool(quote),
        "sensitive": entry.get("sensitive") is True,
        "edited": edited is not None,
    }
    return Post(
        id=name,
        platform="mastodon",
        # The warning in front of a text is the author's too, and often its title.
        text=joined(a_text(entry, "spoiler_text"), plain_text(content)),
        author=pseudonym("mastodon", author) if author else "",
        created_at=parse_time(entry.get("created_at")),
        language=a_text(entry, "language"),
        media=tuple(_media(entry)),
        in_reply_to=_id(entry.get("in_reply_to_id")),
        metrics=counts(entry, _METRICS),
        hashtags=distinct(tag.get("name") for tag in dicts(entry, "tags")),
        flags=frozenset(mark for mark, holds in marks.items() if holds),
        quotes=_id(a_dict(quote, "quoted_status").get("id") or quote.get("id")),
    )


def _id(value: Any) -> str | None:
    """An id of the API: digits, or letters and digits on servers of other make."""
    text = str(value) if isinstance(value, str) or type(value) is int else ""
    plain = text.replace("-", "").replace("_", "")
    return text if plain.isascii() and plain.isalnum() and len(text) <= _MAX_ID else None


def _media(entry: Mapping[str, Any]) -> Iterator[Media]:
    """Pictures, and the stills of films."""
    seen = set()
    for one in dicts(entry, "media_attachments"):
        name, kind = _id(one.get("id")), one.get("type")
        if name is None or kind == "audio" or name in seen:
            continue
        seen.add(name)
        still = kind in ("video", "gifv")
        url = a_url(one, "preview_url") if still else a_url(one, "url") or a_url(one, "remote_url")
        yield Media(key=safe_name(name), url=url, alt_text=a_text(one, "description"))
