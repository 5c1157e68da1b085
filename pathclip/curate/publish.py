"""Writes the shards out of sight, then puts them in the place of earlier ones: a kill leaves no mixture."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any

from pathclip import atomic
from pathclip.curate.image_files import Changed, Place
from pathclip.curate.images import cut
from pathclip.curate.ledger import FILE, Ledger
from pathclip.curate.split import SPLITS
from pathclip.progress import track
from pathclip.shards.writer import (
    MANIFEST,
    SIZES,
    Sample,
    shard_name,
    write_manifest,
    write_shard,
)
from pathclip.types import Pair

# Beside the shards; `funnel.json` comes last and says that all the others are there.
REPORTS = ("dropped.parquet", "report.html", "funnel.json")
_PAIRS = """
select p.id, p.grp, c.text, c.post, c.source, c.created_at, c.licence, c.label, c.pictured, c.depends_on,
    i.place, i.sha256, i.width, i.height, i.hashes, i.flags, i.box
from pair p join candidate c on c.number = p.candidate
join picture i on i.media = c.media and i.panel = p.panel
where p.split = ? order by p.number limit -1 offset ?
"""


def stage_shards(ledger: Ledger, samples_per_shard: int) -> None:
    """Writes the shards of all splits beside the ledger; those that a killed run has written are kept."""
    with ledger.stage("shards") as todo:
        if not todo:
            return
        for name in SPLITS:
            (ledger.folder / name).mkdir(exist_ok=True)
            _stage_split(ledger, name, samples_per_shard)


def _stage_split(ledger: Ledger, name: str, size: int) -> None:
    run = ledger.database.execute
    (done,) = run("select count(*) from shard where split = ?", (name,)).fetchone()
    (total,) = run("select count(*) from pair where split = ?", (name,)).fetchone()
    samples = track(_samples(ledger, name, done * size), f"Writing {name}", total=total - done * size)
    while first := next(samples, None):
        shard = shard_name(done)
        count = min(size, total - done * size)
        digest = write_shard(ledger.folder / name / shard, chain([first], islice(samples, count - 1)))
        run("insert into shard values (?, ?, ?, ?)", (name, shard, count, digest))
        ledger.database.commit()
        done += 1


def _samples(ledger: Ledger, name: str, start: int) -> Iterator[Sample]:
    for row in ledger.rows(_PAIRS, (name, start)):
        (id_, group, text, post, source, created_at, licence, label, pictured, depends_on, *seen) = row
        line, sha256, width, height, hashes, flags, box = seen
        place = Place.parse(line)
        content = _read(place, sha256, json.loads(box) if box else None)
        pair = Pair(
            id=id_,
            image_sha256=sha256,
            text=text,
            post=post,
            group=group,
            source=source,
            created_at=created_at,
            licence=licence,
            label=label,
            pictured=pictured,
            depends_on=tuple(depends_on.splitlines()),
            flags=tuple(json.loads(flags)),
        )
        facts = {"width": width, "height": height, "phash": hashes[:16]}
        yield Sample(id_, content, text, asdict(pair) | facts)


def _read(place: Place, sha256: str, box: list[int] | None) -> bytes:
    """The bytes of a picture, the same as when it was looked at."""
    try:
        content = place.read()
    except OSError as error:
        raise Changed(f"{place.path}: gone since it was looked at ({error.strerror}); run again") from None
    if box:
        content = cut(content, (box[0], box[1], box[2], box[3]))
    if hashlib.sha256(content).hexdigest() != sha256:
        raise Changed(f"{place.path}: changed since it was looked at; run again")
    return content


def publish(ledger: Ledger, out: Path, config_hash: str) -> dict[str, int]:
    """Replaces what an earlier run left in `out`; may be killed and called again at any moment.

    The earlier reports and sizes go before the first move and the new ones come last: a folder whose shards
    are not all there is one that readers refuse, and no report ever lies beside other shards. Files that
    are neither stay.

    Returns:
        Split → pairs.

    Raises:
        Changed: a shard is neither beside the ledger nor in its place.
    """
    for name in REPORTS:
        if (ledger.folder / name).exists():  # else the one in `out` is new already
            (out / name).unlink(missing_ok=True)
    for split in SPLITS:
        for name in (SIZES, MANIFEST):
            (out / split / name).unlink(missing_ok=True)
    shards = {split: _shards(ledger, split) for split in SPLITS}
    for split, planned in shards.items():
        (out / split).mkdir(parents=True, exist_ok=True)
        for earlier in (out / split).glob("[0-9]*.tar"):
            if earlier.name not in planned:
                earlier.unlink()
        for name in planned:
            staged, place = ledger.folder / split / name, out / split / name
            if staged.exists():
                staged.replace(place)
            # Else a killed run has moved it already; another one may have been there since.
            elif not place.is_file() or atomic.sha256_file(place) != planned[name][1]:
                raise Changed(f"{place}: not the shard that was written here; run again")
    for split, planned in shards.items():
        sizes = {name: samples for name, (samples, _) in planned.items()}
        hashes = {name: digest for name, (_, digest) in planned.items()}
        write_manifest(out / split, sizes, hashes, config_hash)
    for name in REPORTS:
        if (ledger.folder / name).exists():
            (ledger.folder / name).replace(out / name)
    return {split: sum(samples for samples, _ in planned.values()) for split, planned in shards.items()}


def _shards(ledger: Ledger, split: str) -> dict[str, Any]:
    rows = ledger.rows("select name, samples, sha256 from shard where split = ? order by name", (split,))
    return {name: (samples, digest) for name, samples, digest in rows}


def publish_reports(ledger: Ledger, folder: Path) -> None:
    """Moves the reports of a run that left no pair to a folder of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in REPORTS:
        if (ledger.folder / name).exists():
            (ledger.folder / name).replace(folder / name)


def sweep(out: Path) -> None:
    """Deletes the temporary files that a killed run has left; nothing else may be at work in the folder."""
    for folder in (out, *(out / split for split in SPLITS)):
        for stale in folder.glob(".*.tmp"):
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()


def forget(folder: Path) -> None:
    """Deletes the ledger and what was staged beside it."""
    (folder / FILE).unlink(missing_ok=True)  # first: half of what it speaks of is worth nothing
    shutil.rmtree(folder, ignore_errors=True)
