"""What the config's `source` names: a dump, its folder of images, tombstones, and labels for evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pathclip.curate.select import Candidate
from pathclip.errors import ConfigError, DataError

OWN_KEYS = ("platform", "posts", "images", "tombstones", "synthetic")


@dataclass(frozen=True, slots=True)
class Source:
    """A dump ready to be read.

    Attributes:
        platform: of `read_posts`.
        posts: file or folder.
        images: folder of the pictures.
        options: of the platform's reader.
        deleted: ids that were deleted since the dump was made.
        truth: `truth.jsonl` of a synthetic feed, else None.
        labels: media key → class name, for evaluation only.
    """

    platform: str
    posts: Path
    images: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    deleted: frozenset[str] = frozenset()
    truth: Path | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def labelled(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates with their labels, where labels are known apart from the posts."""
        return [replace(c, label=self.labels.get(c.media.key, c.label)) for c in candidates]


def open_source(node: Mapping[str, Any], out: Path, limit: int | None = None) -> Source:
    """Checks the config's `source`; a synthetic feed is made first, into `out`/feed.

    Args:
        node: platform, posts, images, tombstones, and the options of the platform's reader.
        out: folder of the run.
        limit: posts to read at most; no larger feed is made.

    Raises:
        ConfigError: no posts named.
        DataError: a file or folder that does not exist.
    """
    options = {name: value for name, value in node.items() if name not in OWN_KEYS and value is not None}
    platform = str(node.get("platform", ""))
    if node.get("synthetic"):
        return _synthetic(node["synthetic"], out, limit)
    if not node.get("posts") or node["posts"] == "???":
        raise ConfigError(
            f"source.posts: name the dump: pathclip curate source={platform} source.posts=dump.jsonl "
            "source.images=images/ out=shards/"
        )
    posts = Path(str(node["posts"]))
    if not posts.exists():
        raise DataError(f"source.posts={posts}: no such file or folder")
    images = Path(str(node["images"])) if node.get("images") else (posts if posts.is_dir() else posts.parent)
    if not images.is_dir():
        raise DataError(f"source.images={images}: no such folder")
    tombstones = node.get("tombstones")
    deleted = read_tombstones(Path(str(tombstones))) if tombstones else frozenset()
    return Source(platform, posts, images, options, deleted)


def _synthetic(node: Mapping[str, Any], out: Path, limit: int | None) -> Source:
    from pathclip.sources.synthetic import make_feed
    from pathclip.sources.synthetic_plan import FEWEST_POSTS

    count = int(node["posts"])
    if limit is not None:
        count = max(min(count, limit), FEWEST_POSTS)
    try:
        feed = make_feed(out / "feed", posts=count, seed=int(node["seed"]))
    except ValueError as error:
        raise ConfigError(f"source.synthetic: {error}") from None
    rows = (json.loads(line) for line in feed.truth.read_text(encoding="utf-8").splitlines())
    labels = {row["id"]: row["label"] for row in rows if row["kind"] == "media" and row["label"]}
    deleted = read_tombstones(feed.tombstones)
    return Source("twitter", feed.posts, feed.images, {}, deleted, feed.truth, labels)


def read_tombstones(path: Path) -> frozenset[str]:
    """Ids of deleted posts, one per line; what follows a '#' is a remark.

    Raises:
        DataError: no such file.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"source.tombstones={path}: no such file") from None
    return frozenset(stripped for line in lines if (stripped := line.split("#")[0].strip()))
