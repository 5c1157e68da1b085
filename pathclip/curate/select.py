"""From posts to candidates: a picture with the caption that may go with it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, partial
from operator import attrgetter

from pathclip.curate.engine import Engine
from pathclip.curate.ledger import Ledger
from pathclip.curate.rules import RuleSettings, Seen, first_reason
from pathclip.curate.text import TextCleaner
from pathclip.curate.vocabulary import file_hashes
from pathclip.progress import track
from pathclip.sources.distinct import Stored, in_batches
from pathclip.types import Dropped, Media, Post

POSTS_PER_PARTITION = 512
MOST_ANCESTORS = 100  # of a chain of answers; the first of the thread is known besides


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture and a caption, before anybody has looked at the picture.

    Attributes:
        id: of the pair to be.
        post: id of the post that the text is from.
        pictured: id of the post that the picture is from, where it is another.
        depends_on: ids of the posts whose deletion takes it along, with line breaks between.
        linked: another group with which it must never be split: that of a quoted post.
        author: of the text, a hash.
        likes: of the post.
        moment: of the post in seconds since 1970, None if unknown.
        created_at: the same in ISO 8601.
        media: the picture, as `media_key` writes it.
        text: cleaned caption.
        group: key of what must never be split: a case, or a thread with its pictures.
        source: platform or data set.
        licence: where known.
        label: class name, for evaluation only.
        split: as the source prescribes it.
    """

    id: str
    post: str
    pictured: str | None
    depends_on: str
    linked: str | None
    author: str
    likes: int
    moment: float | None
    created_at: str | None
    media: str
    text: str
    group: str
    source: str
    licence: str | None = None
    label: str | None = None
    split: str | None = None


_FIELDS_OF = attrgetter(*(field.name for field in fields(Candidate)))


def media_key(media: Media) -> str:
    """A picture as a line of text: what is looked at once, however many captions it has."""
    return json.dumps([media.key, media.path, media.url])


def read_media(key: str) -> Media:
    """The picture that `media_key` wrote, without its description."""
    return Media(*json.loads(key))


@dataclass(frozen=True, slots=True)
class Case:
    """A post to be judged.

    Attributes:
        post: as stored.
        answered: the post with pictures that it answers, None if there is none or it has its own pictures.
        withdrawn: id of the deleted post that takes it along, None if there is none.
        quoted: first post of the thread of the post that it quotes, None if it quotes none.
        depends_on: ids of the posts whose deletion takes it along, in all versions.
    """

    post: Stored
    answered: Stored | None = None
    withdrawn: str | None = None
    quoted: str | None = None
    depends_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules on posts say: the candidates of a post, or the reason why it has none."""

    candidates: tuple[Candidate, ...] = ()
    dropped: Dropped | None = None


def select(
    ledger: Ledger,
    rules: RuleSettings,
    cleaner: TextCleaner,
    deleted: frozenset[str],
    labels: Mapping[str, str],
    engine: Engine,
) -> None:
    """Applies the rules on posts and pairs what is left with its pictures.

    A reply that names a disease and is the most liked of its thread describes the first picture of the post
    it answers; that post may itself fall by its words (a question, say), not by its nature.

    Args:
        ledger: with the posts read; gets the table of candidates.
        rules: settings.
        cleaner: makes captions.
        deleted: ids from the file of tombstones, and from the dump itself.
        labels: media key → class name, where labels are known apart from the posts.
        engine: that spreads the work.
    """
    with ledger.stage("select", ["candidate", "repeated"]) as todo:
        if not todo:
            return
        judge = partial(judge_partition, rules=_frozen(rules), cleaner=_frozen(cleaner))
        cases = track(_cases(ledger, deleted), "Applying rules", total=len(ledger.posts))
        kept = 0
        for verdicts in in_batches(engine.map(judge, cases, POSTS_PER_PARTITION), 1000):
            kept += sum(one.dropped is None for one in verdicts)
            ledger.drop("select", (one.dropped for one in verdicts if one.dropped is not None))
            found = (candidate for one in verdicts for candidate in one.candidates)
            _add(ledger, [_labelled(candidate, labels) for candidate in found])
            ledger.database.commit()
        ledger.set("posts kept", str(kept - _keep_most_liked(ledger)))


def judge_partition(cases: list[Case], rules: str, cleaner: str) -> list[Verdict]:
    """Judges some posts: the pure function that the engine spreads.

    Args:
        cases: the posts.
        rules: the fields of `RuleSettings` as JSON, which processes keep compiled.
        cleaner: those of `TextCleaner`.
    """
    settings, clean = _settings(rules), _cleaner(cleaner)
    return [judge(case, settings, clean) for case in cases]


def judge(case: Case, settings: RuleSettings, cleaner: TextCleaner) -> Verdict:
    """Judges one post."""
    post = case.post.read()
    answered = case.answered.read() if case.answered else None
    seen = Seen(post, cleaner, answered, case.withdrawn)
    if reason := first_reason(seen, settings):
        return Verdict(dropped=Dropped(post.id, *reason, post.id))
    if not post.media and answered is None:
        where = "the post it answers has none here" if seen.is_reply else "none in the post"
        return Verdict(dropped=Dropped(post.id, "no_image", f"no picture: {where}", post.id))
    return Verdict(tuple(_candidates(case, post, seen.caption, answered or post)))


def _candidates(case: Case, post: Post, caption: str, pictured: Post) -> Iterator[Candidate]:
    media = pictured.media if pictured is post else pictured.media[:1]
    # A thread often goes on with more pictures of its case, by the same author or by others.
    head = (case.answered or case.post).head
    group = f"{post.platform}:case:{pictured.case}" if pictured.case else f"{post.platform}:{head}"
    for picture in media:
        name = post.id if picture.key == post.id else f"{post.id}_{picture.key}"
        yield Candidate(
            id=file_name(name),
            post=post.id,
            pictured=pictured.id if pictured is not post else None,
            depends_on="\n".join(case.depends_on),
            linked=f"{post.platform}:{case.quoted}" if case.quoted else None,
            author=post.author,
            likes=post.metrics.get("like_count", 0),
            moment=post.created_at.timestamp() if post.created_at else None,
            created_at=post.created_at.isoformat() if post.created_at else None,
            media=media_key(picture),
            text=caption,
            group=group,
            source=post.platform,
            licence=post.licence,
            label=post.label,
            split=post.split,
        )


def file_name(name: str) -> str:
    """The name with only letters, digits, '_' and '-'; a hash keeps changed names apart."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name)
    if plain == name and len(name) <= 75:  # a shard's keys have 90: a number or a panel may follow
        return name
    return f"{plain.strip('-')[-60:]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _cases(ledger: Ledger, deleted: frozenset[str]) -> Iterator[Case]:
    """The posts with what a rule must know besides; looked up some hundreds at a time."""
    withdrawn = ledger.posts.withdrawn(deleted)
    for batch in in_batches(ledger.posts.stored(), POSTS_PER_PARTITION):
        named = {name for post in batch for name in (post.parent, post.thread, post.quotes) if name}
        others = ledger.posts.find(named)
        above = _above(ledger, batch, others)
        names = ledger.posts.names(root for roots in above.values() for root in roots)
        for post in batch:
            depends_on = set().union(*(names[root] for root in above[post.root]))
            other = others.get(post.quotes) if post.quotes else None
            quoted = other.head if other else post.quotes
            yield Case(
                post,
                _answered(post, others),
                withdrawn.get(post.id),
                quoted,
                tuple(sorted(depends_on)),
            )


