"""Removes deleted posts from shards that were written before, and proves it.

Shards that hold nothing of the deleted posts keep their bytes. A kill at any moment leaves the old shards,
the new ones, or some that readers refuse; the same command then finishes what was begun.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pathclip import atomic
from pathclip.curate.ledger import LOCK, UNFINISHED, sole
from pathclip.curate.scrub import scrub_reports, withdrawn_before
from pathclip.curate.source import read_tombstones
from pathclip.curate.split import SPLITS
from pathclip.errors import ConfigError, DataError
from pathclip.progress import track
from pathclip.shards.reader import read_manifest, read_shard
from pathclip.shards.writer import SIZES, Manifest, Sample, replace_shards, write_shard

STAGED = ".withdrawal"
PLAN = "plan.json"
RECORD = "withdrawals.jsonl"
_EXAMPLES = {"posts": "shards/", "tombstones": "deleted.txt"}


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What a withdrawal did.

    Attributes:
        posts: deleted posts of which the shards held a pair, and replies that went with them.
        pairs: that were removed.
        rewritten: shards that were written anew or, where nothing was left in them, deleted.
        shards: that there were.
    """

    posts: int
    pairs: int
    rewritten: int
    shards: int


def withdraw(out: Path, deleted: frozenset[str], tombstones: str = "") -> Withdrawal:
    """Removes the pairs of deleted posts and of their replies from the shards in a folder.

    Groups that are named after a deleted post are named anew, after one that stays. Reports lose the rows and
    examples of the deleted posts. `withdrawals.jsonl` gets a record: hashes of the ids, and of each rewritten
    shard before and after.

    Args:
        out: what `pathclip curate` wrote, with train/, val/ and test/; or one folder of shards.
        deleted: ids of deleted posts.
        tombstones: SHA-256 of the file that names them, for the record.

    Raises:
        DataError: no shards, shards that are not whole, or a curation that was not finished.
    """
    if not out.is_dir():
        raise DataError(f"source.posts={out}: no such folder")
    if not (out / STAGED / PLAN).exists():
        _folders(out)  # what is wrong with them is told before anything is written
    with sole(out / STAGED):
        done = _withdraw(out, deleted, tombstones)
    shutil.rmtree(out / STAGED, ignore_errors=True)
    return done


def refuse_half_done(out: Path) -> None:
    """Raises DataError where a withdrawal is under way, or was stopped before it was whole."""
    if (out / STAGED).exists():
        with sole(out / STAGED):
            if (out / STAGED / PLAN).exists():
                raise DataError(
                    f"{out}: a withdrawal was stopped half-way; finish it first: "
                    f"pathclip curate source=shards source.posts={out} source.tombstones=..."
                )
        shutil.rmtree(out / STAGED, ignore_errors=True)


def _withdraw(out: Path, deleted: frozenset[str], tombstones: str) -> Withdrawal:
    # A killed run that had decided everything is finished first.
    finished = _apply(out) if (out / STAGED / PLAN).exists() else None
    _clear(out / STAGED)
    folders = _folders(out)
    facts = [fact for folder in folders for fact in _facts(folder)]
    dead = _dead(facts, deleted)
    gone = {fact.key for fact in facts if fact.posts & dead}
    if finished is not None and not gone:
        return finished
    names = _new_names([fact for fact in facts if fact.key not in gone], dead)
    touched = {(fact.folder, fact.shard) for fact in facts if fact.key in gone or fact.group in names}
    posts = {fact.post for fact in facts if fact.key in gone}
    record = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "tombstones_sha256": tombstones,
        "posts_sha256": sorted(hashlib.sha256(post.encode()).hexdigest() for post in posts),
        "pairs": len(gone),
        "shards": {},
    }
    total = sum(len(read_manifest(folder).sizes) for folder in folders)
    plan = {"folders": {}, "gone": sorted(dead | gone), "shards": total, "record": record}
    _stage(out, touched, gone, names, plan)
    return _apply(out)


def withdraw_from(cfg: Any) -> Withdrawal:
    """`withdraw` as the config's `source` says, and a line that tells what was done.

    Args:
        cfg: as `pathclip.launch.compose("curate", ["source=shards", …])` gives it.

    Raises:
        PathclipError: no shards or tombstones named, or none there.
    """
    for key, what in (("posts", "the folder of shards"), ("tombstones", "the file of deleted ids")):
        if OmegaConf.is_missing(cfg.source, key) or not cfg.source[key]:
            raise ConfigError(f"source.{key}: name {what}, as in source.{key}={_EXAMPLES[key]}")
    out, tombstones = Path(str(cfg.source.posts)), Path(str(cfg.source.tombstones))
    deleted = read_tombstones(tombstones)
    done = withdraw(out, deleted, atomic.sha256_file(tombstones))
    print(
        f"{len(deleted)} deleted ids: {done.posts} posts with {done.pairs} pairs withdrawn; "
        f"{done.rewritten} of {done.shards} shards written anew, the others are unchanged"
    )
    if not done.posts:
        print("none of these ids is in the shards; are they of the same platform?")
    print(f"record: {out / RECORD}")
    copies = [name for name in ("pictures", "feed") if (out / name).exists()]
    if copies:
        print(f"copies are left in {', '.join(str(out / one) for one in copies)}: clear them by hand")
    return done


