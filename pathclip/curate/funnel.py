"""Counts that add up, a file of every dropped row, and the audit against a known truth."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pathclip import atomic
from pathclip.curate.ledger import Ledger
from pathclip.curate.rules import REASONS
from pathclip.curate.split import SPLITS
from pathclip.errors import DataError
from pathclip.sources.distinct import in_batches
from pathclip.types import Dropped

_PICTURES = REASONS.index("duplicate_pair")
# A malformed line is found in reading, a repeated post before any rule is asked.
POST_REASONS = ("malformed", "repeated", *REASONS[1:_PICTURES])
PAIR_REASONS = REASONS[_PICTURES:]
_SEEN = "select 1 from picture p where p.media = c.media"


def count(ledger: Ledger, split_by: str) -> dict[str, Any]:
    """The content of `funnel.json`: posts → kept posts, their pictures → pairs, pairs → splits.

    Raises:
        AssertionError: what was read is not the sum of all that was dropped and kept: a row was lost.
    """

    def number(query: str) -> int:
        return int(ledger.database.execute(query).fetchone()[0])

    files = ledger.posts.counts()
    malformed, found = sum(file.malformed for file in files), sum(file.found for file in files)
    fell = dict(
        ledger.rows("select reason, count(*) from dropped where stage in ('read', 'select') group by reason")
    )
    # A post stands in a dump as often as it was collected, answered and edited.
    repeated = found - len(ledger.posts)
    kept = int(ledger.get("posts kept") or 0)
    lost = dict(ledger.rows("select reason, count(*) from dropped where stage = 'pairs' group by reason"))
    pictures = number("select count(*) from candidate c join picture p on p.media = c.media")
    pairs = number("select count(*) from pair")
    if unseen := number(f"select count(*) from candidate c where not exists ({_SEEN})"):
        raise AssertionError(f"the funnel does not add up: nobody looked at {unseen} pictures")
    return {
        "posts": _part(found + malformed, {"repeated": repeated} | fell, kept, POST_REASONS),
        "pairs": _part(pictures, lost, pairs, PAIR_REASONS),
        "splits": {name: _split(ledger, name) for name in SPLITS},
        "split_by": split_by,
        "leak_check": "passed",
        "files": [asdict(file) for file in files],
        "notices": dict(ledger.rows("select kind, count(*) from notice group by kind order by kind")),
        "flags": _flags(ledger),
        "languages": _languages(ledger),
    }


def _part(rows: int, dropped: Mapping[str, int], kept: int, reasons: Sequence[str]) -> dict[str, Any]:
    """The rules in their order with what each dropped and what was left; also those that dropped nothing."""
    steps, left = [], rows
    for reason in (*reasons, *sorted(dropped.keys() - set(reasons))):
        left -= dropped.get(reason, 0)
        steps.append({"reason": reason, "dropped": dropped.get(reason, 0), "left": left})
    if left != kept:
        raise AssertionError(f"the funnel does not add up: {rows} rows, {left} left, but {kept} kept")
    return {"read": rows, "steps": steps, "kept": kept}


def _split(ledger: Ledger, name: str) -> dict[str, Any]:
    query = (
        "select count(*), count(distinct grp), min(created_at), max(created_at) from paired where split = ?"
    )
    pairs, groups, first, last = ledger.database.execute(query, (name,)).fetchone()
    return {"pairs": pairs, "groups": groups, "first": first, "last": last}


def _flags(ledger: Ledger) -> dict[str, int]:
    query = "select f.value, count(*) from paired p, json_each(p.flags) f group by f.value order by f.value"
    return dict(ledger.rows(query))


def _languages(ledger: Ledger) -> dict[str, int]:
    """Language → posts that fell for it; what the rule saw begins with its code."""
    query = (
        "select rtrim(substr(detail, 1, instr(detail, ' ') - 1), ','), count(*) from dropped"
        " where reason = 'language' group by 1 order by 1"
    )
    return dict(ledger.rows(query))


def write_dropped(path: Path, dropped: Iterable[Dropped]) -> None:
    """Writes id, reason, detail and post of every dropped row as Parquet, some thousand rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [field.name for field in fields(Dropped)]
    schema = pa.schema([(name, pa.string()) for name in names])
    with atomic.staged_file(path) as staged, pq.ParquetWriter(staged, schema, compression="zstd") as writer:
        for rows in in_batches(dropped, 50_000):
            columns = [pa.array([getattr(row, name) for row in rows], pa.string()) for name in names]
            writer.write_table(pa.table(columns, schema=schema))


