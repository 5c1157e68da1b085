"""Keeps each post of a dump once, on disk: a dump may be larger than the memory.

A post stands in a dump as often as it was collected, answered, quoted or edited. What comes out is its last
version, as collected itself rather than carried along by another post, with its pictures described.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any, Self

from pathclip.types import Malformed, Media, Notice, Post

BATCH = 1000  # posts per transaction: enough that its cost does not count
# Marks of any copy count: a post that one copy says is withheld stays withheld. A bit each.
MARKS = {"sensitive": 1, "withheld": 2, "deleted": 4}
_SCHEMA = """
create table if not exists post (
    root text primary key, number integer, version_length integer, version text, standing integer,
    marks integer, parent text, thread text, quotes text, media integer, content text
) without rowid;
create unique index if not exists post_by_number on post (number);
create table if not exists version (id text primary key, root text) without rowid;
create table if not exists appearance (
    file integer, root text, retweet integer, edit integer, referenced integer, media integer,
    primary key (file, root)
) without rowid;
create table if not exists dump_file (
    number integer primary key, name text, found integer, malformed integer, other integer
);
"""
_KEEP = """
insert into post values (?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?) on conflict (root) do update set
    version_length = excluded.version_length, version = excluded.version, standing = excluded.standing,
    parent = excluded.parent, thread = excluded.thread, quotes = excluded.quotes, media = excluded.media,
    content = excluded.content
where (excluded.version_length, excluded.version, excluded.standing)
    > (post.version_length, post.version, post.standing)
"""
_COUNTS = """
select f.name, f.found, f.malformed, f.other,
    coalesce(sum(not a.referenced), 0), coalesce(sum(a.retweet and not a.referenced), 0),
    coalesce(sum(a.edit and not a.referenced), 0), coalesce(sum(a.media * (not a.referenced)), 0),
    coalesce(sum(a.referenced), 0)
