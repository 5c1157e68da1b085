"""Which shards a run trains on: those that are named, or those that it curates itself, once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pathclip import atomic
from pathclip.errors import ConfigError
from pathclip.shards.reader import shard_sizes

CURATED_WITH = "curated_with.json"


def shard_folders(cfg: Any, out: str) -> dict[str, str | None]:
    """The folders of `data` that the config leaves open: those that `curate` makes in the run folder.

    Raises:
        ConfigError: neither is given, or the shards there were curated with other overrides.
    """
    if cfg.data.train is not None:
        return {}
    if not cfg.curate:
        raise ConfigError(
            "data.train: name a folder of shards, as `pathclip curate … out=shards` writes them"
        )
    shards, overrides = Path(out) / "shards", [str(override) for override in cfg.curate]
    record = shards / CURATED_WITH
    if not record.is_file():
        _curate_once(shards, overrides)
        atomic.write_json(record, overrides)
    elif json.loads(record.read_text(encoding="utf-8")) != overrides:
        raise ConfigError(f"{shards}: curated with other overrides than `curate` says now; name another out")
    val = shards / "val"
    return {"train": str(shards / "train"), "val": str(val) if _holds_pairs(val) else None}


def _curate_once(shards: Path, overrides: list[str]) -> None:
    from pathclip.curate.curate import curate
    from pathclip.launch import compose

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "data.train: processes that start together cannot curate together; run `pathclip curate "
            f"{' '.join(overrides)} out=shards` first"
        )
    curate(compose("curate", [*overrides, f"out={shards}"]))


def _holds_pairs(folder: Path) -> bool:
    return (folder / "sizes.json").is_file() and bool(shard_sizes(folder))
