"""Removes what the reports of a curation say of deleted posts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pathclip import atomic
from pathclip.curate import report
from pathclip.curate.funnel import RuleScore, read_rows, write_dropped
from pathclip.shards.reader import shard_sizes
from pathclip.shards.writer import SIZES
from pathclip.types import Dropped


def withdrawn_before(out: Path) -> int:
    """Pairs that were withdrawn from a folder of a curation until now."""
    funnel = out / "funnel.json"
    return int(json.loads(funnel.read_text(encoding="utf-8")).get("withdrawn", 0)) if funnel.is_file() else 0


def scrub_reports(out: Path, gone: frozenset[str], withdrawn: int) -> None:
    """Takes deleted posts out of `dropped.parquet` and all examples out of `report.html`.

    May be killed and called again at any moment.

    Args:
        out: folder of the curation; reports that it lacks are passed over.
        gone: ids of the deleted posts, of the replies that went with them, and of the pairs of both.
        withdrawn: pairs that were withdrawn so far, these included.
    """
    dropped, funnel = out / "dropped.parquet", out / "funnel.json"
    if funnel.is_file() and withdrawn != withdrawn_before(out):
        counted = json.loads(funnel.read_text(encoding="utf-8"))
        scores = [RuleScore(**score) for score in counted.pop("rules", [])]
        _count(counted, withdrawn, out)
        # Examples show texts and pictures; which of them are of deleted posts is no longer known.
        atomic.write_text(out / "report.html", report.render(counted, {}, scores))
        atomic.write_json(funnel, counted | {"rules": [asdict(score) for score in scores]})
    if dropped.is_file():
        named = {row.id for row in read_rows(dropped) if row.post in gone} | gone
        if any(row != kept for row, kept in _scrubbed(dropped, gone, named)):
            write_dropped(dropped, (kept for _, kept in _scrubbed(dropped, gone, named) if kept is not None))


def _count(counted: dict[str, Any], withdrawn: int, out: Path) -> None:
    """Counts what was withdrawn as a last step, so that the sums hold, and what the splits hold now."""
    pairs = counted["pairs"]
    steps = [step for step in pairs["steps"] if step["reason"] != "withdrawn"]
    left = steps[-1]["left"] - withdrawn if steps else 0
    pairs["steps"] = [*steps, {"reason": "withdrawn", "dropped": withdrawn, "left": left}]
    pairs["kept"] = left
    counted["withdrawn"] = withdrawn
    for name, part in counted["splits"].items():
        if (out / name / SIZES).is_file():
            part["pairs"] = sum(shard_sizes(out / name).values())
            part.pop("groups", None)


def _scrubbed(
    dropped: Path, gone: frozenset[str], named: Set[str]
) -> Iterator[tuple[Dropped, Dropped | None]]:
    """Yields each row with what is to be kept of it: nothing of a deleted post, and its name nowhere."""
    for row in read_rows(dropped):
        # A pair is named after its post, by the id or by what `file_name` makes of it.
        words = [
            "a withdrawn post" if word in named or word.partition("_")[0] in named else word
            for word in row.detail.split(" ")
        ]
        yield row, None if row.post in gone else replace(row, detail=" ".join(words))
