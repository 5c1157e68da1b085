"""The table at the end of a sweep: what every job was told, and what came of it."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pathclip import atomic
from pathclip.launch import SweepJob
from pathclip.train.metric_names import better
from pathclip.train.run_folder import read_metrics

METRIC = "val/loss"
TRAINING = "train/loss"


def report_sweep(folder: Path, jobs: Sequence[SweepJob]) -> None:
    """Writes `sweep.md` and `sweep.csv` into the sweep's folder and prints the former.

    The best job comes first, by the metric that `sweep_metric` names: the lowest of a loss, the highest of
    anything else. Where no job has that metric, because there are no validation pairs, `train/loss` decides.

    Args:
        folder: of the sweep.
        jobs: in the order in which they ran.
    """
    if any(os.environ.get(name, "0") != "0" for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK")):
        return  # another process of the same job writes it
    results = [_last_values(job.folder) for job in jobs]
    metric = str(jobs[0].config.get("sweep_metric") or METRIC)
    if not any(metric in result for result in results):
        metric = TRAINING
    rows = _rows(jobs, results, metric, folder)
    table = f"Sorted by {metric}.\n\n{_markdown(rows)}"
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_text(folder / "sweep.md", table)
    atomic.write_text(folder / "sweep.csv", _csv(rows))
    print(f"\n{table}\n{folder / 'sweep.md'}")


def _last_values(folder: Path) -> dict[str, float]:
    """The last value of the training loss and of every validation metric that a run logged."""
    last: dict[str, float] = {}
    for row in read_metrics(folder):
        last |= {name: value for name, value in row.items() if name == TRAINING or name.startswith("val/")}
    return last


def _rows(
    jobs: Sequence[SweepJob], results: Sequence[Mapping[str, float]], metric: str, folder: Path
) -> list[dict[str, Any]]:
    names = sorted({name for result in results for name in result}, key=lambda name: _order(name, metric))
    rows = []
    for told, job, result in sorted(
        zip(_choices(jobs), jobs, results, strict=True), key=lambda row: _place(row[1], row[2], metric)
    ):
        # A sweep's folder moves as a whole, so its rows name the folders in it.
        where, whole = job.folder.resolve(), folder.resolve()
        where = where.relative_to(whole) if where.is_relative_to(whole) else where
        rows.append({**told, **{name: result.get(name) for name in names}, "folder": str(where)})
        if any(other.message for other in jobs):
            rows[-1]["failed"] = job.message
    return rows


def _order(name: str, metric: str) -> tuple[bool, str, int]:
    """The metric that decides first, then by name, and recall@10 after recall@5."""
    stem, _, k = name.partition("@")
    return name != metric, stem, int(k) if k.isdigit() else 0


def _choices(jobs: Sequence[SweepJob]) -> list[dict[str, str]]:
    """Of each job the overrides that are not the same in all of them, by key."""
    told = [dict(override.partition("=")[::2] for override in job.overrides) for job in jobs]
    keys = list(dict.fromkeys(key for overrides in told for key in overrides))
    differing = [key for key in keys if len({overrides.get(key) for overrides in told}) > 1]
    return [{key: overrides.get(key, "") for key in differing} for overrides in told]


def _place(job: SweepJob, result: Mapping[str, float], metric: str) -> tuple[bool, float]:
    """Failed jobs and those without the metric last; a NaN is neither above nor below anything."""
    value = result.get(metric, float("nan"))
    if value != value:
        return True, float("inf")
    return job.message is not None, value if better(metric) == "min" else -value


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    header = "| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0])
    lines = ["| " + " | ".join(_cell(value) for value in row.values()) + " |" for row in rows]
    return "\n".join([header, *lines, ""])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|").replace("\n", " ")


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
