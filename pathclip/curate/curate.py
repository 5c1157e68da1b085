"""`curate(cfg)`: from a dump of posts to shards of pairs, top to bottom."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from pathclip import atomic
from pathclip.config import build, check_values, output_folder
from pathclip.curate import report
from pathclip.curate.dedup import DedupSettings
from pathclip.curate.engine import map_partitions
from pathclip.curate.funnel import RuleScore, audit, funnel, write_dropped
from pathclip.curate.images import ImageSettings, Picture, inspect_partition
from pathclip.curate.pairs import Kept, make_pairs
from pathclip.curate.rules import REASONS, RuleSettings
from pathclip.curate.select import Candidate, Selection, select
from pathclip.curate.source import Source, open_source
from pathclip.curate.split import SPLITS, Member, SplitSettings, check_leaks, decide, split
from pathclip.curate.text import TextCleaner
from pathclip.errors import DataError
from pathclip.progress import track
from pathclip.shards.writer import Sample, replace_shards, write_shards
from pathclip.sources import read_posts
from pathclip.types import Dropped, Post

# Beside the shards; `funnel.json` comes last and says that all the others are there.
REPORTS = ("dropped.parquet", "report.html", "funnel.json")
VALUES = {"seed": int, "limit": int | None, "workers": int | None, "samples_per_shard": int}


@dataclass(frozen=True, slots=True)
class CurateResult:
    """What a run leaves.

    Attributes:
        out: its folder, with train/, val/ and test/, funnel.json, dropped.parquet and report.html.
        pairs: split → pairs in it.
        funnel: the content of funnel.json.
        dropped: every row that fell, with its reason.
        scores: of each rule, where the source's truth is known; else empty.
    """

    out: Path
    pairs: Mapping[str, int]
    funnel: Mapping[str, Any]
    dropped: tuple[Dropped, ...]
    scores: tuple[RuleScore, ...]

    def shards(self, name: str) -> Path:
        """The folder of the shards of 'train', 'val' or 'test'."""
        return self.out / name


def curate(cfg: Any) -> CurateResult:
    """Curates a dump as the config says and writes shards, funnel and report.

    The same config and dump give the same bytes, whatever the number of workers. What an earlier run left
    in `out` is replaced at the end, all together; until then a failure leaves it as it was.

    Args:
        cfg: as `pathclip.launch.compose("curate", overrides)` gives it.

    Raises:
        PathclipError: a wrong value, no dump, two splits that share a picture, or not one pair left.
    """
    check_values(cfg, VALUES, at_least={"seed": 0, "limit": 1, "workers": 1, "samples_per_shard": 1})
    out = output_folder(cfg)
    rules: RuleSettings = build(_node(cfg, "rules"), "rules")
    cleaner: TextCleaner = build(_node(cfg, "text"), "text")
    images: ImageSettings = build(_node(cfg, "images"), "images")
    dedup: DedupSettings = build(_node(cfg, "dedup"), "dedup")
    splitting: SplitSettings = build(_node(cfg, "split"), "split", seed=cfg.seed)
    source = open_source(_node(cfg, "source"), out, cfg.limit)

    posts = list(_read(source, cfg.limit))
    selection = select(posts, rules, cleaner, source.deleted)
    candidates = source.labelled(selection.candidates)
    pictures = _look(candidates, source.images, images, cfg.workers)
    kept, pairs_dropped = make_pairs(candidates, pictures, dedup)

    members = [_member(one) for one in kept]
    splits = split(members, splitting)
    check_leaks(members, splits, None if dedup.near_duplicates == "off" else dedup.max_distance)

    dropped = (*selection.dropped, *pairs_dropped)
    counts = {name: Counter(splits)[name] for name in SPLITS}
    counted = funnel(
        selection.read,
        selection.dropped,
        selection.kept,
        len(candidates),
        pairs_dropped,
        len(kept),
        counts,
        decide(members, splitting),
    )
    scores = tuple(audit(dropped, source.truth)) if source.truth and cfg.limit is None else ()
    examples = _examples(posts, selection, candidates, pictures, kept, dropped)
    config_hash = _hash(
        {key: _node(cfg, key) for key in ("rules", "text", "images", "dedup", "split", "seed")}
    )
    with _staging(out) as staging:
        for name in SPLITS:
            chosen = [one for one, its in zip(kept, splits, strict=True) if its == name]
            write_shards(staging / name, _samples(chosen, name), cfg.samples_per_shard, config_hash)
        write_dropped(staging / "dropped.parquet", dropped)
        atomic.write_text(staging / "report.html", report.render(counted, examples, scores, cfg.seed))
        atomic.write_json(staging / "funnel.json", counted | {"rules": [asdict(score) for score in scores]})
        _publish(staging, out)
    _tell(out, counted)
    if not kept:
        raise DataError(_nothing_left(dropped))
    return CurateResult(out, counts, counted, dropped, scores)


def _node(cfg: Any, key: str) -> Any:
    from omegaconf import OmegaConf

    node = cfg[key]
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _read(source: Source, limit: int | None) -> Iterator[Any]:
    items = read_posts(source.platform, source.posts, **source.options)
    return islice(track(items, "Reading posts"), limit)


def _look(
    candidates: Sequence[Candidate], folder: Path, settings: ImageSettings, workers: int | None
) -> list[Picture]:
    """What is seen of each candidate's picture; one that several captions share is looked at once."""
    media = list(dict.fromkeys(candidate.media for candidate in candidates))
    look = partial(inspect_partition, folder=folder, settings=settings)
    seen = track(map_partitions(look, media, workers), "Looking at pictures", total=len(media))
    by_media = dict(zip(media, seen, strict=True))
    return [by_media[candidate.media] for candidate in candidates]


