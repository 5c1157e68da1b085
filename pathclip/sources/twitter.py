"""Reads dumps of the Twitter/X API v2: raw pages, flattened lines, streams, single tweets.

The objects are described at https://docs.x.com/x-api/fundamentals/data-dictionary. Expansions stand in
`includes` of a page, or in place where a tool such as twarc has flattened it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pathclip.sources.dumps import find_dumps, parse_json, read_lines, well_formed
from pathclip.types import Malformed, Media, Post

SUFFIXES = (".jsonl", ".json", ".ndjson")
_HASHTAG = re.compile(r"(?<![\w&])[#＃](\w+)")
_EDITS = re.compile(rb'"edit_history_tweet_ids"\s*:\s*\[([^\]]*)\]')


def read(path: Path, referenced: bool = True) -> Iterator[Post | Malformed]:
    """Reads every distinct tweet once; of an edited one the last version that the dump holds.

    Args:
        path: a file, or a folder of `.jsonl`, `.json` or `.ndjson` files, gzipped or not.
        referenced: also yield the tweets that others reply to, quote or retweet and that the dump
            carries in `includes`. They come after the others, unless the dump holds them anyway.

    Raises:
        DataError: no such file, or no dump in the folder; raised at once.
    """
    return _read(find_dumps(path, SUFFIXES), referenced)


def _read(files: list[Path], referenced: bool) -> Iterator[Post | Malformed]:
    chain_of = _edit_chains(files)
    seen: set[str] = set()
    edited: dict[str, Post] = {}
    included: dict[str, Post] = {}
    for file in files:
        for number, tweets, reason in _tweets(file):
            if reason:
                yield Malformed(file.name, number, reason)
            for tweet in tweets:
                post = _post(tweet)
                if post is None:
                    if tweet.primary:
                        yield Malformed(file.name, number, "a tweet without id or text")
                elif post.id in chain_of:
                    chain = chain_of[post.id]
                    if chain not in edited or _age(post.id) > _age(edited[chain].id):
                        edited[chain] = post
                elif not tweet.primary:
                    included.setdefault(post.id, post)
                elif post.id not in seen:
                    seen.add(post.id)
                    yield post
    for post in edited.values():
        yield replace(post, flags=post.flags | {"edited"})
    if referenced:
        yield from (post for name, post in included.items() if name not in seen)


def _edit_chains(files: list[Path]) -> dict[str, str]:
    """Maps the id of every version of an edited tweet to the id of its first version.

    A version that was collected before the edit does not know of it, hence the pass over all files.
    """
    chain_of: dict[str, str] = {}
    for file in files:
        for _, line in read_lines(file):
            for match in _EDITS.finditer(line):
                versions = re.findall(r"\d+", match.group(1).decode("ascii", "ignore"))
                if len(versions) > 1:
                    chain_of.update(dict.fromkeys(versions, min(versions, key=_age)))
    return chain_of


def _age(tweet_id: str) -> tuple[int, str]:
    # Ids are snowflakes: they grow with time, and as strings of digits they compare by length first.
    return len(tweet_id), tweet_id


@dataclass(frozen=True, slots=True)
class _Tweet:
    content: Mapping[str, Any]
    media: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    primary: bool = True


def _tweets(file: Path) -> Iterator[tuple[int, list[_Tweet], str]]:
    """Yields (line, tweets, what was wrong) for each line, or for a whole pretty-printed JSON file."""
    name = file.name.lower().removesuffix(".gz")
    if name.endswith(".json"):
        lines = [line for _, line in read_lines(file)]
        try:
            content = parse_json(b"\n".join(lines)) if len(lines) > 1 else None
        except ValueError:
            content = None  # lines of JSON under the name .json
        if content is not None:
            for item in content if isinstance(content, list) else [content]:
                yield 1, *_unpack(item)
            return
    for number, line in read_lines(file):
        try:
            content = parse_json(line)
        except ValueError as error:
            yield number, [], str(error)
            continue
        for item in content if isinstance(content, list) else [content]:
            yield number, *_unpack(item)


def _unpack(item: Any) -> tuple[list[_Tweet], str]:
    """The tweets of one page, stream object or flattened line; or why there are none."""
    if not isinstance(item, dict):
        return [], f"expected an object, found {type(item).__name__}"
    if "data" not in item and ("id" in item or "text" in item):
        if "full_text" in item or "id_str" in item:
            return [], "a tweet of the API v1.1, which this reader does not know"
        return [_Tweet(item), *_embedded(item)], ""
    data = item.get("data")
    if data is None:
        known = {"errors", "meta", "includes"} & item.keys()
        return [], "" if "meta" in known else f"no tweets: keys {', '.join(sorted(item)[:5])}"
    tweets = data if isinstance(data, list) else [data]
    if any(isinstance(tweet, dict) and "tweet_count" in tweet and "id" not in tweet for tweet in tweets):
        return [], "counts, not tweets"
    includes = item.get("includes")
    includes = includes if isinstance(includes, dict) else {}
    media = {
        str(entry["media_key"]): entry
        for entry in _list(includes, "media")
        if isinstance(entry, dict) and "media_key" in entry
    }
    found = [_Tweet(tweet if isinstance(tweet, dict) else {}, media) for tweet in tweets]
    found += [
        _Tweet(tweet, media, primary=False) for tweet in _list(includes, "tweets") if isinstance(tweet, dict)
    ]
    return found, ""


def _embedded(tweet: Mapping[str, Any]) -> Iterator[_Tweet]:
    """Tweets that flattening has put in place of the references to them."""
    for reference in _list(tweet, "referenced_tweets"):
        if isinstance(reference, dict) and "text" in reference:
            yield _Tweet(reference, primary=False)


def _post(tweet: _Tweet) -> Post | None:
    content = tweet.content
    number, text = content.get("id"), content.get("text")
    if isinstance(number, bool) or not isinstance(number, str | int) or not isinstance(text, str):
        return None
    tweet_id = str(number)
    # Tweet ids are digits; anything else would end up in file names.
    if not (tweet_id.isascii() and tweet_id.isdigit() and len(tweet_id) <= 20):
        return None
    note = _dict(content, "note_tweet")
    if isinstance(note.get("text"), str):
        text = note["text"]
    references = {
        str(entry.get("type")): str(entry.get("id"))
        for entry in _list(content, "referenced_tweets")
        if isinstance(entry, dict)
    }
    author = content.get("author_id")
    language, conversation = content.get("lang"), content.get("conversation_id")
    metrics = _dict(content, "public_metrics")
    return Post(
        id=tweet_id,
        platform="twitter",
        text=well_formed(text),
        author=pseudonym("twitter", str(author)) if author else "",
        created_at=parse_time(content.get("created_at")),
        language=language if isinstance(language, str) else None,
        media=tuple(_media(content, tweet.media)),
        in_reply_to=references.get("replied_to"),
        conversation=str(conversation) if conversation else None,
        metrics={str(name): value for name, value in metrics.items() if type(value) is int},
        hashtags=_hashtags(content, note, text),
        flags=_flags(content, references),
    )


def _flags(content: Mapping[str, Any], references: Mapping[str, str]) -> frozenset[str]:
    history = content.get("edit_history_tweet_ids")
    marks = {
        "retweet": "retweeted" in references,
        "quote": "quoted" in references,
        "sensitive": content.get("possibly_sensitive") is True,
        "withheld": bool(content.get("withheld")),
        "edited": isinstance(history, list) and len(history) > 1,
    }
    return frozenset(name for name, holds in marks.items() if holds)


def _media(content: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> Iterator[Media]:
    attachments = _dict(content, "attachments")
    inline = {
        str(entry["media_key"]): entry
        for entry in _list(attachments, "media")
        if isinstance(entry, dict) and "media_key" in entry
    }
    keys = [str(key) for key in _list(attachments, "media_keys")] or list(inline)
    for key in dict.fromkeys(keys):
        entry = inline.get(key) or known.get(key) or {}
        url = entry.get("url") or entry.get("preview_image_url")
        alt = entry.get("alt_text")
        yield Media(
            key=well_formed(key),
            url=url if isinstance(url, str) else None,
            alt_text=well_formed(alt) if isinstance(alt, str) and alt else None,
        )


def _hashtags(content: Mapping[str, Any], note: Mapping[str, Any], text: str) -> tuple[str, ...]:
    tags = [
        entry["tag"]
        for holder in (content, note)
        for entry in _list(_dict(holder, "entities"), "hashtags")
        if isinstance(entry, dict) and isinstance(entry.get("tag"), str)
    ]
    # A dump fetched without the field `entities` still has the tags in the text.
    return tuple(dict.fromkeys(well_formed(tag) for tag in tags or _HASHTAG.findall(text)))


def pseudonym(platform: str, author: str) -> str:
    """A hash that stands for an author. It hides the name from readers; it is no anonymisation."""
    return hashlib.blake2b(f"{platform}:{author}".encode(errors="replace"), digest_size=8).hexdigest()


def parse_time(value: Any) -> datetime | None:
    """A time in UTC from ISO 8601; None where there is none or it is malformed. Without zone: UTC."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _dict(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _list(content: Mapping[str, Any], key: str) -> list[Any]:
    value = content.get(key)
    return value if isinstance(value, list) else []
