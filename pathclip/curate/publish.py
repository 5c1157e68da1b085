"""Writes the shards out of sight, then puts them in the place of earlier ones: a kill leaves no mixture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path

from pathclip import atomic
from pathclip.curate.image_files import Changed
from pathclip.curate.ledger import FILE, Ledger
from pathclip.curate.look import read_again
from pathclip.curate.split import SPLITS
from pathclip.progress import track
from pathclip.shards.writer import Manifest, Sample, replace_shards, shard_name, write_shard
from pathclip.types import Pair

# Beside the shards; `funnel.json` comes last and says that all the others are there.
REPORTS = ("dropped.parquet", "report.html", "funnel.json")
_PAIRS = """
select id, grp, text, post, source, created_at, licence, label, pictured, depends_on,
    place, sha256, width, height, hashes, flags, box
from paired where split = ? order by number limit -1 offset ?
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
        content = read_again(line, box, sha256)
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


def publish(ledger: Ledger, out: Path, config_hash: str) -> dict[str, int]:
    """Replaces what an earlier run left in `out`; may be killed and called again at any moment.

    The earlier reports and sizes go before the first move and the new ones come last: a folder whose shards
    are not all there is one that readers refuse, and no report ever lies beside other shards. Files that
    are neither stay.

    Returns:
        Split → pairs.

    Raises:
        Changed: a shard is neither beside the ledger nor in its place; nothing was touched then.
    """
    manifests = {ledger.folder / split: _manifest(ledger, out, split, config_hash) for split in SPLITS}
    for staged, manifest in manifests.items():
        for name, digest in manifest.sha256.items():
            place = manifest.folder / name
            # What is not staged a killed run has moved already; another one may have been there since.
            if not (staged / name).exists() and not (place.is_file() and atomic.sha256_file(place) == digest):
                raise Changed(f"{place}: not the shard that was written here; run again")
    for name in REPORTS:
        if (ledger.folder / name).exists():  # else the one in `out` is new already
            (out / name).unlink(missing_ok=True)
    replace_shards(manifests)
    publish_reports(ledger, out)
    return {manifest.folder.name: manifest.samples for manifest in manifests.values()}


def _manifest(ledger: Ledger, out: Path, split: str, config_hash: str) -> Manifest:
    query = "select name, samples, sha256 from shard where split = ? order by name"
    rows = list(ledger.rows(query, (split,)))
    sizes = {name: samples for name, samples, _ in rows}
    hashes = {name: digest for name, _, digest in rows}
    return Manifest(out / split, sum(sizes.values()), sizes, hashes, config_hash)


def publish_reports(ledger: Ledger, folder: Path) -> None:
    """Moves the reports from beside the ledger to a folder; those that were moved before stay there."""
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
