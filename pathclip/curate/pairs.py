"""From candidates and what was seen of their pictures to pairs: duplicates out, groups joined."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathclip.curate.dedup import DedupSettings, Groups
from pathclip.curate.embed import embed
from pathclip.curate.ledger import Ledger
from pathclip.curate.look import read_hashes
from pathclip.curate.near import Near, near_hashes
from pathclip.curate.near_captions import near_captions
from pathclip.curate.near_embeddings import near_embeddings
from pathclip.progress import track
from pathclip.types import Dropped

_IN_ORDER = """
select c.number, p.panel, c.id, c.post, c.grp, c.linked, c.text, p.reason, p.detail, p.sha256
from candidate c join picture p on p.media = c.media
order by c.moment is null, c.moment, c.number, p.panel
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate with one picture: usually all of its file, of a mixed figure one panel."""

    candidate: int
    panel: int
    id: str
    post: str
    group: str
    linked: str | None
    text: str
    reason: str
    detail: str
    sha256: str


def make_pairs(ledger: Ledger, settings: DedupSettings) -> None:
    """Applies the rules on pictures and pairs, in the published order, the oldest post first.

    Of duplicates the earliest stays. Pictures of one post and of its replies are never near-duplicates of
    each other: they share a group anyway. A duplicate that is dropped still joins its group with that of the
    picture it repeats: both posts show one case, and the other fields of the later post must not be parted
    from it.

    Args:
        ledger: with candidates and pictures; gets the table of pairs in the order of their posts.
        settings: of the search for duplicates.
    """
    with ledger.stage("pairs", ["pair"]) as todo:
        if todo:
            groups = Groups()
            _without_duplicates(ledger, groups)
            _without_near_duplicates(ledger, settings, groups)
            if settings.captions == "group":
                _join_near_captions(ledger, settings, groups)
            _name_groups(ledger, groups)


def _without_duplicates(ledger: Ledger, groups: Groups) -> None:
    """Drops what has the picture and the caption of an earlier pair, and what a rule on pictures drops."""
    (total,) = ledger.database.execute("select count(*) from candidate").fetchone()
    first_with: dict[bytes, str] = {}
    first_group: dict[bytes, str] = {}
    place = 0
    rows = (Row(*row) for row in ledger.rows(_IN_ORDER))
    for row in track(rows, "Finding duplicates", total=total):
        name = _name(ledger, row)
        if row.linked:
            groups.join(row.group, row.linked)
        if row.sha256:
            content = hashlib.blake2b(f"{row.sha256}{row.text}".encode(), digest_size=16).digest()
            if content in first_with:
                groups.join(row.group, first_group[content])
                ledger.drop("pairs", [Dropped(name, "duplicate_pair", f"as {first_with[content]}", row.post)])
                continue
            first_with[content], first_group[content] = name, row.group
        if row.reason:
            ledger.drop("pairs", [Dropped(name, row.reason, row.detail, row.post)])
        else:
            ledger.database.execute(
                "insert into pair (candidate, panel, id, grp, place) values (?, ?, ?, ?, ?)",
                (row.candidate, row.panel, name, row.group, place),
            )
            place += 1
    ledger.database.commit()


def _name(ledger: Ledger, row: Row) -> str:
    """Id of the pair to be; that of a panel may be another's already."""
    if not row.panel:
        return row.id
    name, number = f"{row.id}-panel{row.panel}", 1
    while next(ledger.rows("select 1 from candidate where id = ?", (name,)), None):
        number += 1
        name = f"{row.id}-panel{row.panel}-{number}"
    return name


