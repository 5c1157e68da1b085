"""Counts that add up, a file of every dropped row, and the audit against a known truth."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathclip import atomic
from pathclip.curate.rules import REASONS
from pathclip.errors import DataError
from pathclip.types import Dropped

PAIR_REASONS = REASONS[REASONS.index("duplicate_pair") :]


@dataclass(frozen=True, slots=True)
class Step:
    """One rule of the funnel: how many rows it dropped, and how many were left after it."""

    reason: str
    dropped: int
    left: int


def steps(rows: int, dropped: Iterable[Dropped], kept: int) -> list[Step]:
    """The rules in their order with what each dropped; rules that dropped nothing included.

    Raises:
        AssertionError: `rows` is not the sum of all that was dropped and kept: a row was lost.
    """
    counts = Counter(row.reason for row in dropped)
    found = []
    left = rows
    for reason in (*REASONS, *sorted(counts.keys() - set(REASONS))):
        left -= counts[reason]
        found.append(Step(reason, counts[reason], left))
    if left != kept:
        raise AssertionError(f"the funnel does not add up: {rows} rows, {left} left, but {kept} kept")
    return found


def funnel(
    read: int,
    posts_dropped: Sequence[Dropped],
    posts_kept: int,
    candidates: int,
    pairs_dropped: Sequence[Dropped],
    pairs_kept: int,
    splits: Mapping[str, int],
    split_by: str,
) -> dict[str, Any]:
    """The content of `funnel.json`: posts → kept posts, their pictures → pairs, pairs → splits."""
    return {
        "posts": _part(read, posts_dropped, posts_kept, None),
        "pairs": _part(candidates, pairs_dropped, pairs_kept, PAIR_REASONS),
        "splits": dict(splits),
        "split_by": split_by,
    }


def _part(rows: int, dropped: Sequence[Dropped], kept: int, only: Sequence[str] | None) -> dict[str, Any]:
    found = [
        {"reason": step.reason, "dropped": step.dropped, "left": step.left}
        for step in steps(rows, dropped, kept)
        if step.dropped or (step.reason in PAIR_REASONS) == (only is not None)
    ]
    return {"read": rows, "steps": found, "kept": kept}


def write_dropped(path: Path, dropped: Sequence[Dropped]) -> None:
    """Writes id, reason and detail of every dropped row as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            name: pa.array([getattr(row, name) for row in dropped], pa.string())
            for name in ("id", "reason", "detail")
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    atomic.write_bytes(path, buffer.getvalue())


def read_dropped(path: Path) -> list[Dropped]:
    """Reads what `write_dropped` wrote.

    Raises:
        DataError: no such file, or not such a table.
    """
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path, columns=["id", "reason", "detail"]).to_pylist()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; `pathclip curate` writes it") from None
    except Exception as error:  # pyarrow's own exceptions, none of which says which file
        raise DataError(f"{path}: not a table of dropped rows ({error})") from error
    return [Dropped(**row) for row in rows]


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
