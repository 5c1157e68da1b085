"""`evaluate(cfg)`: from a model folder and tasks to scores and a report, top to bottom."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pathclip import __version__
from pathclip.config import build, check_values, config_dir, output_folder
from pathclip.errors import ConfigError
from pathclip.evaluate.outputs import EvaluateResult, record, write_results
from pathclip.evaluate.profile import Profile
from pathclip.evaluate.reporting.terminal import print_profile, print_remarks, print_scores
from pathclip.evaluate.subjects import load_subjects
from pathclip.evaluate.task import Settings, Task, TaskResult
from pathclip.model_folder import CARD
from pathclip.runtime.user_cache import user_cache

VALUES = {
    "model": str | int | None,
    "untrained": str | None,
    "batch_size": int,
    "bootstrap.resamples": int,
    "record": bool,
    "cache": str | None,
    "cache_limit": float,
    "seed": int,
    "limit": int | None,
}
LEAST = {"batch_size": 1, "bootstrap.resamples": 1, "seed": 0, "limit": 1, "cache_limit": 0}


def evaluate(cfg: Any) -> EvaluateResult:
    """Measures a model on the tasks of the config and writes the report: see `outputs.write_results`.

    Args:
        cfg: as `pathclip.launch.compose("evaluate", overrides)` gives it.

    Raises:
        PathclipError: a wrong value, model folder, table, shard or picture; embeddings that are not numbers.
    """
    _check(cfg)
    out = output_folder(cfg)
    profile = Profile()
    settings = Settings(
        batch_size=cfg.batch_size,
        seed=cfg.seed,
        resamples=cfg.bootstrap.resamples,
        limit=cfg.limit,
        code_version=code_version(),
        measures={name: build(node, f"measures.{name}") for name, node in cfg.measures.items() if node},
        cache=_cache_folder(cfg.cache),
        cache_limit=cfg.cache_limit,
        profile=profile,
    )
    tasks: Mapping[str, Task] = {name: build(node, f"tasks.{name}") for name, node in cfg.tasks.items()}
    subjects = load_subjects(str(cfg.model), cfg.runtime, cfg.precision, cfg.untrained)

    results: dict[str, TaskResult] = {}
    try:
        for name, task in tasks.items():
            print(f"task {name}", file=sys.stderr)
            with profile.part("metrics", name):
                results[name] = task.run(name, subjects, settings)
    except BaseException:
        if results:  # a fault in a later task must not cost what took minutes
            write_results(out, subjects, results, settings)
            print(f"{out / 'report.html'} holds what was finished: {', '.join(results)}", file=sys.stderr)
        raise

    result = write_results(out, subjects, results, settings)
    if cfg.record:
        record(str(cfg.model), result.scores, results)
    print_scores(result.scores)
    print_remarks({name: one.remarks for name, one in results.items()}, settings)
    print_profile(profile)
    print(f"report: {result.html}")
    return result


def code_version() -> str:
    """The package's version and a hash of its source: what measured, even between releases."""
    digest = hashlib.sha256()
    package = Path(__file__).resolve().parents[1]
    for file in sorted(package.rglob("*.py")):
        digest.update(file.relative_to(package).as_posix().encode())
        digest.update(file.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:12]}"


def _check(cfg: Any) -> None:
    check_values(cfg, VALUES, LEAST)
    if not cfg.model:
        raise ConfigError("model: name a model folder, as in model=outputs/train/…/model")
    if not cfg.tasks:
        known = sorted(file.stem for file in (config_dir() / "task").glob("*.yaml"))
        raise ConfigError(f"task: name at least one, as in task={known[0]}. Known: {', '.join(known)}")
    if cfg.record:
        _check_record(str(cfg.model), cfg.limit)


def _cache_folder(setting: str | None) -> str | None:
    """The folder that features are kept in; None for none."""
    if setting != "auto":
        return setting
    found = user_cache()
    return None if found is None else str(found / "features")


def _check_record(folder: str, limit: int | None) -> None:
    """Before the long work: what is to be kept must be of whole tasks, and there must be a place for it."""
    if limit is not None:
        raise ConfigError(f"record: figures of limit={limit} are not kept; leave out record=true or limit")
    if Path(folder).is_dir() and not (Path(folder) / CARD).is_file():
        raise ConfigError(f"record: {folder} has no {CARD} to put scores into; leave record=true out")
    if Path(folder).is_dir() and not os.access(folder, os.W_OK):
        raise ConfigError(f"record: {folder} cannot be written to; leave record=true out, or copy the folder")
