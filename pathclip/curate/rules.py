"""The rules on posts, each a pure function with a reason code, in the published order.

The recipe is OpenPath's: Huang et al., 'A visual-language foundation model for pathology image analysis
using medical Twitter', Nature Medicine 2023, doi:10.1038/s41591-023-02504-3, Methods. Its tweets were
found by 32 hashtags between 2006-03-21 and 2022-11-15; retweets, sensitive tweets and tweets with
question marks were left out, texts cleaned, and of the replies the most liked taken if it held a keyword
of ICD-11. Rules that are not theirs say so.

A rule looks at a post and answers with what it saw if the post must go, and with None if it may stay.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pathclip.curate.language import beyond_latin
from pathclip.curate.rule_settings import POST_RULES, RuleSettings
from pathclip.curate.text import (
    TextCleaner,
    caption_words,
    count_words,
    without_emoji,
    without_links,
    without_mentions,
)
from pathclip.curate.wordings import plain, tokens_of
from pathclip.types import Post

__all__ = ["REASONS", "RULES", "Rule", "RuleSettings", "Seen", "first_reason"]

OPENPATH = "Huang et al. 2023"
OWN = "pathclip"
S = TypeVar("S")
T = TypeVar("T")


class _once(Generic[S, T]):
    """A property that is computed when first asked for; `functools.cached_property` takes a lock in 3.11."""

    def __init__(self, compute: Callable[[S], T]):
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: S, owner: type | None = None) -> T:
        value = instance.__dict__[self._name] = self._compute(instance)
        return value


@dataclass
class Seen:
    """A post as the rules see it.

    Attributes:
        post: the post.
        cleaner: makes its caption when a rule first asks for it.
        answered: the post with pictures that this one, without any, replies to; None if it is no such
            reply or the dump lacks that post.
        withdrawn: id of the deleted post that takes this one along: itself, or an earlier one of its thread.
    """

    post: Post
    cleaner: TextCleaner
    answered: Post | None = None
    withdrawn: str | None = None

    @property
    def is_reply(self) -> bool:
        """Whether the text answers another post and brings no picture of its own."""
        return self.post.in_reply_to is not None and not self.post.media

    @_once
    def thread(self) -> tuple[Post, ...]:
        """The post, and the one whose picture it would describe."""
        return (self.post,) if self.answered is None else (self.post, self.answered)

    @_once
    def caption(self) -> str:
        """The cleaned text."""
        return self.cleaner(self.post.text)

    @_once
    def words(self) -> list[str]:
        """The words of the caption, in lower case."""
        return caption_words(self.caption)

    @_once
    def wording(self) -> str:
        """The text as wordings are compared: plain, without links, names of users and emoji."""
        text = plain(without_emoji(without_mentions(without_links(self.post.text))))
        return html.unescape(text) if "&" in text else text

    @_once
    def tokens(self) -> list[str]:
        """The words of `wording` and what closes its clauses."""
        return tokens_of(self.wording)


@dataclass(frozen=True, slots=True)
class Rule:
    """A reason code, the function that finds it, and whose rule it is."""

    reason: str
    check: Callable[[Seen, RuleSettings], str | None]
    cites: str


def deleted(seen: Seen, settings: RuleSettings) -> str | None:
    """The author or the platform withdrew the post, or the one it answers."""
    name = seen.withdrawn or _flagged(seen, "deleted")
    return f"{name} is deleted" if name else None


def retweet(seen: Seen, settings: RuleSettings) -> str | None:
    """A repetition of somebody else's post."""
    if "retweet" in seen.post.flags:
        return "marked by the platform"
    return "begins with RT @" if seen.post.text.startswith("RT @") else None


def sensitive(seen: Seen, settings: RuleSettings) -> str | None:
    """Marked as possibly sensitive, or an answer to such a post."""
    name = _flagged(seen, "sensitive")
    return f"{name} is marked" if name else None


def withheld(seen: Seen, settings: RuleSettings) -> str | None:
    """Withheld by law in some country, or an answer to such a post."""
    name = _flagged(seen, "withheld")
    return f"{name} is withheld" if name else None


def outside_dates(seen: Seen, settings: RuleSettings) -> str | None:
    """Older or newer than the window; OpenPath's was 2006-03-21 to 2022-11-15. Posts without date stay."""
    since, until = settings.window
    moment = seen.post.created_at
    if moment is None:
        return None
    early, late = since is not None and moment < since, until is not None and moment > until
    return moment.isoformat() if early or late else None


