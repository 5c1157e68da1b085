"""Small reports of two made-up encoders, written as `pathclip evaluate` writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pathclip.evaluate.comparison.answers import write_answers
from pathclip.evaluate.reporting.report import write_scores
from pathclip.evaluate.task import Answers
from pathclip.types import Score

CLASSES = ("benign", "tumour")
CONTEXT = {"task": "t", "method": "zero_shot", "variant": "plain", "role": "model", "precision": "int8"}
PROMPTS = {"templates": ["{}"], "classes": {name: [name] for name in CLASSES}}


def sha(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def answers(
    wrong: Sequence[int] = (), pictures: Sequence[int] = range(60), per_group: int = 2, **about: Any
) -> Answers:
    """Pictures whose class is the parity of their group, the numbered ones answered wrongly."""
    truth = [CLASSES[(number // per_group) % 2] for number in pictures]
    other = {CLASSES[0]: CLASSES[1], CLASSES[1]: CLASSES[0]}
    said = [
        other[name] if number in set(wrong) else name for number, name in zip(pictures, truth, strict=True)
    ]
    return Answers(
        {**CONTEXT, **about},
        tuple(map(sha, pictures)),
        tuple(f"g{number // per_group}" for number in pictures),
        tuple(truth),
        tuple(said),
        np.linspace(0.5, 1.0, len(said)),
    )


def ranks(rank: Sequence[int], **about: Any) -> Answers:
    """Queries with the rank of their first right item, two to a group."""
    n = len(rank)
    return Answers(
        {**CONTEXT, "method": "retrieval", **about},
        tuple(f"{sha(number)} {about.get('direction')} {about.get('definition')}" for number in range(n)),
        tuple(f"g{number // 2}" for number in range(n)),
        rank=np.array(rank, np.int64),
    )


def report(
    folder: Path,
    found: Sequence[Answers],
    name: str = "lite",
    data_hash: str = "d" * 64,
    marks: Sequence[str] = (),
    prompts: Mapping[str, Any] = PROMPTS,
) -> Path:
    """A folder with report.json and answers.parquet."""
    weights = hashlib.sha256(name.encode()).hexdigest()
    more = {"data_hash": data_hash, "prompts": prompts, "marks": list(marks), "model_hash": weights}
    scores = [
        Score("balanced_accuracy", 0.9, len(one.items), 0.8, 1.0, {**one.about, **more}) for one in found
    ]
    models = [
        {"role": role, "precision": precision, "name": name, "runtime": "onnx", "model_hash": weights}
        for role, precision in dict.fromkeys((one.about["role"], one.about["precision"]) for one in found)
    ]
    settings = {"seed": 0, "resamples": 100, "code_version": "0.1.0+abc"}
    write_scores(folder / "report.json", scores, models=models, tasks={"t": {}}, settings=settings)
    write_answers(folder / "answers.parquet", found)
    return folder
