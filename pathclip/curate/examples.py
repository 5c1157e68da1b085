"""Draws the rows that the report shows: ten at random for each reason, with text and picture."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator

from pathclip.curate.image_files import PictureFiles, Place
from pathclip.curate.images import cut
from pathclip.curate.ledger import Ledger
from pathclip.curate.report import EXAMPLES, Example
from pathclip.curate.rules import REASONS
from pathclip.errors import DataError
from pathclip.types import Dropped

# Larger pictures are not shown; nor decoded, so that a report costs little.
MAX_BYTES = 16 * 1024 * 1024


def draw_examples(ledger: Ledger, files: PictureFiles, seed: int) -> dict[str, list[Example]]:
    """The examples by reason, 'kept' first; the same ones for the same rows and seed."""
    rows: dict[str, list[Dropped]] = {}
    for row in _lowest(ledger.dropped(), seed):
        rows.setdefault(row.reason, []).append(row)
    kept = _lowest((Dropped(name, "kept") for (name,) in ledger.rows("select id from pair")), seed)
    examples = {"kept": [_example(ledger, files, row) for row in kept]}
    order = [*REASONS, *sorted(rows.keys() - set(REASONS))]
    return examples | {
        reason: [_example(ledger, files, row) for row in rows[reason]] for reason in order if reason in rows
    }


def _lowest(rows: Iterable[Dropped], seed: int) -> Iterator[Dropped]:
    """Of each reason the rows whose hashes are lowest: a random choice in one pass and little memory."""
    chosen: dict[str, list[tuple[int, int, Dropped]]] = {}
    for number, row in enumerate(rows):
        digest = hashlib.blake2b(f"{seed}:{row.id}".encode(errors="replace"), digest_size=8).digest()
        heap = chosen.setdefault(row.reason, [])
        entry = (-int.from_bytes(digest, "big"), -number, row)
        if len(heap) < EXAMPLES:
            heapq.heappush(heap, entry)
        elif entry > heap[0]:
            heapq.heapreplace(heap, entry)
    for heap in chosen.values():
        yield from (row for *_, row in sorted(heap, reverse=True))


def _example(ledger: Ledger, files: PictureFiles, row: Dropped) -> Example:
    query = (
        "select c.text, i.place, i.box, c.post, c.pictured from candidate c"
        " left join picture i on i.media = c.media and i.panel = ? where c.id = ?"
    )
    name, _, panel = row.id.partition("-panel")
    number = int(panel.partition("-")[0]) if panel.partition("-")[0].isdecimal() else 0
    for its_panel, its_name in ((0, row.id), (number, name)):  # an id may itself end so
        if found := next(ledger.rows(query, (its_panel, its_name)), None):
            text, line, box, *named = found
            picture = _picture(Place.parse(line), json.loads(box) if box else None) if line else None
            return Example(row.id, text, row.detail, picture, _hidden(ledger, named))
    stored = ledger.posts.find([row.id]).get(row.id) or ledger.posts.first_row(row.id)
    if stored is None:
        return Example(row.id, "", row.detail, None)
    post = stored.read()
    place = files.find(post.media[0]) if post.media else None
    hidden = _hidden(ledger, [post.id, post.in_reply_to])
    return Example(row.id, post.text, row.detail, _picture(place) if place else None, hidden)


def _hidden(ledger: Ledger, posts: Iterable[str | None]) -> str:
    """Why posts must not be shown, whatever else they fell for; '' if they may."""
    flags = {
        flag
        for stored in ledger.posts.find(name for name in posts if name).values()
        for flag in stored.read().flags
    }
    words = {"deleted": "deleted", "withheld": "withheld", "sensitive": "marked sensitive"}
    return next((said for flag, said in words.items() if flag in flags), "")


def _picture(place: Place, box: tuple[int, int, int, int] | None = None) -> bytes | None:
    try:
        content = place.read() if place.length() <= MAX_BYTES else None
        return cut(content, box) if content and box else content
    except (OSError, DataError):
        return None