def read_dropped(path: Path) -> list[Dropped]:
    """Reads what `write_dropped` wrote.

    Raises:
        DataError: no such file, or not such a table.
    """
    return list(read_rows(path))


def read_rows(path: Path) -> Iterator[Dropped]:
    """Yields the rows of `read_dropped`, some thousand at a time in memory."""
    import pyarrow.parquet as pq

    names = [field.name for field in fields(Dropped)]
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=names):
                yield from (Dropped(**row) for row in batch.to_pylist())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; `pathclip curate` writes it") from None
    except Exception as error:  # pyarrow's own exceptions, none of which says which file
        raise DataError(f"{path}: not a table of dropped rows ({error})") from error


@dataclass(frozen=True, slots=True)
class RuleScore:
    """How well a rule did where the truth is known.

    Attributes:
        reason: its code.
        n: rows that it truly concerns.
        found: rows that it dropped.
        precision: share of what it dropped that it truly concerns; 1 if it dropped nothing.
        recall: share of what it truly concerns that it dropped; 1 if there is nothing.
    """

    reason: str
    n: int
    found: int
    precision: float
    recall: float


def audit(dropped: Iterable[Dropped], truth_path: Path) -> list[RuleScore]:
    """Compares the dropped rows with the truth of a synthetic feed.

    A row counts as found only under its own reason: a question that fell as an advertisement is a miss of
    one rule and a false alarm of the other.

    Args:
        dropped: of a whole run.
        truth_path: `truth.jsonl` beside the feed, see `pathclip.sources.synthetic.Feed`.

    Returns:
        One score per reason that is true of any row or was given to any, and last 'kept', where precision
        and recall are those of the pairs that stay: pictures of posts, and answers, each with the picture of
        the post it answers, which may itself fall for asking.

    Raises:
        DataError: no such file, or a row without kind, id and reason.
    """
    truth: dict[str, set[str]] = {}
    rows = _truth(truth_path)
    post_of = {row["id"]: row["post"] for row in rows if row["kind"] == "media"}
    pictured = set(post_of.values())
    # An answer, which has no picture of its own, stands for its one pair.
    answers = {row["id"] for row in rows if row["kind"] == "post"} - pictured
    pairs = post_of | {answer: answer for answer in answers}
    for row in rows:
        unit = {"post": "media", "media": "post"}.get(row["kind"])
        on_pictures = row["reason"] in PAIR_REASONS
        # Rules on posts are scored on posts, rules on pictures on pictures.
        if row["reason"] != "kept" and (unit is None or on_pictures == (row["kind"] == "media")):
            truth.setdefault(row["reason"], set()).add(row["id"])
    given: dict[str, set[str]] = {}
    for one in dropped:
        given.setdefault(one.reason, set()).add(_unit(one, answers))
    scores = [
        _score(reason, truth.get(reason, set()), given.get(reason, set()))
        for reason in REASONS
        if reason in truth or reason in given
    ]
    lost_truly = {key for key, post in pairs.items() if _lost(key, post, truth)}
    lost = {key for key, post in pairs.items() if _lost(key, post, given)}
    return [*scores, _score("kept", pairs.keys() - lost_truly, pairs.keys() - lost)]


def _lost(key: str, post: str, rows: Mapping[str, set[str]]) -> bool:
    return any(key in ids or post in ids for ids in rows.values())


def _unit(one: Dropped, answers: Collection[str]) -> str:
    """The id as the truth writes it: line number, post id or media key; of an answer's pair the answer's."""
    if one.reason == "malformed":
        return one.id.rpartition(":")[2]
    post, _, key = one.id.partition("_")
    return post if post in answers else key or post


def _score(reason: str, true: set[str], found: set[str]) -> RuleScore:
    hits = len(true & found)
    return RuleScore(
        reason,
        n=len(true),
        found=len(found),
        precision=hits / len(found) if found else 1.0,
        recall=hits / len(true) if true else 1.0,
    )


def _truth(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.append(
                {name: row[name] for name in ("kind", "id", "post", "reason")} | {"label": row.get("label")}
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}, line {number}: not a row of truth ({error!r})") from None
    return rows
