"""What a run folder says of its run: the config, the data's hashes, package versions, the metrics."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pathclip import atomic
from pathclip.model_folder import read_json

RECORD = "run.json"
# What a continued run may say otherwise: where it lies, how it is watched, how long it goes on.
_MAY_CHANGE = (
    *("ckpt", "resume", "out", "hydra", "paths", "logger", "trainer.max_", "sweep_metric"),
    *("callbacks.checkpoints", "callbacks.progress", "callbacks.meters", "callbacks.first_batch"),
    *("callbacks.stuck_loss", "callbacks.early_stopping", "callbacks.learning_rate"),
)


def record_run(cfg: Any, out: Path | str, data: Mapping[str, Any], goes_on: bool = False) -> list[str]:
    """Writes `run.json`, or `run.1.json` … where a run goes on: config, overrides, data hashes, versions.

    Args:
        cfg: the composed config.
        out: the run folder.
        data: as the data module describes it.
        goes_on: whether there is a checkpoint; records of a try that left none are removed.

    Returns:
        The keys that say something else than when the run began, as 'key=now (was before)'.
    """
    out = Path(out)
    config = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg
    if not goes_on:
        for record in [*out.glob("run*.json"), *out.glob("first_batch.*"), *out.glob("diagnosis.json")]:
            record.unlink()
    earlier = len(list(out.glob("run*.json")))
    atomic.write_json(
        out / (f"run.{earlier}.json" if earlier else RECORD),
        {
            "command": sys.argv,
            "overrides": [word for word in sys.argv[1:] if "=" in word],
            "config": config,
            "data": data,
            "git_commit": _git_commit(),
            "packages": {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"]},
            "python": sys.version.split()[0],
        },
    )
    return _changes(read_json(out / RECORD)["config"], config) if earlier else []


def _changes(before: Any, now: Any) -> list[str]:
    old, new = dict(_flat(before)), dict(_flat(now))
    return [
        f"{key}={new.get(key)} (was {old.get(key)})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith(_MAY_CHANGE)
    ]


def _flat(node: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(node, Mapping):
        return [pair for key, value in node.items() for pair in _flat(value, f"{prefix}{key}.")]
    return [(prefix.rstrip("."), node)]


def _git_commit() -> str | None:
    """The commit of this checkout; None for an installed package, which may lie in somebody else's."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        git = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
    except OSError:  # no git here
        return None
    return git.stdout.strip() or None


def read_metrics(out: Path | str) -> list[dict[str, float]]:
    """All logged rows of a run, over its continuations, as numbers by name.

    A run that begins anew in the same folder begins anew at step 0: what was logged before is left out.
    """
    rows: list[dict[str, float]] = []
    for file in sorted(Path(out).glob("logs/*/metrics.csv"), key=lambda p: int(p.parent.name)):
        with file.open(newline="") as lines:
            more = [
                {key: float(value) for key, value in row.items() if value} for row in csv.DictReader(lines)
            ]
        first = min((row["step"] for row in more if "step" in row), default=0.0)
        rows = [row for row in rows if row.get("step", 0.0) < first] + more
    return rows