def no_hashtag(seen: Seen, settings: RuleSettings) -> str | None:
    """None of the pathology hashtags; a reply stands under those of the post it answers."""
    if not settings.hashtags:
        return None
    for post in seen.thread:
        for tag in post.hashtags:
            if tag.lower() in settings.tags:
                return None
    if seen.is_reply and seen.answered is None:
        return None  # what it answers is not in the dump, which a later rule says more clearly
    tags = [tag for post in seen.thread for tag in post.hashtags][:5]
    return f"has {', '.join(tags)}" if tags else "has none"


def question(seen: Seen, settings: RuleSettings) -> str | None:
    """Asks instead of describing.

    OpenPath dropped tweets with a question mark; `careful` is our own (`pathclip.curate.questions`).
    """
    if settings.question is None:
        return None
    if settings.question == "published":
        text = without_links(seen.post.text)
        return next((mark for mark in settings.question_marks if mark in text), None)
    most = settings.judged_chars
    return settings.questions.find(seen.wording[:most], seen.tokens[:most])


def too_short(seen: Seen, settings: RuleSettings) -> str | None:
    """Too few words are left after cleaning."""
    fewest = settings.min_reply_words if seen.is_reply else settings.min_words
    count = count_words(seen.caption, seen.words)
    return f"{count} words" if count < fewest else None


def language(seen: Seen, settings: RuleSettings) -> str | None:
    """Surely in a language that is not kept; captions that leave doubt stay.

    Small words and the platform's guess go before the detector (`pathclip.curate.language`).
    """
    if not settings.languages or count_words(seen.caption, seen.words) < settings.language_min_words:
        return None
    kept, other, name = 0, 0, ""
    for code, count in sorted(settings.small_words.count(seen.words).items()):
        if code in settings.languages:
            kept = max(kept, count)
        elif count > other:
            other, name = count, code
    if kept > other:
        return None
    if other > kept and other >= settings.language_evidence:
        return f"{name}, {other} small words"
    if settings.platform_language and not other and not beyond_latin(seen.caption):
        guess = (seen.post.language or "").partition("-")[0]
        if guess in settings.languages:
            return None
    name, probability = settings.detector.best(seen.caption)
    if name in settings.languages or probability < settings.language_certainty:
        return None
    return f"{name} {probability:.2f}"


def reply_without_diagnosis(seen: Seen, settings: RuleSettings) -> str | None:
    """A reply that names no disease: thanks, praise, chat. OpenPath's keywords were those of ICD-11."""
    if not seen.is_reply or settings.diseases.find(seen.caption) is not None:
        return None
    return "names no disease"


def advertisement(seen: Seen, settings: RuleSettings) -> str | None:
    """Sells, announces or recruits. Not in OpenPath's list; feeds are full of it."""
    if settings.advertisement_score is None:
        return None
    most = settings.judged_chars
    return settings.advertisements.find(seen.tokens[:most])


def _flagged(seen: Seen, flag: str) -> str | None:
    """The id of the post, or of the one it answers, that carries a flag."""
    for post in seen.thread:
        if flag in post.flags:
            return post.id
    return None


# In the published order. The most liked reply is found over a whole thread, between the two halves.
RULES = (
    Rule("deleted", deleted, OWN),
    Rule("retweet", retweet, OPENPATH),
    Rule("sensitive", sensitive, OPENPATH),
    Rule("withheld", withheld, OWN),
    Rule("outside_dates", outside_dates, OPENPATH),
    Rule("no_hashtag", no_hashtag, OPENPATH),
    Rule("question", question, OPENPATH),
    Rule("too_short", too_short, OPENPATH),
    Rule("language", language, OWN),
    Rule("reply_without_diagnosis", reply_without_diagnosis, OPENPATH),
    Rule("advertisement", advertisement, OWN),
)
# The rules on posts, with the one that looks over a thread in its place, and those on pictures and pairs.
REASONS = (
    "malformed",
    *POST_RULES[:-1],
    "reply_not_most_liked",
    POST_RULES[-1],
    "no_image",
    "duplicate_pair",
    "image_unreachable",
    "image_opted_out",
    "image_undecodable",
    "image_too_small",
    "mixed_figure",
    "not_pathology",
    "near_duplicate",
)


def first_reason(seen: Seen, settings: RuleSettings) -> tuple[str, str] | None:
    """The first rule that a post breaks, as (reason, what it saw); None if it may stay."""
    for rule in RULES:
        if rule.reason not in settings.skip and (detail := rule.check(seen, settings)) is not None:
            return rule.reason, detail
    return None
