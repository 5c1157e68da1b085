"""Reads dumps of Twitter/X: API v2 and v1.1, streams, compliance, and the account archive's `tweets.js`.

What a line is shows in its keys, so one file may hold several kinds. Texts stay as the API gives them, with
`&amp;`, `&lt;` and `&gt;`: the cleaner undoes them, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pathclip.config import check_values
from pathclip.sources import twitter_notices, twitter_v1, twitter_v2
from pathclip.sources.dumps import JSON_SUFFIXES, Place, read_objects, relative_folder
from pathclip.types import Malformed, Notice, Post

SUFFIXES = (
    *JSON_SUFFIXES,
    # Of an account archive, which holds many other scripts.
    *("tweet.js", "tweets.js", "tweets-part*.js", "community-tweet*.js", "deleted-tweet*.js"),
)
_KEYS_TOLD = 5
_WRAPPED = ("statuses", "results")  # pages of the v1.1 search, standard and premium


def read(
    file: Path, referenced: bool = True, root: Path | None = None
) -> Iterator[Post | Malformed | Notice]:
    """Reads a file of the dump; a tweet comes out as often as it stands there, in each of its versions.

    Args:
        file: lines of JSON or one JSON document, compressed or not.
        referenced: also yield the tweets that others reply to, quote or retweet and that the dump
            carries in `includes` or in place, flagged 'referenced'.
        root: folder that the paths of an archive's pictures are relative to; the file's own by default.

    Raises:
        ConfigError: `referenced` is neither true nor false.
    """
    check_values({"source": {"referenced": referenced}}, {"source.referenced": bool})
    folder = twitter_v1.archived_media(file, relative_folder(file, root))
    return read_objects(file, partial(_items, folder=folder), referenced)


def _items(
    entry: Mapping[str, Any], place: Place, folder: Path | None
) -> Iterator[Post | Malformed | Notice]:
    """The tweets of one page, stream object or line, and what else it says."""
    if isinstance(entry.get("data"), dict | list):
        yield from twitter_v2.page(entry, place)
    elif twitter_v1.is_tweet(entry):
        yield from twitter_v1.tweets(entry, place)
    elif isinstance(entry.get("tweet"), dict):
        yield from _archived(entry["tweet"], place, folder)
    elif notice := twitter_notices.notice(entry, place):
        yield notice
    elif "text" in entry or "id" in entry:
        yield from twitter_v2.flattened(entry, place)
    elif wrapped := next((name for name in _WRAPPED if isinstance(entry.get(name), list)), None):
        for status in entry[wrapped]:
            yield from twitter_v1.tweets(status, place)
        if not entry[wrapped]:
            yield place.notice("empty")
    else:
        yield place.malformed(f"no tweet: keys {', '.join(map(repr, sorted(entry)[:_KEYS_TOLD]))}")


def _archived(
    tweet: Mapping[str, Any], place: Place, folder: Path | None
) -> Iterator[Post | Malformed | Notice]:
    """A tweet of an account archive; of a deleted one only that it is, whatever it once said."""
    if "deleted_at" in tweet or place.file.lower().startswith("deleted-"):
        yield place.notice("deletion", twitter_notices.ids(tweet))
    else:
        yield from twitter_v1.tweets(tweet, place, folder)
