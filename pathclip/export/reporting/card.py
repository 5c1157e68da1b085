"""The README.md of an exported folder, from its card and its gate.

Its sections answer those items of CONSORT-AI and TRIPOD+AI that apply to a research encoder;
`docs/model-card.md` says which. What the card does not hold is called 'not recorded' and not left out.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from pathclip import __version__
from pathclip.evaluate.reporting.headlines import by_task, headlines
from pathclip.evaluate.reporting.paper_tables import caption, markdown, markdown_text, summary_table
from pathclip.evaluate.reporting.provenance import package_versions
from pathclip.export.gate.gate import Gate
from pathclip.export.gate.verdict import Line
from pathclip.model.card_text import NOTICE, USAGE
from pathclip.runtime.preprocess import Preprocess
from pathclip.types import Score

NOT_RECORDED = "not recorded"
_HASH = 16  # digits that are shown; `pathclip.json` has all


def readme(card: Mapping[str, Any], gate: Gate) -> str:
    """Markdown: what the model is and is not for, what it learnt from, how it was measured, its limits.

    Args:
        card: of the model folder, with `export`.
        gate: int8 against fp32.
    """
    scores = [_score(entry) for entry in card.get("scores") or []]
    lines = [
        *_opening(card, gate),
        *_use(card),
        *_data(card),
        *_training(card),
        *_evaluation(card, scores),
        *_gate(gate),
        *_limits(scores),
        *_versions(card),
        *_again(card, scores),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _opening(card: Mapping[str, Any], gate: Gate) -> list[str]:
    failed = (
        [
            "> **This model failed its export gate** and was written because that was asked for: "
            f"{gate.failures()}.",
            "",
        ]
        if not gate.passed
        else []
    )
    height, width = Preprocess.from_card(card["preprocess"]).size
    licence = card.get("licence") or "not stated; ask whoever trained it before passing it on"
    return [
        f"# {card.get('name', 'model')}, int8",
        "",
        f"An image-text dual encoder for pathology pictures, quantised for CPUs. {NOTICE}",
        "",
        *failed,
        *USAGE,
        "",
        f"- Input: RGB pictures, brought to {height}x{width} pixels; texts of at most "
        f"{card['context_length']} tokens. A picture that cannot be decoded is refused by name.",
        f"- Output: embeddings of {card['embed_dim']} numbers, of length 1. Classes come from their cosine "
        f"to embedded descriptions, probabilities by a softmax with the factor {card.get('logit_scale')}.",
        f"- Licence of the weights: {licence}.",
        "",
    ]


def _use(card: Mapping[str, Any]) -> list[str]:
    use = card.get("intended_use") or (
        "research on histopathology pictures: search by text or picture, and classification by descriptions, "
        "by people who can judge the answers"
    )
    return [
        "## Intended use",
        "",
        f"- For: {use}.",
        "- Not for: diagnosis, triage, treatment, or any other decision about a patient; pictures other than "
        "of stained tissue; classes or languages that it was not measured on.",
        "- A probability is a share among the descriptions that were given: a picture of none of them still "
        "gets a class.",
        "",
    ]


def _data(card: Mapping[str, Any]) -> list[str]:
    training = card.get("training") or {}
    folders = [PurePosixPath(str(one)).name for one in training.get("shards") or []]
    hashes = list(training.get("data_hash") or [])
    factors = list(training.get("factors") or [])
    rows = [
        f"| {name} | {_at(factors, number)} | {_short(_at(hashes, number))} |"
        for number, name in enumerate(folders)
    ]
    pictures = training.get("pictures") or {}
    hashed = (
        f"{pictures['different']} different pictures, whose hashes lie in this folder"
        if pictures.get("different")
        else NOT_RECORDED
    )
    return [
        "## Data",
        "",
        *(["| shards | shown per epoch | data hash |", "|---|---:|---|", *rows, ""] if rows else []),
        f"- Pairs trained on: {training.get('pairs') or NOT_RECORDED}; pictures: {hashed}.",
        f"- Validation: data hash {_short(training.get('val_hash'))}.",
        f"- Curation: {card.get('curation') or NOT_RECORDED + ' here; see funnel.json beside the shards'}.",
        f"- Sources, sites, scanners, stains, dates, patients: {card.get('data_sources') or NOT_RECORDED}.",
        f"- Consent and ethics: {card.get('ethics') or NOT_RECORDED}.",
        "",
    ]


def _training(card: Mapping[str, Any]) -> list[str]:
    training = card.get("training") or {}
    parts = [
        f"{training[key]} {key}" for key in ("pairs", "epochs", "steps") if training.get(key) is not None
    ]
    seed = training.get("seed")
    return [
        "## Training",
        "",
        f"- Starting weights: {card.get('starting_weights') or NOT_RECORDED}.",
        f"- Training: {', '.join(parts) or NOT_RECORDED}; seed {NOT_RECORDED if seed is None else seed}.",
        f"- Loss, schedule, augmentation: {card.get('recipe') or NOT_RECORDED + ' here; see run.json'}.",
        "",
    ]


def _evaluation(card: Mapping[str, Any], scores: Sequence[Score]) -> list[str]:
    lines = ["## Evaluation", ""]
    if not scores:
        lines += [
            f"Scores: {NOT_RECORDED}. `pathclip evaluate model=… task=… record=true` puts them here.",
            "",
        ]
    elif found := headlines(scores):
        lines += ["Measured before export, unless 'by' names int8.", "", markdown(summary_table(found)), ""]
        for task, own in by_task(scores).items():
            version = own[0].context.get("code_version") or NOT_RECORDED
            lines.append(f"- {markdown_text(f'{task}: {caption(own)}')} Code: pathclip {version}.")
        lines.append("")
    else:
        rows = [
            f"| {one.name} | {one.value:.3f} | "
            f"{f'{one.low:.3f}–{one.high:.3f}' if math.isfinite(one.low) else '–'} | {one.n} |"
            for one in scores
        ]
        lines += ["| score | value | 95 % interval | n |", "|---|---|---|---|", *rows, ""]
    return [*lines, f"- Calibration: {_calibration(card.get('calibration') or {})}.", ""]


def _gate(gate: Gate) -> list[str]:
    recipes = gate.details.get("recipes") or {}
    return [
        "## int8 against fp32",
        "",
        "| | value | 95 % interval | limit | samples | |",
        "|---|---|---|---|---|---|",
        *(_row(line) for line in gate.lines),
        "",
        f"Measured on {gate.details.get('cpu', 'an unnamed CPU')} with held-out pairs{_held_out(gate)}; "
        "details in `gate.json`.",
        "",
        *(f"- {tower} tower: {entry['recipe']}." for tower, entry in recipes.items()),
        *([""] if recipes else []),
    ]


def _held_out(gate: Gate) -> str:
    source = (gate.details.get("held_out") or {}).get("source")
    return f" of the {source}" if source else ""


def _limits(scores: Sequence[Score]) -> list[str]:
    marked: dict[str, list[str]] = {}
    for task, own in by_task(scores).items():
        for mark in dict.fromkeys(str(mark) for one in own for mark in one.context.get("marks") or ()):
            marked.setdefault(mark, []).append(task)
    ungrouped = [
        task
        for task, own in by_task(scores).items()
        if own[0].context.get("grouped") is False and own[0].context.get("groups")
    ]
    lines = [f"- Marked '{mark}': {', '.join(tasks)}." for mark, tasks in marked.items()]
    if ungrouped:
        lines.append(
            f"- Slides or patients are not known, so intervals are too narrow: {', '.join(ungrouped)}."
        )
    return [
        "## Limits",
        "",
        *lines,
        f"- Figures by sex, age, origin, site, scanner or stain: {NOT_RECORDED}.",
        "- Whether its answers help anybody at work was not studied.",
        "",
    ]


def _versions(card: Mapping[str, Any]) -> list[str]:
    packages = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    exported = _short((card.get("export") or {}).get("from"))
    return [
        "## Versions",
        "",
        f"- Exported by pathclip {__version__} from the model {exported}; "
        "`pathclip.json` holds the SHA-256 of every file.",
        f"- Packages: {packages}.",
        "",
    ]


def _again(card: Mapping[str, Any], scores: Sequence[Score]) -> list[str]:
    tasks = ",".join(task for task in by_task(scores) if task) or "…"
    seed = (card.get("training") or {}).get("seed")
    return [
        "## To reproduce",
        "",
        "```",
        f"pathclip train data.train=…{'' if seed is None else f' seed={seed}'}   # all keys: run.json",
        f"pathclip export model=… out=…{_words(card)}",
        f"pathclip evaluate model=this-folder task={tasks}",
        "```",
    ]


def _words(card: Mapping[str, Any]) -> str:
    """The further overrides of the export; of a path its last part, as the rest is of one machine."""
    words = (card.get("export") or {}).get("overrides") or []
    shown = [re.sub(r"(?<![^=\[,])/[^,\]]*/", "path/to/", str(word)) for word in words]
    return "".join(f" {shlex.quote(word)}" for word in shown)


def _row(line: Line) -> str:
    value = "not measured" if line.value is None else f"{line.value:.4f}"
    interval = "" if line.low is None or line.high is None else f"{line.low:.4f}–{line.high:.4f}"
    limit = "" if line.threshold is None else f"{line.threshold:g}"
    verdict = {True: "passed", False: "FAILED", None: ""}[line.passed]
    end = ", ".join(part for part in (verdict, line.note) if part)
    return f"| {line.name} | {value} | {interval} | {limit} | {line.n or ''} | {end} |"


def _calibration(fitted: Mapping[str, Any]) -> str:
    """'fitted on lc25000 (int8, fp32)': tasks and the precisions that have values."""
    parts = [
        f"{task} ({', '.join(entry)})"
        for task, entry in fitted.items()
        if isinstance(entry, Mapping) and entry
    ]
    return f"fitted on {', '.join(parts)}" if parts else NOT_RECORDED


def _score(entry: Mapping[str, Any]) -> Score:
    """A score of the card; null, which stands for NaN in JSON, becomes NaN again."""
    value, low, high = (
        float("nan") if entry.get(key) is None else float(entry[key]) for key in ("value", "low", "high")
    )
    return Score(str(entry["name"]), value, int(entry["n"]), low, high, entry.get("context") or {})


def _short(digest: Any) -> str:
    return f"`{str(digest)[:_HASH]}`" if digest else NOT_RECORDED


def _at(values: Sequence[Any], number: int) -> Any:
    return values[number] if number < len(values) else ""