def _answered(post: Stored, others: Mapping[str, Stored]) -> Stored | None:
    """The post with pictures that a reply without any speaks of: its parent, or the first of its thread."""
    if post.has_media or post.parent is None:
        return None
    found = (others[name] for name in (post.parent, post.thread) if name and name in others)
    return next((other for other in found if other.has_media and other.root != post.root), None)


def _above(ledger: Ledger, batch: Sequence[Stored], others: Mapping[str, Stored]) -> dict[str, list[str]]:
    """Of each post its own root and those of the posts above it, up to the first of its thread."""
    above = {post.root: [post.root, *([post.thread] if post.thread else [])] for post in batch}
    going = {post.root: post.parent for post in batch if post.parent}
    found = dict(others)
    for _ in range(MOST_ANCESTORS):
        if not going:
            break
        for root, name in going.items():
            above[root].append(name)
        found |= ledger.posts.find(name for name in going.values() if name not in found)
        above_it = {root: found[name].parent for root, name in going.items() if name in found}
        going = {root: name for root, name in above_it.items() if name and name not in above[root]}
    return above


def _labelled(candidate: Candidate, labels: Mapping[str, str]) -> Candidate:
    if not labels:
        return candidate
    return replace(candidate, label=labels.get(read_media(candidate.media).key, candidate.label))


def _add(ledger: Ledger, candidates: list[Candidate]) -> None:
    """Adds candidates, with a number behind ids that occur again: one image may have several captions."""
    run = ledger.database.execute
    taken: set[str] = set()
    rows = []
    for candidate in candidates:
        name = candidate.id
        if name in taken or run("select 1 from candidate where id = ?", (name,)).fetchone():
            row = run("select number from repeated where id = ?", (name,)).fetchone()
            number = row[0] if row else 1
            while name in taken or run("select 1 from candidate where id = ?", (name,)).fetchone():
                number += 1
                name = f"{candidate.id}-{number}"
            run("insert or replace into repeated values (?, ?)", (candidate.id, number))
        taken.add(name)
        rows.append((name, *_FIELDS_OF(candidate)[1:]))
    columns = ", ".join("grp" if field.name == "group" else field.name for field in fields(Candidate))
    slots = ", ".join("?" * len(fields(Candidate)))
    ledger.database.executemany(f"insert into candidate ({columns}) values ({slots})", rows)


def _keep_most_liked(ledger: Ledger) -> int:
    """Of the answers to one post the most liked stays, of equals the earliest; see Huang et al. 2023.

    Returns:
        How many fell.
    """
    ranked = (
        "select number, post, pictured, likes, row_number() over ("
        " partition by pictured order by likes desc, moment is null, moment, post) as place"
        " from candidate where pictured is not null"
    )
    losers = list(
        ledger.rows(f"select number, post, pictured, likes from ({ranked}) where place > 1 order by number")
    )
    ledger.drop(
        "select",
        (
            Dropped(post, "reply_not_most_liked", f"{likes} likes under {of}", post)
            for _, post, of, likes in losers
        ),
    )
    ledger.database.executemany("delete from candidate where number = ?", ((row[0],) for row in losers))
    ledger.database.commit()
    return len(losers)


def _frozen(settings: RuleSettings | TextCleaner) -> str:
    """The settings as JSON, with the hashes of the files that they name: another file is another setting."""
    fields_ = asdict(settings)
    return json.dumps({"fields": fields_, "files": file_hashes(fields_)}, sort_keys=True)


@cache
def _settings(frozen: str) -> RuleSettings:
    return RuleSettings(**json.loads(frozen)["fields"])


@cache
def _cleaner(frozen: str) -> TextCleaner:
    return TextCleaner(**json.loads(frozen)["fields"])
