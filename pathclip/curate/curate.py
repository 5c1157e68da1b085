"""`curate(cfg)`: from a dump of posts to shards of pairs, top to bottom."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pathclip
from pathclip import atomic
from pathclip.config import build, check_values, data_dir, output_folder
from pathclip.curate import report
from pathclip.curate.dedup import DedupSettings
from pathclip.curate.divide import divide
from pathclip.curate.download import download
from pathclip.curate.embed import open_model
from pathclip.curate.engine import Engine
from pathclip.curate.examples import draw_examples
from pathclip.curate.fetch_policy import FetchSettings
from pathclip.curate.funnel import RuleScore, audit, count, read_dropped, write_dropped
from pathclip.curate.image_files import Changed, PictureFiles, index_tar
from pathclip.curate.images import ImageSettings
from pathclip.curate.ledger import UNFINISHED, Ledger
from pathclip.curate.look import look
from pathclip.curate.pairs import make_pairs
from pathclip.curate.pathology import WEIGHTS
from pathclip.curate.publish import forget, publish, publish_reports, stage_shards, sweep
from pathclip.curate.rules import RuleSettings
from pathclip.curate.select import select
from pathclip.curate.source import Source, identify, open_source
from pathclip.curate.split import SplitSettings
from pathclip.curate.text import TextCleaner
from pathclip.curate.vocabulary import file_hashes
from pathclip.curate.withdraw import refuse_half_done
from pathclip.errors import DataError
from pathclip.model_folder import CARD
from pathclip.progress import track
from pathclip.types import Dropped, Malformed, Notice

VALUES = {
    "seed": int,
    "limit": int | None,
    "samples_per_shard": int,
    "download": bool,
    "pictures": str | None,
}
# What decides the pairs; where and by how many processes they are made does not.
DECIDING = ("rules", "text", "images", "dedup", "split", "seed")


@dataclass(frozen=True, slots=True)
class CurateResult:
    """What a run leaves.

    Attributes:
        out: its folder, with train/, val/ and test/, funnel.json, dropped.parquet and report.html.
        pairs: split → pairs in it.
        funnel: the content of funnel.json.
        scores: of each rule, where the source's truth is known; else empty.
    """

    out: Path
    pairs: Mapping[str, int]
    funnel: Mapping[str, Any]
    scores: tuple[RuleScore, ...]

    @property
    def dropped(self) -> list[Dropped]:
        """Every row that fell, with its reason."""
        return read_dropped(self.out / "dropped.parquet")

    def shards(self, name: str) -> Path:
        """The folder of the shards of 'train', 'val' or 'test'."""
        return self.out / name


def curate(cfg: Any) -> CurateResult:
    """Curates a dump as the config says and writes shards, funnel and report.

    The same config and dump give the same bytes, whatever the engine and its number of workers. What an
    earlier run left in `out` is replaced at the end, all together; until then a failure leaves it as it was.
    A run that was killed goes on where it stopped when the same command is given again.

    Args:
        cfg: as `pathclip.launch.compose("curate", overrides)` gives it.

    Raises:
        PathclipError: a wrong value, no dump, two splits that share a picture, or not one pair left.
    """
    check_values(cfg, VALUES, at_least={"seed": 0, "limit": 1, "samples_per_shard": 1})
    out = output_folder(cfg)
    engine: Engine = build(_node(cfg, "engine"), "engine")
    rules: RuleSettings = build(_node(cfg, "rules"), "rules")
    cleaner: TextCleaner = build(_node(cfg, "text"), "text")
    images: ImageSettings = build(_node(cfg, "images"), "images")
    fetching: FetchSettings = build(_node(cfg, "fetch"), "fetch")
    dedup: DedupSettings = build(_node(cfg, "dedup"), "dedup")
    splitting: SplitSettings = build(_node(cfg, "split"), "split", seed=cfg.seed)
    downloads = (Path(cfg.pictures) if cfg.pictures else out / "pictures").absolute()

    if dedup.model:
        open_model(dedup.model)  # what is wrong with it is better told now
    deciding = _deciding(cfg)
    refuse_half_done(out)  # and again once nobody else can begin one
    with _plain_errors(out), Ledger(out / UNFINISHED, _key(cfg, deciding, out)) as ledger:
        refuse_half_done(out)
        sweep(out)
        with ledger.stage("feed") as todo:
            source = open_source(_node(cfg, "source"), out, cfg.limit, draw=todo)
        read(ledger, source, cfg.limit)
        select(ledger, rules, cleaner, source.deleted | _deleted(ledger), source.labels, engine)
        files = _pictures(ledger, source.images)
        if cfg.download:
            download(ledger, files, downloads, fetching)
        look(ledger, files, images, engine)
        make_pairs(ledger, dedup)
        split_by = divide(ledger, splitting, dedup)
        stage_shards(ledger, cfg.samples_per_shard)
        funnel, scores = _report(ledger, cfg, source, files, split_by)
        if not funnel["pairs"]["kept"]:
            nothing_left = _nothing_left(ledger)
            publish_reports(ledger, out / "nothing_left")  # earlier shards stay as they are
        else:
            pairs, nothing_left = publish(ledger, out, _hash(deciding)), ""
    forget(out / UNFINISHED)
    _tell(out / "nothing_left" if nothing_left else out, funnel)
    if nothing_left:
        raise DataError(nothing_left)
    return CurateResult(out, pairs, funnel, scores)


def read(ledger: Ledger, source: Source, limit: int | None = None) -> None:
    """Reads the dump into the ledger, file by file."""
    with ledger.stage("read", ["post", "version", "appearance", "dump_file", "notice", "tombstone"]) as todo:
        if not todo:
            return
        left = limit
        for file in source.dump.files:
            items = track(source.dump.read(file), f"Reading {file.name}")
            name = os.fsencode(file.name).decode("utf-8", "replace")
            for other in ledger.posts.add(name, islice(items, left), source.dump.repeats):
                if isinstance(other, Malformed):
                    ledger.drop("read", [Dropped(f"{name}:{other.line}", "malformed", other.reason)])
                else:
                    _notice(ledger, other)
            if limit is not None and (left := limit - _found(ledger)) <= 0:
                break


def _node(cfg: Any, key: str) -> Any:
    from omegaconf import OmegaConf

    node = cfg[key]
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _deciding(cfg: Any) -> dict[str, Any]:
    """What decides the pairs: settings, and the hashes of the files that they name."""
    settings = {key: _node(cfg, key) for key in DECIDING}
    files = {f"rules.{key}": value for key, value in file_hashes(settings["rules"]).items()}
    if settings["images"]["pathology"]:
        files["images.pathology"] = atomic.sha256_file(data_dir() / WEIGHTS)
    if settings["dedup"]["model"]:
        files["dedup.model"] = atomic.sha256_file(Path(settings["dedup"]["model"]) / CARD)
    return settings | {"files": files}


def _key(cfg: Any, deciding: Mapping[str, Any], out: Path) -> str:
    """Names a run: another dump, other settings or another version begin anew."""
    more = {key: _node(cfg, key) for key in ("limit", "samples_per_shard", "download", "pictures", "fetch")}
    return _hash([pathclip.__version__, deciding, more, identify(_node(cfg, "source"), out)])


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _notice(ledger: Ledger, notice: Notice) -> None:
    ledger.database.execute("insert into notice (kind) values (?)", (notice.kind,))
    ledger.database.executemany(
        "insert or ignore into tombstone values (?)", ((name,) for name in notice.deleted)
    )


def _found(ledger: Ledger) -> int:
    return sum(row.found + row.malformed + row.other for row in ledger.posts.counts())


def _deleted(ledger: Ledger) -> frozenset[str]:
    """Ids that the dump itself says were deleted."""
    return frozenset(name for (name,) in ledger.rows("select id from tombstone"))


def _pictures(ledger: Ledger, source: Path) -> PictureFiles:
    source = source.absolute()  # the workers of a cluster may have another working folder
    if source.is_dir():
        return PictureFiles(source)
    index = ledger.folder.absolute() / "pictures.sqlite"
    with ledger.stage("index") as todo:
        if todo:
            index_tar(source, index)
    return PictureFiles(source, index)


def _report(
    ledger: Ledger, cfg: Any, source: Source, files: PictureFiles, split_by: str
) -> tuple[dict[str, Any], tuple[RuleScore, ...]]:
    """Writes the reports beside the ledger."""
    funnel = count(ledger, split_by) | {"version": pathclip.__version__, "source": source.dump.platform}
    known = source.truth is not None and cfg.limit is None
    scores = tuple(audit(ledger.dropped(), source.truth)) if known and source.truth else ()
    with ledger.stage("reports") as todo:
        if todo:
            write_dropped(ledger.folder / "dropped.parquet", ledger.dropped())
            page = report.render(funnel, draw_examples(ledger, files, cfg.seed), scores)
            atomic.write_text(ledger.folder / "report.html", page)
            atomic.write_json(ledger.folder / "funnel.json", funnel | {"rules": [asdict(s) for s in scores]})
    return funnel, scores


def _nothing_left(ledger: Ledger) -> str:
    """Which rule took most, and one row that it took; the reports have the rest."""
    query = "select reason, count(*) n, id, detail from dropped group by reason order by n desc, min(number)"
    row = next(ledger.rows(query), None)
    if row is None:
        return "not one pair is left: the dump holds no posts with pictures"
    (total,) = ledger.database.execute("select count(*) from dropped").fetchone()
    reason, taken, name, detail = row
    return f"not one pair is left: {taken} of {total} rows fell by {reason}, as '{name}': {detail}"


@contextlib.contextmanager
def _plain_errors(out: Path) -> Iterator[None]:
    """Says in words what stops the ledger; forgets it where it is worth nothing."""
    try:
        yield
    except Changed:
        forget(out / UNFINISHED)
        raise
    except BrokenProcessPool:
        raise DataError(
            "a worker process was ended, as systems do when memory runs out; give the same command again "
            "with fewer: workers=1"
        ) from None
    except sqlite3.OperationalError as error:
        if "full" not in str(error) and "I/O" not in str(error):
            raise
        raise _full(out, error) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _full(out, error) from None


def _full(out: Path, error: Exception) -> DataError:
    return DataError(
        f"{out}: no space left on this disk ({error}); free some and give the same command again: "
        "it goes on where it stopped"
    )


def _tell(out: Path, counted: Mapping[str, Any]) -> None:
    posts, pairs, splits = counted["posts"], counted["pairs"], counted["splits"]
    print(
        f"{posts['read']} rows read, {posts['kept']} posts kept, "
        f"{pairs['kept']} pairs, split by {counted['split_by']}: "
        + ", ".join(f"{name} {part['pairs']}" for name, part in splits.items())
    )
    malformed = posts["steps"][0]["dropped"]
    if malformed > posts["read"] / 10:
        print(f"{malformed} of these rows are no posts: is this the right source, and the right folder?")
    empty = [name for name, part in splits.items() if not part["pairs"]]
    if empty and pairs["kept"]:
        print(f"empty: {', '.join(empty)}; there are few groups, or the source prescribes no such split")
    print(f"report: {out / 'report.html'}")
