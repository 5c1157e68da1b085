"""Tweets of the Twitter API v1.1: streams, searches, timelines, and the account archive.

The objects: https://developer.x.com/en/docs/x-api/v1/data-dictionary/object-model/tweet. A tweet gives the
same post as its v2 form in every field that both carry; v1.1 has no conversation id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

from pathclip.sources.dumps import Place
from pathclip.sources.fields import (
    a_dict,
    a_list,
    a_text,
    a_url,
    counts,
    dicts,
    pseudonym,
    safe_name,
    well_formed,
)
from pathclip.sources.twitter_notices import other, tweet_id
from pathclip.sources.twitter_v2 import hashtags, versions
from pathclip.types import Malformed, Media, Notice, Post

# v1.1 name → v2 name.
_METRICS = {
    "retweet_count": "retweet_count",
    "reply_count": "reply_count",
    "favorite_count": "like_count",
    "quote_count": "quote_count",
}
# The number before '_' in a media key of v2. Advertisers' films are named by the address of their still.
_TYPES = {"photo": "3", "video": "7", "animated_gif": "16"}
_AMPLIFY = ("/amplify_video_thumb/", "13")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MAX_EMBEDDED = 100  # in one tweet, however deep they nest
_EMBEDDED = ("retweeted_status", "quoted_status")


def is_tweet(entry: Mapping[str, Any]) -> bool:
    """Whether an object is a tweet of v1.1: only there ids come twice, and the user in place."""
    text = isinstance(entry.get("full_text"), str) or isinstance(entry.get("text"), str)
    return text and ("id_str" in entry or "full_text" in entry or isinstance(entry.get("user"), dict))


def archived_media(file: Path, below: Path) -> Path | None:
    """The folder with the pictures of an account archive; None if there is none beside the file.

    Args:
        file: `tweets.js` or one of its parts.
        below: the file's folder as `Media.path` is to begin.
    """
    names = ("tweets_media", "tweet_media")
    return next((below / name for name in names if (file.parent / name).is_dir()), None)


def tweets(entry: Any, place: Place, folder: Path | None = None) -> Iterator[Post | Malformed | Notice]:
    """A tweet, and those that it retweets and quotes.

    Args:
        entry: the tweet object.
        place: where it stands.
        folder: with the pictures of an account archive.
    """
    content = entry if isinstance(entry, dict) else {}
    yield post(content, folder) or other(content, place) or place.malformed("a tweet without id or text")
    waiting = [a_dict(content, name) for name in _EMBEDDED]
    for _ in range(_MAX_EMBEDDED):
        if not waiting:
            break
        inner = waiting.pop(0)
        waiting += [a_dict(inner, name) for name in _EMBEDDED if name in inner]
        if tweet := post(inner):
            yield replace(tweet, flags=tweet.flags | {"referenced"})


def post(content: Mapping[str, Any], folder: Path | None = None) -> Post | None:
    """One tweet as a post; None without id or text.

    Args:
        content: the tweet object.
        folder: with the pictures of an account archive.
    """
    # Streams carry what goes beyond 140 signs, and all pictures, in an object of its own.
    full = {**content, **a_dict(content, "extended_tweet")}
    text = full.get("full_text") if isinstance(full.get("full_text"), str) else full.get("text")
    # As a number an id is often rounded: 2**53 is less than an id of today.
    name = tweet_id(content.get("id_str")) or tweet_id(content.get("id"))
    if name is None or not isinstance(text, str):
        return None
    author = _id(a_dict(content, "user"), "id")
    history = versions(_history(content))
    retweet = "retweeted_status" in content or "retweeted_status_id_str" in content
    tags = [entry.get("text") for entry in dicts(a_dict(full, "entities"), "hashtags")]
    quotes = _id(content, "quoted_status_id") or _id(a_dict(content, "quoted_status"), "id")
    marks = {
        "retweet": retweet,
        # A retweet of a quote names the quoted tweet too, but quotes nothing itself.
        "quote": quotes is not None and not retweet,
        "sensitive": content.get("possibly_sensitive") is True,
        "withheld": bool(a_list(content, "withheld_in_countries"))
        or content.get("withheld_copyright") is True,
        "edited": bool(history),
    }
    return Post(
        id=name,
        platform="twitter",
        text=well_formed(text),
        author=pseudonym("twitter", author) if author else "",
        created_at=parse_v1_time(content.get("created_at")),
        language=a_text(content, "lang"),
        media=tuple(_media(full, name, folder)),
        in_reply_to=_id(content, "in_reply_to_status_id"),
        metrics=counts({**content, **_as_numbers(content)}, _METRICS),
        hashtags=hashtags(tags, text),
        flags=frozenset(mark for mark, holds in marks.items() if holds),
        versions=history,
        quotes=None if retweet else quotes,
    )


def parse_v1_time(value: Any) -> datetime | None:
    """A time in UTC from 'Wed Oct 10 20:19:24 +0000 2018'; None where there is none or it is malformed.

    Not by `strptime`: that reads the names of the months in the machine's language.
    """
    try:
        _, month, day, clock, zone, year = value.split()
        hour, minute, second = clock.split(":")
        shift = timedelta(hours=int(zone[:3]), minutes=int(zone[0] + zone[3:5]))
        number = _MONTHS.index(month) + 1
        return datetime(int(year), number, int(day), int(hour), int(minute), int(second), tzinfo=UTC) - shift
    except (AttributeError, ValueError, OverflowError, IndexError):
        return None


def _id(content: Mapping[str, Any], key: str) -> str | None:
    return tweet_id(content.get(f"{key}_str")) or tweet_id(content.get(key))


def _as_numbers(content: Mapping[str, Any]) -> dict[str, int]:
    """The counts that an account archive gives as text."""
    texts = {name: tweet_id(content.get(name)) for name in _METRICS if isinstance(content.get(name), str)}
    return {name: int(text) for name, text in texts.items() if text is not None}


def _history(content: Mapping[str, Any]) -> list[Any]:
    """Ids of all versions: of the API in `edit_history`, of an account archive in `edit_info`."""
    info = a_dict(content, "edit_info")
    return (
        a_list(a_dict(content, "edit_history"), "edit_tweet_ids")
        or a_list(a_dict(info, "initial"), "editTweetIds")
        or a_list(a_dict(a_dict(info, "edit"), "editControlInitial"), "editTweetIds")
    )


def _media(content: Mapping[str, Any], tweet: str, folder: Path | None) -> Iterator[Media]:
    # `entities` knows the first picture only, and calls a film a photo.
    entries = dicts(a_dict(content, "extended_entities"), "media") or dicts(
        a_dict(content, "entities"), "media"
    )
    seen = set()
    for entry in entries:
        name = _id(entry, "id")
        if name is None or name in seen:
            continue
        seen.add(name)
        url = a_url(entry, "media_url_https") or a_url(entry, "media_url")
        kind = _AMPLIFY[1] if url and _AMPLIFY[0] in url else _TYPES.get(str(entry.get("type")), "3")
        path = None
        if folder is not None and url:
            path = str(folder / f"{tweet}-{safe_name(PurePosixPath(urlparse(url).path).name)}")
        yield Media(key=f"{kind}_{name}", path=path, url=url, alt_text=a_text(entry, "ext_alt_text"))