def _without_near_duplicates(ledger: Ledger, settings: DedupSettings, groups: Groups) -> None:
    """Joins the groups of near-duplicates, the same ones whether the later picture is dropped or kept.

    Dropped pictures link the posts of one case too.
    """
    pairs = _Pairs.read(ledger)
    # The very same image is one group even where nobody looks for near-duplicates.
    first_with: dict[bytes, int] = {}
    for place, digest in enumerate(pairs.sha256):
        groups.join(pairs.groups[place], pairs.groups[first_with.setdefault(digest, place)])
    if settings.near_duplicates == "off":
        return
    near = near_hashes(pairs.hashes, settings.max_distance, pairs.codes)
    gone: set[int] = set()
    _treat(near, np.arange(len(pairs.names)), "bits", pairs, settings, groups, gone, ledger)
    if settings.model:
        embeddings = embed(ledger, settings.model)
        # The search leaves out some pairs of large buckets: it ends when it finds nothing new.
        while True:
            left = np.array([row for row in range(len(pairs.names)) if row not in gone], np.int64)
            codes = _codes(str(groups.find(pairs.groups[row])) for row in left.tolist())
            near = near_embeddings(embeddings[left], settings.min_cosine, codes)
            if len(near) == 0:
                break
            _treat(near, left, "degrees", pairs, settings, groups, gone, ledger)
    ledger.database.executemany(
        "delete from pair where number = ?", ((pairs.numbers[n],) for n in sorted(gone))
    )
    ledger.database.commit()


def _treat(
    near: Near,
    rows: NDArray[np.int64],
    unit: str,
    pairs: _Pairs,
    settings: DedupSettings,
    groups: Groups,
    gone: set[int],
    ledger: Ledger,
) -> None:
    """Joins the groups of what is near and, if the settings say so, drops the later ones.

    Args:
        near: row numbers into `rows`.
        rows: of the pairs that were compared.
        unit: of the distances.
        pairs: all of them.
        settings: whether to drop.
        groups: are joined.
        gone: rows of dropped pairs; grows.
        ledger: notes what was dropped.
    """
    first_with: dict[int, int] = {}
    for row, label in zip(rows.tolist(), near.label.tolist(), strict=True):
        groups.join(pairs.groups[row], pairs.groups[first_with.setdefault(label, row)])
    if settings.near_duplicates != "drop":
        return
    found = zip(rows[near.later].tolist(), rows[near.earlier].tolist(), near.distance.tolist(), strict=True)
    for later, earlier, distance in found:  # the oldest later one first, and of each its nearest
        if later not in gone and earlier not in gone:
            gone.add(later)
            detail = f"{distance} {unit} from {pairs.names[earlier]}"
            ledger.drop("pairs", [Dropped(pairs.names[later], "near_duplicate", detail, pairs.posts[later])])


def _join_near_captions(ledger: Ledger, settings: DedupSettings, groups: Groups) -> None:
    rows = ledger.rows("select grp, author, text from paired order by number")
    for one, other in near_captions(rows, settings.min_caption_words, settings.min_caption_similarity):
        groups.join(one, other)


def _name_groups(ledger: Ledger, groups: Groups) -> None:
    """Replaces each pair's group by the name of the joined one."""
    names = ledger.rows("select distinct grp from pair")
    ledger.database.execute("create temp table if not exists renamed (old text primary key, new text)")
    ledger.database.execute("delete from renamed")
    ledger.write(
        "insert into renamed values (?, ?)",
        [(name, str(joined)) for (name,) in names if (joined := groups.find(name)) != name],
    )
    ledger.database.execute(
        "update pair set grp = (select new from renamed where old = grp)"
        " where grp in (select old from renamed)"
    )
    ledger.database.commit()


@dataclass(frozen=True, slots=True)
class _Pairs:
    """What the search for near-duplicates looks at; about 400 bytes a pair."""

    numbers: list[int]
    names: list[str]
    posts: list[str]
    groups: list[str]
    codes: NDArray[np.int64]
    sha256: list[bytes]
    hashes: NDArray[np.uint64]

    @classmethod
    def read(cls, ledger: Ledger) -> _Pairs:
        (count,) = ledger.database.execute("select count(*) from pair").fetchone()
        hashes = np.empty((count, 8), np.uint64)
        numbers, names, posts, groups, digests = [], [], [], [], []
        query = "select number, id, post, grp, sha256, hashes from paired order by number"
        for place, (number, name, post, group, sha256, digits) in enumerate(ledger.rows(query)):
            numbers.append(number)
            names.append(name)
            posts.append(post)
            groups.append(group)
            digests.append(bytes.fromhex(sha256))
            hashes[place] = read_hashes(digits)
        return cls(numbers, names, posts, groups, _codes(groups), digests, hashes)


def _codes(groups: Iterable[str]) -> NDArray[np.int64]:
    """A number for each group, by which they can be compared at once."""
    code_of: dict[str, int] = {}
    return np.array([code_of.setdefault(group, len(code_of)) for group in groups], np.int64)
