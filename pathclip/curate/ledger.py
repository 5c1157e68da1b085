"""What a curation has done so far, on disk: its memory stays small, and a killed run goes on from here."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from pathclip.errors import DataError
from pathclip.sources.distinct import DistinctPosts, in_batches
from pathclip.types import Dropped

FILE = "ledger.sqlite"
LOCK = "lock.sqlite"
UNFINISHED = ".unfinished"  # folder beside the shards, of what is not whole yet
_EMPTIED = {f"{FILE}-wal": 0, FILE: 1}
_SCHEMA = """
create table if not exists state (key text primary key, value text) without rowid;
create table if not exists dropped (
    number integer primary key, stage text, id text, reason text, detail text, post text
);
create table if not exists notice (number integer primary key, kind text);
create table if not exists tombstone (id text primary key) without rowid;
create table if not exists candidate (
    number integer primary key, id text unique, post text, pictured text, depends_on text,
    linked text, author text, likes integer, moment real, created_at text, media text, text text,
    grp text, source text, licence text, label text, split text
);
create table if not exists repeated (id text primary key, number integer) without rowid;
create index if not exists candidate_by_age on candidate (moment is null, moment, number);
create table if not exists fetched (url text primary key, path text, reason text, detail text) without rowid;
create table if not exists picture (
    media text, panel integer, place text, reason text, detail text, sha256 text, width integer,
    height integer, hashes text, flags text, box text, primary key (media, panel)
) without rowid;
create table if not exists pair (
    number integer primary key, candidate integer, panel integer, id text, grp text, place integer,
    split text
);
create view if not exists paired as
    select p.number, p.id, p.grp, p.place as row, p.split, c.post, c.pictured, c.depends_on, c.author, c.text,
        c.source, c.created_at, c.licence, c.label, c.split as prescribed, i.place, i.box, i.sha256, i.width,
        i.height, i.hashes, i.flags
    from pair p join candidate c on c.number = p.candidate
    join picture i on i.media = c.media and i.panel = p.panel;
create table if not exists shard (
    split text, name text, samples integer, sha256 text, primary key (split, name)
) without rowid;
"""


class Ledger:
    """An SQLite file in the folder of what is not whole yet.

    One process at a time may have it open. What belongs to a stage that was not finished is deleted when the
    stage starts again, except what says so.

    Attributes:
        folder: where it lies; the shards to be are staged there too.
        database: its connection; each stage knows its own tables.
        posts: of the dump.
    """

    def __init__(self, folder: Path, key: str):
        """Opens the ledger of a curation, or begins one.

        Args:
            folder: made if needed.
            key: names the settings and the dump; the ledger of another curation is deleted.

        Raises:
            DataError: another process is at work in the folder.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.database = self._open()
        if self.get("key") != key:
            self.database.close()
            self._empty()
            self.database = self._open()
            self.set("key", key)
        self.posts = DistinctPosts(self.database)

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.folder / FILE, timeout=0)
        try:
            # Exclusive from the first write to the end; no shared memory, which network file systems lack.
            database.executescript(
                "pragma locking_mode = exclusive; pragma journal_mode = wal; pragma synchronous = normal;"
                "pragma cache_size = -65536; pragma wal_autocheckpoint = 4000;" + _SCHEMA
            )
            database.execute("insert or replace into state values ('open', 'yes')")
            database.commit()
        except sqlite3.DatabaseError as error:
            database.close()
            if "locked" in str(error):
                raise DataError(
                    f"{self.folder.parent}: another `pathclip curate` is at work in this folder; wait for "
                    "it, or name another: out=..."
                ) from None
            if "full" in str(error) or "I/O" in str(error):
                raise
            self._empty()  # a machine that lost power may have left half a file; the dump is still there
            return self._open()
        return database

    def _empty(self) -> None:
        # The file before all that it speaks of, and before it what belongs to it.
        for path in sorted(self.folder.iterdir(), key=lambda path: _EMPTIED.get(path.name, 2)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.database.close()

    def get(self, key: str) -> str | None:
        """A value of the state, None where it was never set."""
        row = self.database.execute("select value from state where key = ?", (key,)).fetchone()
        return row[0] if row else None

    def set(self, key: str, value: str) -> None:
        """Sets a value of the state."""
        self.database.execute("insert or replace into state values (?, ?)", (key, value))
        self.database.commit()

    @contextlib.contextmanager
    def stage(self, name: str, tables: Sequence[str] = ()) -> Iterator[bool]:
        """Yields whether the stage is still to be done; it counts as done when the block ends well.

        Args:
            name: of the stage.
            tables: that it fills alone: emptied first, as are its dropped rows.
        """
        todo = self.get(f"stage {name}") is None
        if todo:
            for table in tables:
                self.database.execute(f"delete from {table}")
            self.database.execute("delete from dropped where stage = ?", (name,))
            self.database.commit()
        yield todo
        if todo:
            self.set(f"stage {name}", "done")

    def drop(self, stage: str, rows: Iterable[Dropped]) -> None:
        """Notes rows that fell, in the order in which they are to be told."""
        self.database.executemany(
            "insert into dropped (stage, id, reason, detail, post) values (?, ?, ?, ?, ?)",
            ((stage, row.id, row.reason, row.detail, row.post) for row in rows),
        )

    def dropped(self) -> Iterator[Dropped]:
        """Every row that fell, in the order in which it was noted."""
        query = "select id, reason, detail, post from dropped order by number"
        return (Dropped(*row) for row in self.rows(query))

    def rows(self, query: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """The rows of a query, a thousand at a time in memory."""
        cursor = self.database.execute(query, values)
        while rows := cursor.fetchmany(1000):
            yield from rows

    def snapshot(self, query: str) -> tuple[int, Iterator[Any]]:
        """The number of rows of a query, and the rows as they are now, whatever is written meanwhile."""
        self.database.execute("drop table if exists temp.snapshot")
        self.database.execute(f"create temp table snapshot as {query}")
        (count,) = self.database.execute("select count(*) from snapshot").fetchone()
        return count, self.rows("select * from snapshot order by rowid")

    def write(self, query: str, rows: Iterable[Sequence[Any]]) -> None:
        """Runs a query for each of the rows and commits now and then."""
        for batch in in_batches(rows, 1000):
            self.database.executemany(query, batch)
            self.database.commit()


@contextlib.contextmanager
def sole(folder: Path) -> Iterator[None]:
    """Keeps every other process out of a folder as long as the block runs.

    Raises:
        DataError: another process is at work in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(folder / LOCK, timeout=0, isolation_level=None)) as database:
        try:
            database.execute("begin exclusive")
        except sqlite3.OperationalError:
            raise DataError(f"{folder}: another process is at work in this folder; wait for it") from None
        yield
