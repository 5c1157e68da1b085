"""The files that a run leaves: its report in four forms, its profile, and the answers to compare runs by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pathclip import atomic
from pathclip.evaluate.comparison import answers
from pathclip.evaluate.profile import Profile
from pathclip.evaluate.reporting import report
from pathclip.evaluate.reporting.paper_tables import write_tables
from pathclip.evaluate.reporting.provenance import profile_section, provenance_section
from pathclip.evaluate.reporting.summary import summary_section
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Settings, TaskResult
from pathclip.model_folder import open_model_folder, update_card
from pathclip.types import Score


@dataclass(frozen=True, slots=True)
class EvaluateResult:
    """What a run leaves.

    Attributes:
        scores: every figure of every task.
        json: path of `report.json`.
        html: path of `report.html`.
        sections: those of the tasks, for a report that has others too.
    """

    scores: tuple[Score, ...]
    json: Path
    html: Path
    sections: tuple[report.Section, ...]


def write_results(
    out: Path, subjects: Sequence[Subject], results: Mapping[str, TaskResult], settings: Settings
) -> EvaluateResult:
    """Writes all files of a report into `out`."""
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
    profile = settings.profile or Profile()
    with profile.part("report"):
        answers.write_answers(
            out / answers.NAME, [one for result in results.values() for one in result.answers]
        )
        name = subjects[0].encoder.name if subjects else "no model"
        limited = f", {settings.limit} pictures of each split at most" if settings.limit else ""
        title = f"Evaluation of {name}{limited}"
        remarks = {name: result.remarks for name, result in results.items()}
        write_tables(out, title, scores, remarks)
    values = asdict(replace(settings, profile=None))
    top = [summary_section(scores)]
    end = [profile_section(profile), provenance_section(models, scores, values)]
    weights = next((one.model_hash[:12] for one in subjects), "")
    lead = (
        f"{', '.join(one.title for one in subjects)}; weights {weights}; pathclip {settings.code_version}; "
        f"{settings.resamples} resamples, seed {settings.seed}."
    )
    html = report.write_report(
        out / "report.html", title, [one for one in (*top, *sections, *end) if one], lead
    )
    json = report.write_scores(
        out / "report.json",
        scores,
        models=models,
        tasks={name: {**result.about, "remarks": result.remarks} for name, result in results.items()},
        settings=values,
    )
    # Apart from the report, which is the same for the same figures.
    atomic.write_json(out / "profile.json", profile.as_json())
    return EvaluateResult(scores, json, html, sections)


def record(folder: str, scores: Sequence[Score], results: Mapping[str, TaskResult]) -> None:
    """Puts the scores, and what was fitted for `pathclip classify`, into the model folder's card.

    Scores of other tasks stay, and what was fitted on other tasks or in other precisions.
    """
    card = open_model_folder(folder, verify=False).card
    calibration: dict[str, Any] = dict(card.get("calibration") or {})
    for name, result in results.items():
        if result.fitted:
            calibration[name] = {**calibration.get(name, {}), **result.fitted}
    others = [one for one in card.get("scores") or [] if one.get("context", {}).get("task") not in results]
    update_card(folder, scores=[*others, *map(asdict, scores)], calibration=calibration)
