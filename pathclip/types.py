"""What passes between the stages: frozen dataclasses without logic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Media:
    """One picture of a post.

    Attributes:
        key: the platform's own key, unique within the dump.
        path: file, relative to the folder of images; None if only a URL is known.
        url: where the platform serves it.
        alt_text: the description that the author gave, if any.
    """

    key: str
    path: str | None = None
    url: str | None = None
    alt_text: str | None = None


@dataclass(frozen=True, slots=True)
class Post:
    """One post of any platform, as it was published.

    Attributes:
        id: the platform's own id.
        platform: 'twitter', 'table' ….
        author: a hash of the author's id, never the name.
        created_at: in UTC; None where the source has no dates.
        text: the full text, uncleaned.
        language: the platform's own guess (BCP 47), if any.
        media: pictures in the order of the post.
        in_reply_to: id of the post that this one answers.
        conversation: id of the first post of the thread.
        metrics: likes, reposts … by name.
        hashtags: without the mark, as written.
        flags: any of 'retweet', 'quote', 'sensitive', 'withheld', 'edited', 'deleted', and 'referenced' where
            the post came along with another that answers, quotes or repeats it.
        licence: of text and pictures, where the source states one.
        case: patient, case or source slide, where the source has one: pairs of one case are never split.
        label: class name, where the source has one; used for evaluation only, never for training.
        split: the split that the source itself prescribes, where it does.
        versions: ids of all versions of an edited post, this one included, the oldest first; empty where
            it was never edited.
        quotes: id of the post that this one quotes.
    """

    id: str
    platform: str
    text: str
    author: str = ""
    created_at: datetime | None = None
    language: str | None = None
    media: tuple[Media, ...] = ()
    in_reply_to: str | None = None
    conversation: str | None = None
    metrics: Mapping[str, int] = field(default_factory=dict)
    hashtags: tuple[str, ...] = ()
    flags: frozenset[str] = frozenset()
    licence: str | None = None
    case: str | None = None
    label: str | None = None
    split: str | None = None
    versions: tuple[str, ...] = ()
    quotes: str | None = None


@dataclass(frozen=True, slots=True)
class Malformed:
    """A line of a dump that is no post: counted in the funnel, never silently lost.

    Attributes:
        file: the dump's file name.
        line: 1-based line number.
        reason: what was wrong, in words.
    """

    file: str
    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A sound record of a dump that is no post: a count, an error of the API, a deletion.

    Attributes:
        file: the dump's file name.
        line: 1-based line number.
        kind: 'count', 'error', 'deletion' …: what it is, in one word.
        deleted: ids of posts that it says were deleted or withdrawn.
    """

    file: str
    line: int
    kind: str
    deleted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """One picture with one text: a training sample.

    Attributes:
        id: post id and media key, unique in the data set and usable as a file name.
        image_sha256: of the image bytes as found.
        text: cleaned caption.
        post: id of the post that the text is from.
        group: what must never be split: one post's images, its thread, near-duplicates, one case.
        source: platform or data set.
        created_at: ISO 8601 in UTC, or None.
        licence: where known.
        label: class name, where the source has one (evaluation only).
        pictured: id of the post that the picture is from, where the text answers another post.
        depends_on: ids of all posts whose deletion takes the pair along, in each of their versions: its own,
            that of the picture, those that it answers up to the first of the thread.
        flags: what was seen in the picture: 'panels', 'browser' ….
    """

    id: str
    image_sha256: str
    text: str
    post: str
    group: str
    source: str
    created_at: str | None = None
    licence: str | None = None
    label: str | None = None
    pictured: str | None = None
    depends_on: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that a curation rule removed.

    Attributes:
        id: post id, or pair id from the first image rule on.
        reason: reason code of the rule, 'retweet', 'near_duplicate' ….
        detail: what the rule saw, for the audit.
        post: id of the post that the row is of; '' for a line that holds none.
    """

    id: str
    reason: str
    detail: str = ""
    post: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result: `score` is the cosine similarity in [-1, 1]; `rank` starts at 1."""

    rank: int
    id: str
    score: float
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """One class of a zero-shot classification with its probability in [0, 1]."""

    name: str
    probability: float
    similarity: float


@dataclass(frozen=True, slots=True)
class Score:
    """One figure that one can stand by.

    Attributes:
        name: 'balanced_accuracy', 'text_to_image_recall@10' ….
        value: the point estimate.
        n: images or queries it was computed on.
        low: lower end of the 95 % bootstrap interval over groups.
        high: upper end.
        context: task, variant ('plain' or 'randomised_colour'), precision, model and data hash, prompts ….
    """

    name: str
    value: float
    n: int
    low: float
    high: float
    context: Mapping[str, Any] = field(default_factory=dict)
