"""The rules on posts, each a pure function with a reason code, in the published order.

The recipe is OpenPath's: Huang et al., 'A visual-language foundation model for pathology image analysis
using medical Twitter', Nature Medicine 2023, Methods ('Data collection', 'Quality control'). Rules that are
not theirs say so.

A rule looks at a post and answers with what it saw if the post must go, and with None if it may stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from functools import cached_property

from pathclip.curate.text import LanguageDetector, TextCleaner, count_words, without_links
from pathclip.curate.vocabulary import DiseaseTerms, read_disease_terms, read_hashtags
from pathclip.errors import ConfigError
from pathclip.types import Post

OPENPATH = "Huang et al. 2023"
OWN = "pathclip"


class Phrases:
    """Finds whole phrases in a text, without regard to case, spacing and the form of apostrophes."""

    def __init__(self, phrases: Iterable[str]):
        self._phrases = tuple(_plain(str(phrase)) for phrase in phrases)

    def find(self, text: str) -> str | None:
        """The first phrase of the list that the text holds, or None."""
        text = _plain(text)
        for phrase in self._phrases:  # plain search: ten times as fast as one regular expression of all
            start = text.find(phrase)
            while start >= 0:
                end = start + len(phrase)
                before, after = text[start - 1 : start], text[end : end + 1]
                if not (before.isalnum() and phrase[0].isalnum()) and not after.isalnum():
                    return phrase
                start = text.find(phrase, start + 1)
        return None


def _plain(text: str) -> str:
    return " ".join(text.replace("’", "'").lower().split())


@dataclass(frozen=True)
class RuleSettings:
    """The thresholds of all rules on posts; a rule whose setting is None or empty is off.

    Attributes:
        skip: reason codes of rules that are not asked.
        since: first day that counts (ISO 8601), None for no limit.
        until: last day that counts.
        hashtags: lists of `hashtag_file` of which a post must carry one tag; empty for no condition.
        hashtag_file: YAML of hashtag lists.
        question_marks: a post with one of these characters asks something.
        question_phrases: and so does one with such a phrase, in any case.
        min_words: fewest words of a caption after cleaning.
        min_reply_words: the same for replies, where one word can be the diagnosis.
        languages: that are kept (ISO 639-1).
        other_languages: that the detector chooses among besides.
        language_certainty: probability from which another language counts as found.
        language_min_words: shorter captions are not judged.
        disease_terms: YAML vocabulary of which a reply must name a term.
        advertisement_phrases: a post with one of these advertises, in any case.
    """

    skip: Sequence[str] = ()
    since: str | None = None
    until: str | None = None
    hashtags: Sequence[str] = ()
    hashtag_file: str = "hashtags.yaml"
    question_marks: str = "?"
    question_phrases: Sequence[str] = ()
    min_words: int = 1
    min_reply_words: int = 1
    languages: Sequence[str] = ()
    other_languages: Sequence[str] = ()
    language_certainty: float = 0.6
    language_min_words: int = 3
    disease_terms: str = "disease_terms.yaml"
    advertisement_phrases: Sequence[str] = ()

    def __post_init__(self) -> None:
        known = {rule.reason for rule in RULES}
        for reason in self.skip:
            if reason not in known:
                raise ConfigError(f"rules.skip: '{reason}' is no rule. Known: {', '.join(sorted(known))}")
        self._window  # noqa: B018  a malformed date is told now

    @cached_property
    def tags(self) -> frozenset[str]:
        """Hashtags of which one is needed, in lower case."""
        return read_hashtags(self.hashtags, self.hashtag_file)

    @cached_property
    def diseases(self) -> DiseaseTerms:
        """The vocabulary for replies."""
        return read_disease_terms(self.disease_terms)

    @cached_property
    def detector(self) -> LanguageDetector:
        """The language detector over kept and other languages."""
        return LanguageDetector(tuple(dict.fromkeys([*self.languages, *self.other_languages])))

    @cached_property
    def asks(self) -> Phrases:
        """Finds phrases of questions."""
        return Phrases(self.question_phrases)

    @cached_property
    def advertises(self) -> Phrases:
        """Finds phrases of advertisements."""
        return Phrases(self.advertisement_phrases)

    @cached_property
    def _window(self) -> tuple[datetime | None, datetime | None]:
        try:
            since = datetime.combine(date.fromisoformat(self.since), time.min, UTC) if self.since else None
            until = datetime.combine(date.fromisoformat(self.until), time.max, UTC) if self.until else None
        except (TypeError, ValueError) as error:
            raise ConfigError(f"rules.since, rules.until: a day as in 2022-11-15 ({error})") from None
        return since, until


@dataclass
class Seen:
    """A post as the rules see it.

    Attributes:
        post: the post.
        cleaner: makes its caption when a rule first asks for it.
        answered: the post with pictures that this one, without any, replies to; None if it is no such
            reply or the dump lacks that post.
        deleted: ids that were deleted since the dump was made.
    """

    post: Post
    cleaner: TextCleaner
    answered: Post | None = None
    deleted: frozenset[str] = field(default_factory=frozenset)

    @property
    def is_reply(self) -> bool:
        """Whether the text answers another post and brings no picture of its own."""
        return self.post.in_reply_to is not None and not self.post.media

    @property
    def thread(self) -> Iterator[Post]:
        """The post, and the one whose picture it would describe."""
        yield self.post
        if self.answered is not None:
            yield self.answered

    @cached_property
    def caption(self) -> str:
        """The cleaned text."""
        return self.cleaner(self.post.text)


@dataclass(frozen=True, slots=True)
class Rule:
    """A reason code, the function that finds it, and whose rule it is."""

    reason: str
    check: Callable[[Seen, RuleSettings], str | None]
    cites: str


def deleted(seen: Seen, settings: RuleSettings) -> str | None:
    """The author or the platform withdrew the post, or the one it answers."""
    return next(
        (f"{p.id} is deleted" for p in seen.thread if p.id in seen.deleted or "deleted" in p.flags), None
    )


def retweet(seen: Seen, settings: RuleSettings) -> str | None:
    """A repetition of somebody else's post."""
    if "retweet" in seen.post.flags:
        return "marked by the platform"
    return "begins with RT @" if seen.post.text.startswith("RT @") else None


