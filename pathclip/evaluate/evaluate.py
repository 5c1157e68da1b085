"""`evaluate(cfg)`: from a model folder and tasks to scores and a report, top to bottom."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pathclip import __version__
from pathclip.config import build, check_values, config_dir, output_folder
from pathclip.errors import ConfigError
from pathclip.evaluate import report
from pathclip.evaluate.subjects import Subject, load_subjects
from pathclip.evaluate.task import Settings, Task, TaskResult
from pathclip.model_folder import open_model_folder, update_card
from pathclip.types import Score

VALUES = {
    "model": str | int | None,
    "untrained": str | None,
    "batch_size": int,
    "bootstrap.resamples": int,
    "record": bool,
    "cache": str | None,
    "seed": int,
    "limit": int | None,
}
LEAST = {"batch_size": 1, "bootstrap.resamples": 1, "seed": 0, "limit": 1}


@dataclass(frozen=True, slots=True)
class EvaluateResult:
    """What a run leaves.

    Attributes:
        scores: every figure of every task.
        json: path of `report.json`.
        html: path of `report.html`.
        sections: those of the report, for a report that has others too.
    """

    scores: tuple[Score, ...]
    json: Path
    html: Path
    sections: tuple[report.Section, ...]


def evaluate(cfg: Any) -> EvaluateResult:
    """Measures a model on the tasks of the config and writes `report.json` and `report.html`.

    Args:
        cfg: as `pathclip.launch.compose("evaluate", overrides)` gives it.

    Raises:
        PathclipError: a wrong value, model folder, table, shard or picture; embeddings that are not numbers.
    """
    _check(cfg)
    out = output_folder(cfg)
    measures = {name: build(node, f"measures.{name}") for name, node in cfg.measures.items() if node}
    settings = Settings(
        cfg.batch_size,
        cfg.seed,
        cfg.bootstrap.resamples,
        cfg.limit,
        code_version=code_version(),
        measures=measures,
        cache=cfg.cache,
    )
    tasks: Mapping[str, Task] = {name: build(node, f"tasks.{name}") for name, node in cfg.tasks.items()}
    subjects = load_subjects(str(cfg.model), cfg.runtime, cfg.precision, cfg.untrained)

    results = {name: task.run(name, subjects, settings) for name, task in tasks.items()}

    result = write_results(out, subjects, results, settings)
    if cfg.record:
        record(str(cfg.model), result.scores, results)
    print_scores(result.scores)
    print(f"report: {result.html}")
    return result


def write_results(
    out: Path, subjects: Sequence[Subject], results: Mapping[str, TaskResult], settings: Settings
) -> EvaluateResult:
    """Writes `report.json` and `report.html` into `out`."""
    scores = tuple(score for result in results.values() for score in result.scores)
    sections = tuple(section for result in results.values() for section in result.sections)
    models = [
        {
            "role": one.role,
            "name": one.encoder.name,
            "precision": one.encoder.precision,
            "runtime": one.encoder.runtime,
            "model_hash": one.model_hash,
        }
        for one in subjects
    ]
    json = report.write_scores(
        out / "report.json",
        scores,
        models=models,
        tasks={name: {**result.about, "remarks": result.remarks} for name, result in results.items()},
        settings=asdict(settings),
    )
    name = subjects[0].encoder.name if subjects else "no model"
    weights = next((one.model_hash[:12] for one in subjects), "")
    lead = (
        f"{', '.join(one.title for one in subjects)}; weights {weights}; pathclip {settings.code_version}; "
        f"{settings.resamples} resamples, seed {settings.seed}."
    )
    html = report.write_report(out / "report.html", f"Evaluation of {name}", sections, lead)
    return EvaluateResult(scores, json, html, sections)


def record(folder: str, scores: Sequence[Score], results: Mapping[str, TaskResult]) -> None:
    """Puts the scores, and what was fitted for `pathclip classify`, into the model folder's card.

    What was fitted on other tasks stays.
    """
    fitted = {name: dict(result.fitted) for name, result in results.items() if result.fitted}
    earlier = open_model_folder(folder, verify=False).card.get("calibration") or {}
    update_card(folder, scores=[asdict(score) for score in scores], calibration={**earlier, **fitted})


def print_scores(scores: Sequence[Score]) -> None:
    """A short table on stdout: balanced accuracy, and the largest k of recall@k, of every method.

    Names of models, which can be longer than a terminal is wide, stand above it once.
    """
    from rich.console import Console
    from rich.table import Table

    shown = [score for score in scores if _is_headline(score, scores)]
    variants = list(dict.fromkeys(str(score.context["variant"]) for score in shown))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("task", "score", "by", *map(report.words, variants)):
        table.add_column(column, overflow="fold")
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for score in shown:
        key = (str(score.context["task"]), report.words(score.name), _short_title(score.context))
        rows.setdefault(key, {})[str(score.context["variant"])] = report.value_text(score)
    for row, cells in rows.items():
        table.add_row(*row, *(cells.get(variant, "") for variant in variants))
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 160  # a log has no edge to wrap at
    named = {score.context["role"]: score.context["model"] for score in shown if "role" in score.context}
    for role, name in named.items():
        console.print(f"{role}: {name}", soft_wrap=True)
    console.print(table)


def _short_title(context: Mapping[str, Any]) -> str:
    if "role" not in context:
        return report.method_text(context)
    return f"{context['role']} {context['precision']} ({context['runtime']})"


def code_version() -> str:
    """The package's version and a hash of its source: what measured, even between releases."""
    digest = hashlib.sha256()
    package = Path(__file__).resolve().parents[1]
    for file in sorted(package.rglob("*.py")):
        digest.update(file.relative_to(package).as_posix().encode())
        digest.update(file.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:12]}"


def _is_headline(score: Score, scores: Sequence[Score]) -> bool:
    name = score.name
    if name.startswith("balanced_accuracy"):
        return True
    first = next(one for one in scores if one.context["task"] == score.context["task"])
    if score.context.get("definition") != first.context.get("definition") or "_recall@" not in name:
        return False
    ks = [
        _k(one.name)
        for one in scores
        if "_recall@" in one.name and one.context["task"] == first.context["task"]
    ]
    return _k(name) == max(ks)


def _k(name: str) -> int:
    return int(name.split("@")[1].split("_")[0])


def _check(cfg: Any) -> None:
    check_values(cfg, VALUES, LEAST)
    if not cfg.model:
        raise ConfigError("model: name a model folder, as in model=outputs/train/…/model")
    if not cfg.tasks:
        known = sorted(file.stem for file in (config_dir() / "task").glob("*.yaml"))
        raise ConfigError(f"task: name at least one, as in task={known[0]}. Known: {', '.join(known)}")
