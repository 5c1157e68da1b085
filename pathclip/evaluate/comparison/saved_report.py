"""Opens the folder that a run of `pathclip evaluate` left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathclip.errors import DataError
from pathclip.evaluate.comparison import answers
from pathclip.evaluate.reporting.report import SCHEMA_VERSION
from pathclip.evaluate.task import Answers

NAME = "report.json"
MOST_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SavedReport:
    """What a run left.

    Attributes:
        folder: where it lies.
        models: role, name, precision, runtime and model_hash of each encoder.
        scores: as `report.json` has them.
        tasks: name → licence, prompts, counts, remarks.
        settings: of the run.
        answers: of each encoder to each picture or query.
    """

    folder: Path
    models: Sequence[Mapping[str, Any]]
    scores: Sequence[Mapping[str, Any]]
    tasks: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]
    answers: Sequence[Answers]


def open_report(path: str | Path) -> SavedReport:
    """Opens a report by its folder or its `report.json`.

    Raises:
        DataError: no report there, one of another schema, or a damaged one.
    """
    file = Path(path)
    if file.is_dir():
        file = file / NAME
    if file.name != NAME or not file.is_file():
        raise DataError(
            f"{path}: no {NAME} there; name a folder that `pathclip evaluate` wrote, as in out=FOLDER"
        )
    if file.stat().st_size > MOST_BYTES:
        raise DataError(f"{file}: larger than {MOST_BYTES >> 20} MiB, refused")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested without end
        raise DataError(f"{file}: not valid JSON ({error})") from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{file}: schema_version {version!r}, but this pathclip reads {SCHEMA_VERSION}; "
            "measure again with this version"
        )
    for key, kind in (("models", list), ("scores", list), ("tasks", dict), ("settings", dict)):
        if not isinstance(content.get(key), kind):
            raise DataError(f"{file}: it has no '{key}', so it is not a report of `pathclip evaluate`")
    _check(file, content)
    kept = file.with_name(answers.NAME)
    found = answers.read_answers(kept)
    for one in found:
        if one.rank is None and (one.truth is None or one.answer is None):
            task = one.about.get("task")
            raise DataError(f"{kept}: task {task}: neither ranks nor classes with their answers; damaged")
    return SavedReport(
        file.parent, content["models"], content["scores"], content["tasks"], content["settings"], found
    )


def _check(file: Path, content: Mapping[str, Any]) -> None:
    """What is inside the lists, as far as a comparison relies on it.

    Raises:
        DataError: names the entry.
    """
    entries = [(f"models[{number}]", one) for number, one in enumerate(content["models"])]
    entries += [(f"tasks.{name}", one) for name, one in content["tasks"].items()]
    for number, one in enumerate(content["scores"]):
        entries.append((f"scores[{number}]", one))
        context = one.get("context") if isinstance(one, dict) else {}
        entries.append((f"scores[{number}].context", context))
        if isinstance(context, dict) and not isinstance(context.get("marks") or [], list):
            raise DataError(f"{file}: scores[{number}].context.marks is no list, so the file is damaged")
    for where, one in entries:
        if not isinstance(one, dict):
            raise DataError(
                f"{file}: {where} has not the entries that `pathclip evaluate` writes, so it is damaged"
            )