def _member(one: Kept) -> Member:
    pair = one.pair
    return Member(pair.id, pair.group, pair.created_at, one.prescribed, pair.image_sha256, one.picture.hashes)


def _samples(kept: Sequence[Kept], name: str) -> Iterator[Sample]:
    for one in track(kept, f"Writing {name}"):
        try:
            content = Path(str(one.picture.path)).read_bytes()
        except OSError as error:
            raise DataError(f"{one.picture.path}: gone since it was looked at ({error.strerror})") from None
        if hashlib.sha256(content).hexdigest() != one.pair.image_sha256:
            raise DataError(f"{one.picture.path}: changed since it was looked at; run again")
        seen = {
            "width": one.picture.width,
            "height": one.picture.height,
            "phash": f"{one.picture.hashes[0]:016x}",
        }
        yield Sample(one.pair.id, content, one.pair.text, asdict(one.pair) | seen)


@contextlib.contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A folder in `out` for what is not whole yet; one that a killed run has left is emptied first."""
    staging = out / ".unfinished"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _publish(staging: Path, out: Path) -> None:
    """Replaces what an earlier run left; its reports go first, so that they never lie beside other shards."""
    for name in REPORTS:
        (out / name).unlink(missing_ok=True)
    replace_shards({staging / name: out / name for name in SPLITS})
    for name in REPORTS:
        (staging / name).replace(out / name)


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _examples(
    posts: Sequence[Any],
    selection: Selection,
    candidates: Sequence[Candidate],
    pictures: Sequence[Picture],
    kept: Sequence[Kept],
    dropped: Sequence[Dropped],
) -> dict[str, list[report.Example]]:
    texts = {post.id: post.text for post in posts if isinstance(post, Post)}
    texts |= {candidate.id: candidate.text for candidate in candidates}
    paths = {candidate.id: picture.path for candidate, picture in zip(candidates, pictures, strict=True)}
    rows = {"kept": [report.Example(o.pair.id, o.pair.text, o.pair.group, o.picture.path) for o in kept]}
    for reason in REASONS:
        found = [
            report.Example(row.id, texts.get(row.id, ""), row.detail, paths.get(row.id))
            for row in dropped
            if row.reason == reason
        ]
        if found:
            rows[reason] = found
    return rows


def _nothing_left(dropped: Sequence[Dropped]) -> str:
    """Which rule took most, and one row that it took; the reports have the rest."""
    if not dropped:
        return "not one pair is left: the dump holds no posts with pictures"
    reason, count = Counter(row.reason for row in dropped).most_common(1)[0]
    row = next(row for row in dropped if row.reason == reason)
    return (
        f"not one pair is left: {count} of {len(dropped)} rows fell by {reason}, as '{row.id}': {row.detail}"
    )


def _tell(out: Path, counted: Mapping[str, Any]) -> None:
    posts, pairs, splits = counted["posts"], counted["pairs"], counted["splits"]
    print(
        f"{posts['read']} rows read, {posts['kept']} posts kept, "
        f"{pairs['kept']} pairs, split by {counted['split_by']}: "
        + ", ".join(f"{name} {count}" for name, count in splits.items())
    )
    print(f"report: {out / 'report.html'}")