@dataclass(frozen=True, slots=True)
class _Fact:
    """What the search looks at in a pair: where it lies, and the posts that it cannot do without."""

    folder: Path
    shard: str
    key: str
    post: str
    group: str
    posts: frozenset[str]


def _facts(folder: Path) -> Iterator[_Fact]:
    for name in track(sorted(read_manifest(folder).sizes), f"Reading {folder.name}"):
        for sample in read_shard(folder / name):
            meta = sample.meta
            post, posts = str(meta.get("post")), frozenset(map(str, meta.get("depends_on", ())))
            yield _Fact(folder, name, sample.key, post, str(meta.get("group")), posts | {post})


def _folders(out: Path) -> list[Path]:
    folders = [out / name for name in SPLITS if (out / name / SIZES).is_file()]
    if not folders and (out / SIZES).is_file():
        folders = [out]
    if not folders:
        raise DataError(
            f"source.posts={out}: no shards in this folder; name what `pathclip curate` wrote, with train/, "
            "val/ and test/, or one folder of shards"
        )
    for folder in (out, *(out / name for name in SPLITS)):
        if not (folder / SIZES).is_file() and next(folder.glob("[0-9]*.tar"), None):
            raise DataError(
                f"{folder}: shards without {SIZES}, as a killed `pathclip curate` leaves them; "
                "give its command again first, and it finishes"
            )
    if (out / UNFINISHED).exists():
        raise DataError(
            f"{out / UNFINISHED}: a curation that was not finished, with posts in it; give its command again "
            "first, or delete this folder"
        )
    return folders


def _dead(facts: Sequence[_Fact], deleted: frozenset[str]) -> frozenset[str]:
    """The deleted ids, and those of all posts in the shards that depend on them."""
    dead = set(deleted)
    while found := {fact.post for fact in facts if fact.posts & dead} - dead:
        dead |= found
    return frozenset(dead)


def _new_names(left: Sequence[_Fact], dead: frozenset[str]) -> dict[str, str]:
    """Group that is named after a deleted post → its new name, after the first post that is left in it."""
    posts: dict[str, list[str]] = {}
    for fact in left:
        if fact.group.partition(":")[2] in dead:
            posts.setdefault(fact.group, []).append(fact.post)
    return {group: f"{group.partition(':')[0]}:{min(names)}" for group, names in posts.items()}


def _stage(
    out: Path,
    touched: set[tuple[Path, str]],
    gone: set[str],
    names: Mapping[str, str],
    plan: dict[str, Any],
) -> None:
    """Writes the new shards out of sight, and last the plan of what is to be done with them."""
    for folder in sorted({folder for folder, _ in touched}):
        manifest = read_manifest(folder)
        sizes, hashes = dict(manifest.sizes), dict(manifest.sha256)
        place = str(folder.relative_to(out))
        for name in sorted(name for its, name in touched if its == folder):
            samples = [_renamed(s, names) for s in read_shard(folder / name) if s.key not in gone]
            after = None
            if samples:
                after = write_shard(out / STAGED / place / name, samples)
                sizes[name], hashes[name] = len(samples), after
            else:
                del sizes[name], hashes[name]
            plan["record"]["shards"][f"{place}/{name}"] = {"before": manifest.sha256[name], "after": after}
        plan["folders"][place] = {"sizes": sizes, "sha256": hashes, "config_hash": manifest.config_hash}
    plan["withdrawn"] = withdrawn_before(out) + len(gone)
    atomic.write_json(out / STAGED / PLAN, plan)


def _clear(staged: Path) -> None:
    for path in staged.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not path.name.startswith(LOCK):
            path.unlink()


def _renamed(sample: Sample, names: Mapping[str, str]) -> Sample:
    group = str(sample.meta.get("group"))
    return replace(sample, meta={**sample.meta, "group": names[group]}) if group in names else sample


def _apply(out: Path) -> Withdrawal:
    """Does what the plan says; may be killed and called again at any moment."""
    plan = json.loads((out / STAGED / PLAN).read_text(encoding="utf-8"))
    replace_shards(
        {
            out / STAGED / place: Manifest(out / place, sum(planned["sizes"].values()), **planned)
            for place, planned in plan["folders"].items()
        }
    )
    scrub_reports(out, frozenset(plan["gone"]), plan["withdrawn"])
    record = plan["record"]
    line = json.dumps(record, sort_keys=True)
    file = out / RECORD
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    if line not in lines:
        atomic.write_text(file, "".join(f"{one}\n" for one in [*lines, line]))
    (out / STAGED / PLAN).unlink()
    _clear(out / STAGED)
    return Withdrawal(len(record["posts_sha256"]), record["pairs"], len(record["shards"]), plan["shards"])
