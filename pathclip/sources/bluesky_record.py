"""Records of Bluesky's `app.bsky.feed.post`, and what the API shows beside them, as posts.

The lexicon: https://github.com/bluesky-social/atproto/tree/main/lexicons/app/bsky.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from pathclip.sources.fields import (
    a_count,
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
    well_formed,
)
from pathclip.types import Media, Post

POSTS = "app.bsky.feed.post"
_DID = r"did:[a-z]{1,20}:[A-Za-z0-9._:%-]{1,200}"
_ADDRESS = re.compile(rf"at://({_DID})/([A-Za-z0-9.-]{{1,300}})/([A-Za-z0-9._~:-]{{1,100}})")
_CID_IN_URL = re.compile(r"/(baf[a-z2-7]{20,100})(?:[@/]|$)")
_SENSITIVE = {"porn", "sexual", "nudity", "graphic-media", "gore", "!warn"}
_WITHHELD = {"!hide", "!takedown"}
_METRICS = {
    "likeCount": "like_count",
    "repostCount": "repost_count",
    "replyCount": "reply_count",
    "quoteCount": "quote_count",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """What the API or a stream tells of a post beside its record.

    Attributes:
        seen: when the platform first saw it; authors may claim any time.
        pictures: content id → address.
        labels: of moderators and of the author.
        metrics: by our names.
    """

    seen: datetime | None = None
    pictures: Mapping[str, str] = field(default_factory=dict)
    labels: frozenset[str] = frozenset()
    metrics: Mapping[str, int] = field(default_factory=dict)


def address(did: Any, collection: Any, key: Any) -> str | None:
    """The address of a record; None unless it is well-formed."""
    name = f"at://{did}/{collection}/{key}"
    return name if _ADDRESS.fullmatch(name) else None


def parse_address(name: str) -> tuple[str, str, str] | None:
    """The parts (did, collection, key) of an address; None unless it is well-formed."""
    match = _ADDRESS.fullmatch(name)
    return (match[1], match[2], match[3]) if match else None


def shown(view: Mapping[str, Any]) -> Shown:
    """What a view of the API tells beside the record."""
    views = [a_dict(view, "embed"), *dicts(view, "embeds")]
    pictures = [picture for one in views for picture in _views_of_pictures(one)]
    labels = _labels(dicts(view, "labels"))
    return Shown(parse_time(view.get("indexedAt")), dict(pictures), labels, counts(view, _METRICS))


def quoted(view: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The views of posts that a view shows as quoted."""
    embed = a_dict(view, "embed")
    for one in (a_dict(embed, "record"), a_dict(a_dict(embed, "record"), "record")):
        if a_dict(one, "value"):
            yield one


def post(name: str, record: Mapping[str, Any], shown: Shown) -> Post | None:
    """A record as a post; None without text.

    Args:
        name: its address.
        record: of `app.bsky.feed.post`.
        shown: what else is known.
    """
    text, parts = record.get("text"), parse_address(name)
    if not isinstance(text, str) or parts is None or record.get("$type", POSTS) != POSTS:
        return None
    reply, facets = a_dict(record, "reply"), dicts(record, "facets")
    embed = a_dict(record, "embed")
    quotes = _quoted_address(embed)
    labels = shown.labels | _labels(dicts(a_dict(record, "labels"), "values"))
    marks = {
        "quote": POSTS in str(quotes),
        "sensitive": bool(labels & _SENSITIVE),
        "withheld": bool(labels & _WITHHELD),
    }
    tags = [feature.get("tag") for facet in facets for feature in dicts(facet, "features")]
    created = parse_time(record.get("createdAt"))
    return Post(
        id=name,
        platform="bluesky",
        text=_with_whole_links(well_formed(text), facets),
        author=pseudonym("bluesky", parts[0]),
        created_at=min(created, shown.seen) if created and shown.seen else created or shown.seen,
        language=next(iter(distinct(a_list(record, "langs"))), None),
        media=tuple(_media(embed, shown)),
        in_reply_to=_post_address(a_dict(reply, "parent")),
        conversation=_post_address(a_dict(reply, "root")),
        metrics=shown.metrics,
        hashtags=distinct([*tags, *a_list(record, "tags")]),
        flags=frozenset(mark for mark, holds in marks.items() if holds),
        quotes=quotes if POSTS in str(quotes) else None,
    )