def sensitive(seen: Seen, settings: RuleSettings) -> str | None:
    """Marked as possibly sensitive, or an answer to such a post."""
    return next((f"{p.id} is marked" for p in seen.thread if "sensitive" in p.flags), None)


def withheld(seen: Seen, settings: RuleSettings) -> str | None:
    """Withheld by law in some country, or an answer to such a post."""
    return next((f"{p.id} is withheld" for p in seen.thread if "withheld" in p.flags), None)


def outside_dates(seen: Seen, settings: RuleSettings) -> str | None:
    """Older or newer than the window; OpenPath's was 2006-03-21 to 2022-11-15. Posts without date stay."""
    since, until = settings._window
    moment = seen.post.created_at
    if moment is None:
        return None
    early, late = since is not None and moment < since, until is not None and moment > until
    return moment.isoformat() if early or late else None


def no_hashtag(seen: Seen, settings: RuleSettings) -> str | None:
    """None of the pathology hashtags; a reply stands under those of the post it answers."""
    if not settings.hashtags:
        return None
    tags = [tag for post in seen.thread for tag in post.hashtags]
    if any(tag.lower() in settings.tags for tag in tags):
        return None
    if seen.is_reply and seen.answered is None:
        return None  # what it answers is not in the dump, which a later rule says more clearly
    return f"has {', '.join(tags[:5])}" if tags else "has none"


def question(seen: Seen, settings: RuleSettings) -> str | None:
    """Asks instead of describing."""
    text = without_links(seen.post.text)
    mark = next((mark for mark in settings.question_marks if mark in text), None)
    return mark or settings.asks.find(text)


def too_short(seen: Seen, settings: RuleSettings) -> str | None:
    """Too few words are left after cleaning."""
    words = count_words(seen.caption)
    fewest = settings.min_reply_words if seen.is_reply else settings.min_words
    return f"{words} words" if words < fewest else None


def language(seen: Seen, settings: RuleSettings) -> str | None:
    """Surely in a language that is not kept; captions that leave doubt stay."""
    if not settings.languages or count_words(seen.caption) < settings.language_min_words:
        return None
    name, probability = next(iter(settings.detector(seen.caption).items()))
    if name in settings.languages or probability < settings.language_certainty:
        return None
    return f"{name} {probability:.2f}"


def reply_without_diagnosis(seen: Seen, settings: RuleSettings) -> str | None:
    """A reply that names no disease: thanks, praise, chat."""
    if not seen.is_reply or settings.diseases.find(seen.caption) is not None:
        return None
    return "names no disease"


def advertisement(seen: Seen, settings: RuleSettings) -> str | None:
    """Sells, announces or recruits. Not in OpenPath's list; feeds are full of it."""
    return settings.advertises.find(seen.post.text)


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
REASONS = (
    "malformed",
    "deleted",
    "retweet",
    "sensitive",
    "withheld",
    "outside_dates",
    "no_hashtag",
    "question",
    "too_short",
    "language",
    "reply_without_diagnosis",
    "reply_not_most_liked",
    "advertisement",
    "duplicate_pair",
    "image_missing",
    "image_undecodable",
    "image_too_small",
    "not_pathology",
    "near_duplicate",
)


def first_reason(seen: Seen, settings: RuleSettings) -> tuple[str, str] | None:
    """The first rule that a post breaks, as (reason, what it saw); None if it may stay."""
    for rule in RULES:
        if rule.reason not in settings.skip and (detail := rule.check(seen, settings)) is not None:
            return rule.reason, detail
    return None


def most_liked(replies: Mapping[str, Sequence[Post]]) -> frozenset[str]:
    """Of each thread the reply with the most likes; of equals the earliest (Huang et al. 2023).

    Args:
        replies: id of the post with pictures → its replies.

    Returns:
        The ids of the replies that are kept.
    """

    def order(post: Post) -> tuple[int, float, str]:
        moment = post.created_at.timestamp() if post.created_at else float("inf")
        return -post.metrics.get("like_count", 0), moment, post.id

    return frozenset(min(thread, key=order).id for thread in replies.values() if thread)
