"""What the config's `source` names: a dump, its pictures, tombstones, and labels for evaluation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pathclip.errors import ConfigError, DataError
from pathclip.sources import Dump, open_dump

_REMARK = re.compile(r"(?:^|\s)#.*")
# What a curation leaves in its folder, and what is there while it works.
WRITTEN = (
    *("train", "val", "test", "feed", "pictures", "nothing_left", ".unfinished", ".withdrawal", ".hydra"),
    *("funnel.json", "dropped.parquet", "report.html", "withdrawals.jsonl", "launch.log"),
)
OWN_KEYS = ("platform", "posts", "images", "tombstones", "synthetic")


@dataclass(frozen=True, slots=True)
class Source:
    """A dump ready to be read.

    Attributes:
        dump: its files.
        images: folder or tar of the pictures.
        deleted: ids that were deleted since the dump was made.
        truth: `truth.jsonl` of a synthetic feed, else None.
        labels: media key → class name, for evaluation only.
    """

    dump: Dump
    images: Path
    deleted: frozenset[str] = frozenset()
    truth: Path | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


def identify(node: Mapping[str, Any], out: Path) -> Any:
    """What tells one source from another: the config, and names, sizes and times of its files.

    Args:
        node: of the config.
        out: folder of the run; what it has written itself is no part of the dump.

    Raises:
        ConfigError: no posts named, an unknown platform or option.
        DataError: a file or folder that does not exist.
    """
    if node.get("synthetic"):
        return dict(node)
    source = _named(node, out)
    files = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in source.dump.files]
    if source.images.is_file():
        files.append((str(source.images), source.images.stat().st_size, source.images.stat().st_mtime_ns))
    return {"config": dict(node), "files": files, "deleted": sorted(source.deleted)}


def open_source(node: Mapping[str, Any], out: Path, limit: int | None = None, draw: bool = True) -> Source:
    """Opens the config's `source`; a synthetic feed is made first, into `out`/feed.

    Args:
        node: platform, posts, images, tombstones, and the options of the platform's reader.
        out: folder of the run.
        limit: posts to read at most; no larger feed is made.
        draw: whether to make the feed; else it is there.

    Raises:
        ConfigError: no posts named, an unknown platform or option.
        DataError: a file or folder that does not exist.
    """
    return _synthetic(node["synthetic"], out, limit, draw) if node.get("synthetic") else _named(node, out)


def _named(node: Mapping[str, Any], out: Path) -> Source:
    options = {name: value for name, value in node.items() if name not in OWN_KEYS and value is not None}
    platform = str(node.get("platform", ""))
    if not node.get("posts") or node["posts"] == "???":
        raise ConfigError(
            f"source.posts: name the dump: pathclip curate source={platform} source.posts=dump.jsonl "
            "source.images=images/ out=shards/"
        )
    posts = Path(str(node["posts"]))
    if not posts.exists():
        raise DataError(f"source.posts={posts}: no such file or folder")
    images = Path(str(node["images"])) if node.get("images") else (posts if posts.is_dir() else posts.parent)
    if not images.exists():
        raise DataError(f"source.images={images}: no such folder or tar")
    tombstones = node.get("tombstones")
    deleted = read_tombstones(Path(str(tombstones))) if tombstones else frozenset()
    dump = open_dump(platform, posts, **options)
    files = tuple(file for file in dump.files if not _is_ours(file, out))
    if not files:
        raise DataError(f"source.posts={posts}: holds nothing but what a curation into {out} has written")
    return Source(replace(dump, files=files), images, deleted)


def _is_ours(file: Path, out: Path) -> bool:
    """Whether a file is one that curating into `out` writes, where that lies in the folder of the dump."""
    file, out = file.absolute(), out.absolute()
    return file.is_relative_to(out) and file.relative_to(out).parts[:1] in {(name,) for name in WRITTEN}


def _synthetic(node: Mapping[str, Any], out: Path, limit: int | None, draw: bool) -> Source:
    from pathclip.sources.synthetic import Feed, make_feed
    from pathclip.sources.synthetic_plan import FEWEST_POSTS

    count = int(node["posts"])
    if limit is not None:
        count = max(min(count, limit), FEWEST_POSTS)
    try:
        feed = make_feed(out / "feed", count, int(node["seed"])) if draw else Feed.at(out / "feed")
    except ValueError as error:
        raise ConfigError(f"source.synthetic: {error}") from None
    rows = (json.loads(line) for line in feed.truth.read_text(encoding="utf-8").splitlines())
    labels = {row["id"]: row["label"] for row in rows if row["kind"] == "media" and row["label"]}
    deleted = read_tombstones(feed.tombstones)
    return Source(open_dump("twitter", feed.posts), feed.images, deleted, feed.truth, labels)


def read_tombstones(path: Path) -> frozenset[str]:
    """Ids of deleted posts, one per line; what follows a '#' at the start or after a space is a remark.

    Raises:
        DataError: no such file, or not one of text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"source.tombstones={path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"source.tombstones={path}: not a text file of ids ({error})") from None
    return frozenset(stripped for line in lines if (stripped := _REMARK.sub("", line).strip()))