from dump_file f left join appearance a on a.file = f.number group by f.number order by f.number
"""


# Every post with the first one of its thread, as far as answers lead there within the dump.
_CHAIN = """
create temp table chain as with recursive found (root, head) as (
    select p.root, coalesce(p.thread, iif(p.parent is not null and q.root is null, p.parent, p.root))
    from post p left join post q on q.root = p.parent
    where p.thread is not null or p.parent is null or q.root is null
    union all
    select p.root, f.head from found f join post p on p.parent = f.root where p.thread is null
) select root, head from found
"""


@dataclass(frozen=True, slots=True)
class FileCount:
    """What one file of a dump holds.

    Attributes:
        file: its name.
        found: posts in it, repeats and earlier versions included.
        malformed: lines that hold nothing known.
        other: records that are no posts.
        posts: distinct ones, however often edited.
        retweets: of them.
        edits: posts of them that were edited, as far as the file tells.
        media: pictures and films of the distinct posts; of an edited one, of the version that has most.
        referenced: further distinct posts that came along with one that answers, quotes or repeats them.
    """

    file: str
    found: int
    malformed: int
    other: int
    posts: int
    retweets: int
    edits: int
    media: int
    referenced: int


_STORED = "root, version, content, marks, parent, thread, quotes, media"


@dataclass(frozen=True, slots=True)
class Stored:
    """A post as it lies on disk: what tells whether to read it, and the rest as JSON.

    Attributes:
        root: its name in the store: the id of its first version.
        id: of its last version.
        content: see `encode`.
        marks: of all copies, see `MARKS`.
        parent: root of the post that it answers; its id, where the dump lacks it.
        thread: likewise of the first post of the thread, None where it is that itself.
        quotes: likewise of the post that it quotes.
        has_media: whether it has pictures.
    """

    root: str
    id: str
    content: str
    marks: int
    parent: str | None
    thread: str | None
    quotes: str | None
    has_media: int

    @property
    def head(self) -> str:
        """Root of the first post of its thread, or of itself, as an id."""
        return self.thread or self.root.partition("\0")[0]

    def read(self) -> Post:
        """The post, with the marks of all its copies."""
        post = decode(self.content)
        flags = {name for name, bit in MARKS.items() if self.marks & bit}
        return post if flags <= post.flags else replace(post, flags=post.flags | flags)


class DistinctPosts:
    """The distinct posts of a dump, in an SQLite file.

    Memory does not grow with the dump. Iterating yields the posts in the order in which they first appeared.
    """

    def __init__(self, database: sqlite3.Connection | None = None):
        """Opens the tables in a database, or in a temporary file that `close` deletes."""
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if database is None:
            self._folder = tempfile.TemporaryDirectory(prefix="pathclip-posts-")
            database = sqlite3.connect(Path(self._folder.name) / "posts.sqlite")
            database.executescript("pragma journal_mode = off; pragma synchronous = off")
        self._database = database
        self._settled = False
        database.executescript(_SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes and deletes the temporary file; a database that was given stays open."""
        if self._folder is not None:
            self._database.close()
            self._folder.cleanup()

    def add(
        self, file: str, items: Iterable[Post | Malformed | Notice], repeats: bool = False
    ) -> Iterator[Malformed | Notice]:
        """Keeps the posts of one file and yields what is none.

        Args:
            file: its name.
            items: as a reader yields them.
            repeats: posts of the same id are different ones, as rows of a table are.
        """
        self._settled = False
        (files,) = self._database.execute("select count(*) from dump_file").fetchone()
        (number,) = self._database.execute("select coalesce(max(number) + 1, 0) from post").fetchone()
        counts = {"found": 0, "malformed": 0, "other": 0}
        self._database.execute("insert into dump_file values (?, ?, 0, 0, 0)", (files, file))
        for batch in in_batches(items, BATCH):
            posts = [item for item in batch if isinstance(item, Post)]
            self._keep(posts, files, number, repeats)
            number += len(posts)
            counts["found"] += len(posts)
            counts["malformed"] += sum(isinstance(item, Malformed) for item in batch)
            counts["other"] += sum(isinstance(item, Notice) for item in batch)
            yield from (item for item in batch if not isinstance(item, Post))
        self._database.execute(
            "update dump_file set found = ?, malformed = ?, other = ? where number = ?",
            (*counts.values(), files),
        )
        self._database.commit()

    def _keep(self, posts: Sequence[Post], file: int, number: int, repeats: bool) -> None:
        rows, appearances, versions, marks = [], [], [], []
        for place, post in enumerate(posts, number):
            root = f"{post.id}\0{place}" if repeats else (post.versions or (post.id,))[0]
            referenced = "referenced" in post.flags
            # Of copies of one version the best is an edit under the same id, then what was collected itself,
            # then what has its pictures described.
            standing = 10_000 * ("edited" in post.flags) + 1000 * (not referenced)
            standing += min(sum(one.url is not None for one in post.media), 999)
            # Ids of most platforms grow with time, and as digits they compare by length first.
            facts = (post.in_reply_to, post.conversation, post.quotes, bool(post.media), encode(post))
            rows.append((root, place, len(post.id), post.id, standing, *facts))
            kinds = ("retweet" in post.flags, len(post.versions) > 1, referenced, len(post.media))
            appearances.append((file, root, *map(int, kinds)))
            versions += [(version, root) for version in post.versions if version != root]
            if mark := sum(bit for name, bit in MARKS.items() if name in post.flags):
                marks.append((mark, root))
        run = self._database.executemany
        run(_KEEP, rows)
        run(
            "insert into appearance values (?, ?, ?, ?, ?, ?) on conflict do update set"
            " edit = max(edit, excluded.edit), referenced = min(referenced, excluded.referenced),"
            " media = max(media, excluded.media)",
            appearances,
        )
        run("insert or ignore into version values (?, ?)", versions)
        run("update post set marks = marks | ? where root = ?", marks)
        self._database.commit()

    def __len__(self) -> int:
        return int(self._database.execute("select count(*) from post").fetchone()[0])

    def __iter__(self) -> Iterator[Post]:
        return (one.read() for one in self.stored())

    def stored(self) -> Iterator[Stored]:
        """The posts in their order, as they are stored."""
        self._settle()
        cursor = self._database.execute(f"select {_STORED} from post order by number")
        while rows := cursor.fetchmany(BATCH):
            yield from (Stored(*row) for row in rows)

    def find(self, ids: Iterable[str]) -> dict[str, Stored]:
        """The posts with these ids, as id → last version; ids that the dump lacks are left out."""
        self._settle()
        found: dict[str, Stored] = {}
        for some in in_batches(dict.fromkeys(ids), 500):
            slots = ",".join("?" * len(some))
            rows = self._database.execute(f"select id, root from version where id in ({slots})", some)
            roots = {name: name for name in some} | dict(rows)
            slots = ",".join("?" * len(roots))
            rows = self._database.execute(
                f"select {_STORED} from post where root in ({slots})", list(roots.values())
            )
            posts = {row[0]: Stored(*row) for row in rows}
            found |= {name: posts[root] for name, root in roots.items() if root in posts}
        return found

    def first_row(self, name: str) -> Stored | None:
        """The first post of an id, where posts of the same id are different ones; None if there is none."""
        query = f"select {_STORED} from post where root > ? and root < ? order by number limit 1"
        row = self._database.execute(query, (f"{name}\0", f"{name}\1")).fetchone()
        return Stored(*row) if row else None

    def counts(self) -> list[FileCount]:
        """What each file holds, in the order in which they were read."""
        return [FileCount(*row) for row in self._database.execute(_COUNTS)]

    def withdrawn(self, ids: Iterable[str]) -> dict[str, str]:
        """The posts that fall with deleted ones: those themselves, their replies and all that follows those.

        Args:
            ids: of the deleted posts, in any version.

        Returns:
            Id of a post, as it stands in this dump → the deleted id that takes it along. Deleted ids that
            the dump lacks are left out.
        """
        self._settle()
        run = self._database.execute
        run("drop table if exists temp.dead")
        run("create temp table dead (root text primary key, by text, level integer) without rowid")
        run("create index temp.dead_by_level on dead (level)")
        for some in in_batches(ids, BATCH):
            self._database.executemany(
                "insert or ignore into dead values (?, ?, 0)", ((one, one) for one in some)
            )
        if not run("select 1 from dead limit 1").fetchone():
            return {}
        for column in ("parent", "thread", "version"):
            run(f"create index if not exists post_by_{column} on post ({column})")
        for named in ("select root, id as name from version", "select root, version as name from post"):
            query = f"select n.root, d.by, 0 from dead d join ({named}) n on n.name = d.root"
            run(f"insert or ignore into dead {query}")
        # The first post of a thread takes along all of it; any other its own answers, level by level.
        level, grown = 0, True
        while grown:
            grown = False
            for column in ("thread", "parent"):
                query = (
                    f"select p.root, d.by, ? from dead d join post p on p.{column} = d.root where d.level = ?"
                )
                grown |= run(f"insert or ignore into dead {query}", (level + 1, level)).rowcount > 0
            level += 1
        rows = run("select p.version, d.by from dead d join post p on p.root = d.root").fetchall()
        self._database.commit()
        return dict(rows)

    def names(self, roots: Iterable[str]) -> dict[str, set[str]]:
        """Every id of posts, in all of their versions, by root; of what the dump lacks the id itself."""
        found: dict[str, set[str]] = {}
        for some in in_batches(dict.fromkeys(roots), 500):
            slots = ",".join("?" * len(some))
            found |= {root: {root.partition("\0")[0]} for root in some}
            for query in ("select root, version from post", "select root, id from version"):
                for root, name in self._database.execute(f"{query} where root in ({slots})", some):
                    found[root].add(name)
        return found

    def _settle(self) -> None:
        """Names posts that others refer to by their roots, and finds the thread of answers that name none."""
        if self._settled:
            return
        run = self._database.execute
        run("create index if not exists post_by_parent on post (parent)")
        run("create index if not exists version_by_root on version (root)")
        for column in ("parent", "thread", "quotes"):
            run(
                f"update post set {column} = (select v.root from version v where v.id = {column})"
                f" where {column} in (select id from version)"
            )
        if run("select 1 from post where thread is null and parent is not null limit 1").fetchone():
            run("drop table if exists temp.chain")
            run(_CHAIN)
            run("create index temp.chain_by_root on chain (root)")
            run(
                "update post set thread = (select c.head from chain c where c.root = post.root)"
                " where thread is null and parent is not null"
            )
            run("drop table temp.chain")
        run("update post set thread = null where thread = root")
        self._database.commit()
        self._settled = True


def encode(post: Post) -> str:
    """A post as JSON."""
    row = list(_FIELDS_OF(post))
    row[_MEDIA] = [(one.key, one.path, one.url, one.alt_text) for one in post.media]
    row[_TIME] = post.created_at.isoformat() if post.created_at else None
    row[_FLAGS] = sorted(post.flags)
    row[_METRICS] = dict(post.metrics)
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"))


def decode(content: str) -> Post:
    """The post that `encode` wrote."""
    row: list[Any] = json.loads(content)
    row[_MEDIA] = tuple(Media(*one) for one in row[_MEDIA])
    row[_TIME] = datetime.fromisoformat(row[_TIME]) if row[_TIME] else None
    row[_FLAGS] = frozenset(row[_FLAGS])
    for place in _TUPLES:
        row[place] = tuple(row[place])
    return Post(*row)


_FIELDS = tuple(field.name for field in fields(Post))
_FIELDS_OF = attrgetter(*_FIELDS)
_MEDIA, _TIME, _FLAGS, _METRICS = map(_FIELDS.index, ("media", "created_at", "flags", "metrics"))
_TUPLES = tuple(map(_FIELDS.index, ("hashtags", "versions")))


def in_batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yields the items in lists of `size`, the last one shorter."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