def with_addresses(found: Post, cdn: str | None) -> Post:
    """The post with an address for each picture that is known by its content alone."""
    if cdn is None or all(one.url for one in found.media):
        return found
    parts = parse_address(found.id)
    did = parts[0] if parts else ""
    media = [
        one if one.url else replace(one, url=cdn.replace("{did}", did).replace("{cid}", one.key))
        for one in found.media
    ]
    return replace(found, media=tuple(media))


def _with_whole_links(text: str, facets: list[Mapping[str, Any]]) -> str:
    """The text with each link that it shows cut ('example.org/a-long…') in full: one can then tell it is one.

    Facets count bytes of UTF-8. Words that merely carry a link stay.
    """
    links = [
        (a_count(index, "byteStart"), a_count(index, "byteEnd"), url)
        for facet in facets
        for feature in dicts(facet, "features")
        if (url := a_url(feature, "uri")) and (index := a_dict(facet, "index"))
    ]
    if not links:
        return text
    content, done = text.encode(), len(text.encode())
    for start, end, url in sorted(links, key=lambda link: link[0] or 0, reverse=True):
        if start is None or end is None or not 0 <= start < end <= done:
            continue
        stem = content[start:end].decode(errors="replace").removesuffix("...").removesuffix("…")
        if stem and url.partition("://")[2].removeprefix("www.").startswith(stem.removeprefix("www.")):
            content = content[:start] + url.encode() + content[end:]
            done = start
    return content.decode(errors="replace")


def _post_address(reference: Mapping[str, Any]) -> str | None:
    name = a_text(reference, "uri")
    return name if name and (parts := parse_address(name)) and parts[1] == POSTS else None


def _quoted_address(embed: Mapping[str, Any]) -> str | None:
    record = a_dict(embed, "record")
    return a_text(record, "uri") or a_text(a_dict(record, "record"), "uri")


def _labels(labels: list[Mapping[str, Any]]) -> frozenset[str]:
    """The values of the labels that stand; one with `neg` takes an earlier one back."""
    values = {
        label["val"]: label.get("neg") is not True for label in labels if isinstance(label.get("val"), str)
    }
    return frozenset(value for value, stands in values.items() if stands)


def _media(embed: Mapping[str, Any], shown: Shown) -> Iterator[Media]:
    """Pictures and films of the post itself: not those of what it quotes, nor the preview of a link."""
    holders = [embed, a_dict(embed, "media")]
    blobs = [(entry, entry.get("image")) for holder in holders for entry in dicts(holder, "images")]
    blobs += [(holder, holder.get("video")) for holder in holders if "video" in holder]
    seen = set()
    for entry, blob in blobs:
        cid = _cid(blob)
        if cid is not None and cid not in seen:
            seen.add(cid)
            yield Media(key=safe_name(cid), url=shown.pictures.get(cid), alt_text=a_text(entry, "alt"))


def _cid(blob: Any) -> str | None:
    """The content id of a blob: in JSON `ref.$link`, in CBOR bytes, in the oldest records `cid`."""
    if not isinstance(blob, dict):
        return None
    reference = blob.get("ref")
    if isinstance(reference, bytes):
        from libipld import encode_cid

        try:
            return str(encode_cid(reference))
        except ValueError:
            return None
    return a_text(reference, "$link") if isinstance(reference, dict) else a_text(blob, "cid")


def _views_of_pictures(embed: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for holder in (embed, a_dict(embed, "media")):
        for view in dicts(holder, "images"):
            url = a_url(view, "fullsize") or a_url(view, "thumb")
            if url and (match := _CID_IN_URL.search(url)):
                yield match[1], url
        url, cid = a_url(holder, "thumbnail"), a_text(holder, "cid")
        if url and cid:
            yield cid, url
