"""The synthetic feed in the shape of Twitter's API v2: pages of posts with what they refer to.

Field by field as the API documents it and as collected dumps show it, one page per line, identifiers as text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from pathclip.sources import synthetic_captions as captions
from pathclip.sources.synthetic_plan import Picture, Plan

POSTS_PER_PAGE = 25
_USER_ID = 2_000_000_000

# What interrupted downloads and failing proxies leave between the pages; none of it is a page.
MALFORMED_LINES = (
    '{"data": [{"id": "1477900000000000001", "text": "Adenocarcinoma of the col',
    "<html><head><title>503 Service Temporarily Unavailable</title></head></html>",
    "Killed",
    '{"data": [{"id": 1477900000000000002, "text": }]}',
)


def page(plans: Sequence[Plan], known: Mapping[str, Plan], size: int, token: str) -> dict[str, Any]:
    """One answer of the API.

    Args:
        plans: the posts of the page.
        known: all posts of the feed by id, from which retweeted and answered ones are included.
        size: side of the tiles in pixels.
        token: of the next page.
    """
    referred = {plan.reply_to or plan.retweet_of: None for plan in plans if plan.reply_to or plan.retweet_of}
    tweets = [known[id_] for id_ in referred if id_]
    authors = {plan.author: None for plan in (*plans, *tweets)}
    pictures = {picture.key: picture for plan in (*plans, *tweets) for picture in plan.pictures}
    includes: dict[str, Any] = {"users": [_user(author) for author in sorted(authors)]}
    if tweets:
        includes["tweets"] = [_tweet(plan, known) for plan in tweets]
    if pictures:
        includes["media"] = [_media(picture, size) for picture in pictures.values()]
    meta = {
        "newest_id": plans[-1].id,
        "oldest_id": plans[0].id,
        "result_count": len(plans),
        "next_token": token,
    }
    return {"data": [_tweet(plan, known) for plan in plans], "includes": includes, "meta": meta}


def _tweet(plan: Plan, known: Mapping[str, Plan]) -> dict[str, Any]:
    rng = _chance(plan.id)
    text, links = plan.text, []
    if plan.pictures:
        link = captions.short_link(rng)
        text = f"{text} {link}"
        photo = f"https://twitter.com/{captions.USERNAMES[plan.author]}/status/{plan.id}/photo/1"
        links = [{"url": link, "expanded_url": photo, "media_key": picture.key} for picture in plan.pictures]
    tweet: dict[str, Any] = {
        "id": plan.id,
        "text": text,
        "created_at": _stamp(plan.created_at),
        "author_id": str(_USER_ID + plan.author),
        "conversation_id": plan.reply_to or plan.id,
        "lang": plan.language,
        "possibly_sensitive": plan.reason == "sensitive",
        "public_metrics": _metrics(plan, rng),
        "reply_settings": "everyone",
        "source": ("Twitter Web App", "Twitter for iPhone", "Twitter for Android")[int(rng.integers(3))],
        "edit_history_tweet_ids": [str(int(plan.id) - (1 << 30)), plan.id] if plan.edited else [plan.id],
    }
    entities = _entities(text, links)
    if entities:
        tweet["entities"] = entities
    if plan.pictures:
        tweet["attachments"] = {"media_keys": [picture.key for picture in plan.pictures]}
    if plan.reason == "withheld":
        tweet["withheld"] = {"copyright": bool(rng.integers(2)), "country_codes": ["DE", "FR"]}
    if plan.reply_to:
        tweet["referenced_tweets"] = [{"type": "replied_to", "id": plan.reply_to}]
        tweet["in_reply_to_user_id"] = str(_USER_ID + known[plan.reply_to].author)
    if plan.retweet_of:
        tweet["referenced_tweets"] = [{"type": "retweeted", "id": plan.retweet_of}]
    return tweet


def _chance(id_: str) -> np.random.Generator:
    # Of the post alone, so that a post reads the same on every page that includes it.
    return np.random.default_rng(int(id_))


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _metrics(plan: Plan, rng: np.random.Generator) -> dict[str, int]:
    return {
        "retweet_count": int(rng.integers(0, 1 + plan.likes // 3)),
        "reply_count": int(rng.integers(0, 4)),
        "like_count": plan.likes,
        "quote_count": int(rng.integers(0, 2)),
    }


def _entities(text: str, links: list[dict[str, Any]]) -> dict[str, Any]:
    """Hashtags, mentions and links with their place in the text, counted in code points."""
    entities: dict[str, Any] = {}
    for name, field, pattern in (("hashtags", "tag", r"#(\w+)"), ("mentions", "username", r"@(\w+)")):
        found = [
            {"start": match.start(), "end": match.end(), field: match.group(1)}
            for match in re.finditer(pattern, text)
        ]
        if found:
            entities[name] = found
    photos = {link["url"] for link in links}
    urls = []
    for match in re.finditer(r"https://t\.co/\w+", text):
        place = {"start": match.start(), "end": match.end(), "url": match.group()}
        if match.group() in photos:
            urls += [
                {**place, **link, "display_url": f"pic.twitter.com/{link['url'][13:]}"} for link in links
            ]
        else:
            urls.append(
                {**place, "expanded_url": "https://example.org/learn", "display_url": "example.org/learn"}
            )
    if urls:
        entities["urls"] = urls
    return entities


def _media(picture: Picture, size: int) -> dict[str, Any]:
    side = picture.amount if picture.change in ("small", "resized") else size
    media: dict[str, Any] = {
        "media_key": picture.key,
        "type": "photo",
        "url": f"https://pbs.twimg.com/media/{picture.key}.jpg",
        "width": side,
        "height": side,
    }
    if picture.class_name and _chance(picture.key[2:]).random() < 0.1:
        media["alt_text"] = "Histology, haematoxylin and eosin"
    return media


def _user(author: int) -> dict[str, Any]:
    name = captions.USERNAMES[author]
    return {
        "id": str(_USER_ID + author),
        "name": name,
        "username": name,
        "created_at": f"20{10 + author % 10}-05-17T08:00:00.000Z",
        "description": "Pathologist. Posts are not medical advice.",
        "verified": False,
        "protected": False,
        "public_metrics": {
            "followers_count": 40 * author + 12,
            "following_count": 150,
            "tweet_count": 900,
            "listed_count": author % 7,
        },
    }
