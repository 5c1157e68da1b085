"""The README.md of an exported folder, from its card and its gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pathclip.export.gate import Gate, Line


def readme(card: Mapping[str, Any], gate: Gate) -> str:
    """Markdown: what the model is, how it was trained, how near int8 is to fp32, and what it is not for."""
    name = card.get("name", "model")
    licence = card.get("licence") or "not stated; ask whoever trained it before passing it on"
    cpu = gate.details.get("cpu", "an unnamed CPU")
    height, width = _size(card["preprocess"]["size"])
    lines = [
        f"# {name}, int8",
        "",
        "An image-text dual encoder for pathology pictures, quantised for CPUs. "
        "**Research software. Not a medical device; not for diagnosis.**",
        "",
    ]
    if not gate.passed:
        lines += [
            f"> **This model failed its export gate** and was written because that was asked for: "
            f"{gate.failures()}.",
            "",
        ]
    lines += [
        "```python",
        "import pathclip",
        "",
        'encoder = pathclip.load("this-folder")',
        "vectors = encoder.encode_images(images)",
        "```",
        "",
        f"- Input {height}x{width} pixels, {card['context_length']} tokens; "
        f"embeddings of {card['embed_dim']} numbers.",
        f"- Starting weights: {card.get('starting_weights') or 'not recorded'}.",
        f"- Training: {_training(card.get('training') or {})}.",
        f"- Licence of the weights: {licence}.",
        "",
        "## int8 against fp32",
        "",
        "| | value | limit | samples | |",
        "|---|---|---|---|---|",
        *(_row(line) for line in gate.lines),
        "",
        f"Measured on {cpu} with held-out pairs; details in `gate.json`.",
        *_recipes(gate.details),
        "",
        *_scores(card.get("scores") or []),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _row(line: Line) -> str:
    value = "not measured" if line.value is None else f"{line.value:.4f}"
    limit = "" if line.threshold is None else f"{line.threshold:g}"
    verdict = {True: "passed", False: "FAILED", None: ""}[line.passed]
    end = ", ".join(part for part in (verdict, line.note) if part)
    return f"| {line.name} | {value} | {limit} | {line.n or ''} | {end} |"


def _recipes(details: Mapping[str, Any]) -> list[str]:
    recipes = details.get("recipes") or {}
    lines = [f"- {tower} tower: {entry['recipe']}." for tower, entry in recipes.items()]
    return ["", *lines] if lines else []


def _scores(scores: list[Any]) -> list[str]:
    if not scores:
        return []
    lines = [
        "## Scores of the model before export",
        "",
        "| score | value | 95 % interval | n |",
        "|---|---|---|---|",
    ]
    for score in scores:
        interval = f"{score['low']:.3f}–{score['high']:.3f}"
        lines.append(f"| {score['name']} | {score['value']:.3f} | {interval} | {score['n']} |")
    return lines


def _training(training: Mapping[str, Any]) -> str:
    parts = [
        f"{training[key]} {key}" for key in ("pairs", "epochs", "steps") if training.get(key) is not None
    ]
    return ", ".join(parts) or "not recorded"


def _size(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
