"""What dumps of Twitter/X hold beside tweets: compliance events, errors, counts, messages of a stream.

Compliance data say which tweets must go: https://docs.x.com/x-api/compliance. Those of tweets name ids. Those
of users name none that a dump could be searched for, and what is undone (`undrop`, `user_undelete`) brings
nothing back: a tweet that was once dropped from public view stays out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pathclip.sources.dumps import Place
from pathclip.sources.fields import a_dict, a_list
from pathclip.types import Notice

# Event of a stream → kind. A withheld tweet is withdrawn in a country, and named like a deleted one.
_EVENTS = {
    **dict.fromkeys(("delete", "tweet_delete", "drop", "tweet_drop"), "deletion"),
    **dict.fromkeys(("withheld", "tweet_withheld", "status_withheld"), "withheld"),
    **dict.fromkeys(("tweet_edit", "edit"), "edit"),
    **dict.fromkeys(("undrop", "tweet_undrop", "undelete", "tweet_undelete", "tweet_unwithheld"), "restored"),
    **dict.fromkeys(("scrub_geo", "tweet_scrub_geo"), "scrub_geo"),
    **dict.fromkeys(
        (
            *("user_delete", "user_undelete", "user_protect", "user_unprotect", "user_suspend"),
            *("user_unsuspend", "user_withheld", "user_profile_modification"),
        ),
        "user",
    ),
    **dict.fromkeys(
        ("limit", "disconnect", "warning", "friends", "friends_str", "event", "control"), "stream"
    ),
}
_NAME_POSTS = ("deletion", "withheld")
# Asks no more than to remove the place from where the tweet was sent.
_HARMLESS = ("scrub_geo",)


def notice(entry: Mapping[str, Any], place: Place) -> Notice | None:
    """What an object that is neither tweet nor page of tweets says; None if it is nothing known."""
    if isinstance(entry.get("action"), str) and "text" not in entry:
        return _compliance_result(entry, place)
    if told := event(entry, place):
        return told
    if any(name in entry for name in ("errors", "error", "connection_issue")) or (
        isinstance(entry.get("title"), str) and isinstance(entry.get("detail"), str)
    ):
        return place.notice("error")
    if isinstance(entry.get("meta"), dict):
        return place.notice("count" if "total_tweet_count" in entry["meta"] else "empty")
    return other(entry, place)


def other(entry: Mapping[str, Any], place: Place) -> Notice | None:
    """A count of tweets, a user or a compliance job; None if it is none of them."""
    if "text" in entry or "full_text" in entry:
        return None
    kinds = {"tweet_count": "count", "username": "user", "screen_name": "user", "download_url": "job"}
    kind = next((kind for name, kind in kinds.items() if name in entry), None)
    return place.notice(kind) if kind else None


def event(entry: Mapping[str, Any], place: Place) -> Notice | None:
    """An event of a compliance stream, or a message in a stream of tweets."""
    for name, kind in _EVENTS.items():
        if isinstance(entry.get(name), dict | list) and "text" not in entry:
            content = a_dict(entry, name)
            inner = next(
                (a_dict(content, key) for key in ("tweet", "status") if a_dict(content, key)), content
            )
            return place.notice(kind, ids(inner) if kind in _NAME_POSTS else ())
    return None


def errors(entry: Mapping[str, Any], place: Place) -> Iterable[Notice]:
    """One notice for the errors of a page: they tell of what its tweets refer to and could not be shown."""
    return [place.notice("error")] if a_list(entry, "errors") else []


def ids(tweet: Mapping[str, Any]) -> tuple[str, ...]:
    """The id of a tweet as a tuple; an empty one where there is none that could be."""
    for key in ("id_str", "id", "tweet_id"):
        if name := tweet_id(tweet.get(key)):
            return (name,)
    return ()


def tweet_id(value: Any) -> str | None:
    """An id as text; None unless it is digits, for ids end up in file names. A bool or a float is none."""
    if type(value) is int:
        value = str(value) if 0 <= value < 10**20 else None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        return value
    return None


def _compliance_result(entry: Mapping[str, Any], place: Place) -> Notice:
    """A line of a batch compliance job's results. Those of a job for users look the same, with their ids."""
    if entry["action"] != "delete" or entry.get("reason") in _HARMLESS:
        return place.notice("compliance")
    return place.notice("deletion", ids(entry))
