"""Tweets of the Twitter/X API v2: raw pages, flattened lines, streams, single tweets.

The objects are described at https://docs.x.com/x-api/fundamentals/data-dictionary. Expansions stand in
`includes` of a page, or in place where a tool such as twarc has flattened it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pathclip.sources import twitter_notices
from pathclip.sources.dumps import Place
from pathclip.sources.fields import (
    MAX_COUNT,
    a_dict,
    a_list,
    a_text,
    a_url,
    dicts,
    distinct,
    parse_time,
    pseudonym,
    safe_name,
    well_formed,
)
from pathclip.sources.twitter_notices import tweet_id
from pathclip.types import Malformed, Media, Notice, Post

MediaByKey = Mapping[str, Mapping[str, Any]]
_HASHTAG = re.compile(r"(?<![\w&])[#＃](\w+)")
_MAX_REFERENCED = 100  # of one flattened tweet, however deep they nest


def page(entry: Mapping[str, Any], place: Place) -> Iterator[Post | Malformed | Notice]:
    """The tweets of a page or of an object of a stream, first those asked for, then those referred to."""
    data = entry["data"]
    if isinstance(data, dict) and "id" not in data and (told := twitter_notices.event(data, place)):
        yield told
        return
    includes = a_dict(entry, "includes")
    media = _by_key(includes)
    found = data if isinstance(data, list) else [data]
    for content in found:
        yield _primary(content if isinstance(content, dict) else {}, media, place)
    for content in dicts(includes, "tweets"):
        if tweet := post(content, media):
            yield replace(tweet, flags=tweet.flags | {"referenced"})
    yield from twitter_notices.errors(entry, place)
    if not found:
        yield place.notice("empty")


def flattened(content: Mapping[str, Any], place: Place) -> Iterator[Post | Malformed | Notice]:
    """A tweet by itself, and those that flattening has put in place of the references to them."""
    yield _primary(content, {}, place)
    waiting = dicts(content, "referenced_tweets")
    for _ in range(_MAX_REFERENCED):
        if not waiting:
            break
        inner = waiting.pop(0)
        waiting += dicts(inner, "referenced_tweets")
        if tweet := post(inner, {}):
            yield replace(tweet, flags=tweet.flags | {"referenced"})


def _primary(content: Mapping[str, Any], media: MediaByKey, place: Place) -> Post | Malformed | Notice:
    return (
        post(content, media)
        or twitter_notices.other(content, place)
        or place.malformed("a tweet without id or text")
    )


def post(content: Mapping[str, Any], media: MediaByKey) -> Post | None:
    """One tweet as a post; None without id or text.

    Args:
        content: the tweet object.
        media: of the page, by key.
    """
    name, text = tweet_id(content.get("id")), content.get("text")
    if name is None or not isinstance(text, str):
        return None
    note = a_dict(content, "note_tweet")
    if isinstance(note.get("text"), str):
        text = note["text"]
    references = {
        str(entry.get("type")): tweet_id(entry.get("id")) for entry in dicts(content, "referenced_tweets")
    }
    author = content.get("author_id")
    history = versions(a_list(content, "edit_history_tweet_ids"))
    tags = [
        entry.get("tag")
        for holder in (content, note)
        for entry in dicts(a_dict(holder, "entities"), "hashtags")
    ]
    metrics = a_dict(content, "public_metrics")
    marks = {
        "retweet": "retweeted" in references,
        "quote": "quoted" in references,
        "sensitive": content.get("possibly_sensitive") is True,
        "withheld": bool(content.get("withheld")),
        "edited": bool(history),
    }
    return Post(
        id=name,
        platform="twitter",
        text=well_formed(text),
        author=pseudonym("twitter", str(author)) if author else "",
        created_at=parse_time(content.get("created_at")),
        language=a_text(content, "lang"),
        media=tuple(_media(content, media)),
        in_reply_to=references.get("replied_to"),
        quotes=references.get("quoted"),
        conversation=tweet_id(content.get("conversation_id")),
        metrics={
            well_formed(name): value
            for name, value in metrics.items()
            if type(value) is int and 0 <= value < MAX_COUNT
        },
        hashtags=hashtags(tags, text),
        flags=frozenset(mark for mark, holds in marks.items() if holds),
        versions=history,
    )


def versions(history: list[Any]) -> tuple[str, ...]:
    """Ids of all versions of an edited tweet, the oldest first; of one that was never edited none."""
    names = {name for value in history if (name := tweet_id(value))}
    # Ids are snowflakes: they grow with time, and as strings of digits they compare by length first.
    return tuple(sorted(names, key=lambda name: (len(name), name))) if len(names) > 1 else ()


def hashtags(tags: list[Any], text: str) -> tuple[str, ...]:
    """The hashtags that the API found, else those in the text: a dump may lack the field `entities`."""
    return distinct(tags) or distinct(_HASHTAG.findall(text) if "#" in text or "＃" in text else ())


def _by_key(holder: Mapping[str, Any]) -> MediaByKey:
    return {str(entry["media_key"]): entry for entry in dicts(holder, "media") if "media_key" in entry}


def _media(content: Mapping[str, Any], known: MediaByKey) -> Iterator[Media]:
    attachments = a_dict(content, "attachments")
    if not attachments:
        return
    inline = _by_key(attachments)
    keys = [key for key in a_list(attachments, "media_keys") if isinstance(key, str) and key] or list(inline)
    for key in dict.fromkeys(keys):
        entry = inline.get(key) or known.get(key) or {}
        yield Media(
            key=safe_name(key),
            url=a_url(entry, "url") or a_url(entry, "preview_image_url"),
            alt_text=a_text(entry, "alt_text"),
        )
