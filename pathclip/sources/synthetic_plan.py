"""What the synthetic feed will hold, post by post, before anything is drawn or written.

Every kind of noise comes at a rate stated here, and every post is planned so that one rule of curation alone
fits it: whatever the order in which rules are asked, the true reason is one. Some posts are hard on purpose:
questions and advertisements without the usual words, and captions with a rhetorical question. A joke over a
picture of tissue is left out: no rule asks whether a caption describes, so it would have no true reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from pathclip.sources import synthetic_captions as captions
from pathclip.sources.synthetic_distractors import DISTRACTORS
from pathclip.sources.synthetic_tiles import CLASSES, LABORATORIES
from pathclip.sources.synthetic_wordings import WORDINGS

# Reason code of the curation rule -> rows per post of the feed, in the order in which the rules are asked.
NOISE: dict[str, float] = {
    "malformed": 0.004,
    "deleted": 0.015,
    "retweet": 0.04,
    "sensitive": 0.01,
    "withheld": 0.01,
    "no_hashtag": 0.025,
    "question": 0.04,
    "too_short": 0.02,
    "language": 0.04,
    "reply_without_diagnosis": 0.03,
    "reply_not_most_liked": 0.015,
    "advertisement": 0.03,
    "duplicate_pair": 0.025,
    "image_unreachable": 0.015,
    "image_undecodable": 0.015,
    "image_too_small": 0.01,
    "not_pathology": 0.05,
    "near_duplicate": 0.04,
}
# Found by looking at the picture or the pair: the post itself passes, its picture does not.
IMAGE_REASONS = (
    "duplicate_pair",
    "image_unreachable",
    "image_undecodable",
    "image_too_small",
    "not_pathology",
    "near_duplicate",
)
# Features of posts that a perfect curation keeps, per post of the feed. An answered question falls itself,
# and its most liked answer is kept with its picture.
KEPT: dict[str, float] = {
    "reply_with_diagnosis": 0.03,
    "answered_question": 0.015,
    "rhetorical_question": 0.01,
    "several_images": 0.05,
    "edited": 0.01,
}
# Classes that are a disease, which an answer can name.
ILL = tuple(name for name in CLASSES if WORDINGS[name].diagnoses)
FEWEST_POSTS = 60
START = datetime(2022, 1, 3, tzinfo=UTC)
MONTHS = 24
_DAYS = 730
_EPOCH_MS = 1_288_834_974_657  # of the platform's ids, which carry the time of the post


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture to be made.

    Attributes:
        key: media key, and stem of the file name.
        kind: 'tile', or a kind of `DISTRACTORS`.
        entropy: seeds the drawing; equal entropy gives an equal picture.
        class_name: of a tile, else ''.
        laboratory: index into `LABORATORIES`.
        change: what happens to it after drawing: '', 'missing', 'truncated', 'garbage', 'small', 'reencoded',
            'resized', 'rotated' or 'flipped'.
        amount: side in pixels of 'small' and 'resized', JPEG quality of 'reencoded', quarter turns of
            'rotated', axis of 'flipped'.
        copy_of: media key of the picture that this one repeats, exactly or nearly.
    """

    key: str
    kind: str
    entropy: tuple[int, ...]
    class_name: str = ""
    laboratory: int = 0
    change: str = ""
    amount: int = 0
    copy_of: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One post to be written, with its truth.

    Attributes:
        id: the platform's id, which grows with time.
        created_at: in UTC.
        text: as the API gives it, without the link to the pictures.
        language: as the platform guesses it.
        author: index into `USERNAMES`.
        reason: code of the rule that should drop the post or its pictures; 'kept' if none.
        pictures: in order.
        class_name: of the pictures, or of the parent's for a reply; '' where there is no tissue.
        group: id of the post that heads all that must not be split from this one.
        likes: public metric.
        reply_to: the post that this one answers.
        retweet_of: the post that this one repeats.
        copy_of: id of the post that this one repeats, exactly or nearly.
        edited: whether it has an earlier version.
    """

    id: str
    created_at: datetime
    text: str
    language: str
    author: int
    reason: str
    pictures: tuple[Picture, ...] = ()
    class_name: str = ""
    group: str = ""
    likes: int = 0
    reply_to: str | None = None
    retweet_of: str | None = None
    copy_of: str | None = None
    edited: bool = False


def counts(posts: int) -> dict[str, int]:
    """Rows of each kind of noise and of each kept feature in a feed of `posts`, at least one of each."""
    return {reason: max(1, round(rate * posts)) for reason, rate in {**NOISE, **KEPT}.items()}


def plan_feed(posts: int, seed: int, size: int) -> list[Plan]:
    """Plans the feed in order of time.

    Args:
        posts: how many, replies and retweets included, malformed lines not; at least `FEWEST_POSTS`.
        seed: of everything random.
        size: side of the tiles in pixels.

    Raises:
        ValueError: fewer posts than one of each kind needs.
    """
    if posts < FEWEST_POSTS:
        raise ValueError(f"a feed that holds every kind of noise needs {FEWEST_POSTS} posts, not {posts}")
    return _Planner(posts, seed, size).plan()


class _Planner:
    """Draws posts one after another from one generator; the number of a post makes its id unique."""

    def __init__(self, posts: int, seed: int, size: int) -> None:
        self.posts, self.seed, self.size = posts, seed, size
        self.rng = np.random.default_rng([seed, 1])
        self.counts = counts(posts)
        self.made: list[Plan] = []
        self.given = 0

    def plan(self) -> list[Plan]:
        derived = (
            "duplicate_pair",
            "near_duplicate",
            "retweet",
            "reply_without_diagnosis",
            "reply_not_most_liked",
        )
        asked = [self.noisy("question", name) for name in self.classes(self.counts["answered_question"], ILL)]
        self.made += asked
        for reason in NOISE:
            if reason not in ("malformed", *derived):
                already = len(asked) if reason == "question" else 0
                for class_name in self.classes(self.counts[reason] - already):
                    self.made.append(self.noisy(reason, class_name))
        # Nothing repeats them: a copy would fall with the caption's question mark, not as a copy.
        rhetorical = self.classes(self.counts["rhetorical_question"])
        self.made += [self.kept(name, captions.rhetorical) for name in rhetorical]
        answers = sum(
            self.counts[reason] for reason in (*derived, "reply_with_diagnosis", "answered_question")
        )
        kept = [self.kept(name) for name in self.classes(self.posts - len(self.made) - answers)]
        kept = self.with_features(kept)
        self.made += kept
        order = [kept[i] for i in self.rng.permutation(len(kept))]
        single = [plan for plan in order if len(plan.pictures) == 1]
        exact, near = self.counts["duplicate_pair"], self.counts["near_duplicate"]
        # Sources are disjoint, so that every copy has exactly one original.
        self.made += [self.duplicate(plan) for plan in single[:exact]]
        self.made += [self.near_duplicate(plan) for plan in single[exact : exact + near]]
        self.made += [self.retweet(order[i % len(order)]) for i in range(self.counts["retweet"])]
        self.made += self.threads(asked, single[exact + near :])
        return sorted(self.made, key=lambda plan: int(plan.id))

    def classes(self, n: int, names: Sequence[str] = tuple(CLASSES)) -> list[str]:
        """Names in random order, each as often as the others."""
        start = int(self.rng.integers(len(names)))
        return [names[(start + int(i)) % len(names)] for i in self.rng.permutation(n)]

    def when(self, after: datetime | None = None, hours: tuple[float, float] = (0, 0)) -> datetime:
        """A moment in the feed's span; its last weeks are left to posts that answer or repeat others."""
        if after is not None:
            moment = after + timedelta(hours=float(self.rng.uniform(*hours)))
        else:
            moment = START + timedelta(days=float(self.rng.uniform(0, _DAYS - 22)))
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def identifier(self, moment: datetime, number: int) -> str:
        milliseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
        return str((milliseconds - _EPOCH_MS << 22) + number % (1 << 22))

    def post(self, reason: str, class_name: str, text: str, moment: datetime, **more: Any) -> Plan:
        id_ = self.identifier(moment, self.number())
        author, likes = int(self.rng.integers(len(captions.USERNAMES))), int(self.rng.geometric(0.03)) - 1
        values = {"language": "en", "group": id_, "likes": likes, **more}
        return Plan(id_, moment, text, author=author, reason=reason, class_name=class_name, **values)

    def number(self) -> int:
        self.given += 1
        return self.given

    def picture(self, moment: datetime, kind: str, class_name: str, laboratory: int, **more: Any) -> Picture:
        number = self.number()
        key = f"3_{self.identifier(moment, number)}"
        values = {"entropy": (self.seed, 2, number), **more}
        return Picture(key, kind, class_name=class_name, laboratory=laboratory, **values)

    def noisy(self, reason: str, class_name: str) -> Plan:
        """A post that the rule `reason`, and no other, should drop."""
        rng, moment, language = self.rng, self.when(), "en"
        laboratory = int(rng.integers(len(LABORATORIES)))
        kind, change, amount = "tile", "", 0
        text = captions.caption(class_name, rng)
        if reason == "no_hashtag":
            text = captions.caption_without_hashtag(class_name, rng)
        elif reason == "question":
            text = captions.question(class_name, rng)
        elif reason == "too_short":
            text = captions.too_short(class_name, rng)
        elif reason == "language":
            language = captions.LANGUAGES[int(rng.integers(len(captions.LANGUAGES)))]
            text = captions.caption_abroad(class_name, language, rng)
        elif reason == "advertisement":
            text = captions.advertisement(rng)  # over tissue, as the eye-catcher: its words alone tell
        elif reason == "not_pathology":
            kind, class_name, text = str(rng.choice(list(DISTRACTORS))), "", captions.joke(rng)
        elif reason == "image_unreachable":
            change = "missing"
        elif reason == "image_undecodable":
            change = ("truncated", "garbage")[int(rng.integers(2))]
        elif reason == "image_too_small":
            change, amount = "small", int(rng.integers(16, 41))
        picture = self.picture(moment, kind, class_name, laboratory, change=change, amount=amount)
        return self.post(reason, class_name, text, moment, language=language, pictures=(picture,))

    def kept(
        self, class_name: str, write: Callable[[str, np.random.Generator], str] = captions.caption
    ) -> Plan:
        moment, laboratory = self.when(), int(self.rng.integers(len(LABORATORIES)))
        picture = self.picture(moment, "tile", class_name, laboratory)
        text = write(class_name, self.rng)
        return self.post("kept", class_name, text, moment, pictures=(picture,))

    def with_features(self, kept: list[Plan]) -> list[Plan]:
        """Gives some of the posts more pictures, others an earlier version."""
        chosen = self.rng.permutation(len(kept))
        several, edited = self.counts["several_images"], self.counts["edited"]
        for i in chosen[:several]:
            plan = kept[i]
            first = plan.pictures[0]
            more = [
                self.picture(plan.created_at, "tile", first.class_name, first.laboratory)
                for _ in range(int(self.rng.integers(1, 4)))
            ]
            kept[i] = replace(plan, pictures=(first, *more))
        for i in chosen[several : several + edited]:
            kept[i] = replace(kept[i], edited=True)
        return kept

    def duplicate(self, source: Plan) -> Plan:
        """The same picture with the same text, posted again by somebody."""
        moment = self.when(source.created_at, (20, 480))
        old = source.pictures[0]
        new = self.picture(
            moment, old.kind, old.class_name, old.laboratory, entropy=old.entropy, copy_of=old.key
        )
        more: dict[str, Any] = {"pictures": (new,), "group": source.group, "copy_of": source.id}
        return self.post("duplicate_pair", source.class_name, source.text, moment, **more)

    def near_duplicate(self, source: Plan) -> Plan:
        """The same picture encoded anew, resized, rotated or flipped, with another text."""
        moment = self.when(source.created_at, (20, 480))
        rng, old = self.rng, source.pictures[0]
        change = ("reencoded", "resized", "rotated", "flipped")[int(rng.integers(4))]
        amounts = {
            "reencoded": int(rng.integers(35, 60)),
            "resized": round(self.size * rng.uniform(0.75, 1.5)),
            "rotated": int(rng.integers(1, 4)),
            "flipped": int(rng.integers(2)),
        }
        changed: dict[str, Any] = {
            "entropy": old.entropy,
            "copy_of": old.key,
            "change": change,
            "amount": amounts[change],
        }
        new = self.picture(moment, old.kind, old.class_name, old.laboratory, **changed)
        text = captions.caption(source.class_name, rng)
        more: dict[str, Any] = {"pictures": (new,), "group": source.group, "copy_of": source.id}
        return self.post("near_duplicate", source.class_name, text, moment, **more)

    def retweet(self, source: Plan) -> Plan:
        text = f"RT @{captions.USERNAMES[source.author]}: {source.text}"
        moment = self.when(source.created_at, (0.1, 200))
        more: dict[str, Any] = {"group": source.group, "retweet_of": source.id, "likes": 0}
        return self.post("retweet", source.class_name, text[:139] + "…", moment, **more)

    def threads(self, asked: Sequence[Plan], parents: Iterable[Plan]) -> list[Plan]:
        """Replies: in every thread at most one diagnosis is the most liked, and all else has fewer likes.

        Args:
            asked: posts that ask, each of which is answered.
            parents: posts that describe their pictures; some are answered too.
        """
        able = [plan for plan in parents if plan.class_name in ILL]
        won = [*asked, *able[: self.counts["reply_with_diagnosis"]]]
        replies = [self.reply(parent, "kept") for parent in won]
        losers = self.counts["reply_not_most_liked"]
        replies += [self.reply(won[i % len(won)], "reply_not_most_liked") for i in range(losers)]
        # Chatter comes under posts with a winning diagnosis and under others.
        heard = [*won[len(won) // 2 :], *able[self.counts["reply_with_diagnosis"] :]]
        chatter = self.counts["reply_without_diagnosis"]
        replies += [self.reply(heard[i % len(heard)], "reply_without_diagnosis") for i in range(chatter)]
        return replies

    def reply(self, parent: Plan, reason: str) -> Plan:
        rng, author = self.rng, captions.USERNAMES[parent.author]
        likes = int(rng.integers(25, 90)) if reason == "kept" else int(rng.integers(0, 20))
        if reason == "reply_without_diagnosis":
            text = captions.chatter(author, rng)
        else:
            text = captions.answer(parent.class_name, author, rng)
        moment = self.when(parent.created_at, (0.1, 60))
        more: dict[str, Any] = {"group": parent.group, "reply_to": parent.id, "likes": likes}
        return self.post(reason, parent.class_name, text, moment, **more)
