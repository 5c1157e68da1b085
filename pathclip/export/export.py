"""`export(cfg)`: from a trained model folder to one with int8 ONNX towers, if the gate lets it through."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pathclip import atomic
from pathclip.config import build, check_values, output_folder
from pathclip.errors import ConfigError, ModelFolderError
from pathclip.export import prompts as class_prompts
from pathclip.export.calibration.labelled import labelled_by_pairs, labelled_by_task
from pathclip.export.calibration.samples import Samples, text_samples
from pathclip.export.calibration.sets import Wanted, draw_sets, folders_of
from pathclip.export.gate.gate import TRAINED_ON, ExportGateError, Gate, Thresholds, compare
from pathclip.export.gate.layers import layer_errors
from pathclip.export.quantiser.recipe import Recipe
from pathclip.export.quantiser.tower import Tower
from pathclip.export.reporting.card import readme
from pathclip.export.reporting.report import Exported, write_report
from pathclip.export.reporting.report_sets import sets_of
from pathclip.export.search.objective import ClassPrompts, Objective
from pathclip.export.search.search import Chosen, search
from pathclip.model_folder import (
    PROMPT_EMBEDDINGS,
    TRAINING_PICTURES,
    WEIGHTS,
    ModelFolder,
    open_model_folder,
    write_model_folder,
)
from pathclip.runtime.preprocess import Preprocess
from pathclip.runtime.prompt_store import save_prompt_embeddings
from pathclip.runtime.tokenizer import Tokenizer

TOWERS = ("image", "text")
COPIED = ("open_clip_config.json", "tokenizer.json", "text/config.json", TRAINING_PICTURES)
SEARCHES = (False, "quick", "full")
LAYER_SAMPLES = 32  # of the error of each layer: all its outputs are held at once
VALUES = {
    "model": str | int | None,
    "seed": int,
    "limit": int | None,
    "search_minutes": float,
    "tolerance": float,
    "keep_fp32": bool,
    "keep_torch": bool,
    "force": bool,
    "calibration.shards": str | list[str] | None,
    "calibration.held_out_shards": str | list[str] | None,
    "calibration.samples": int,
    "calibration.selection": int,
    "calibration.held_out": int,
    "task_limit": int,
    "prompts.classes": list[str] | None,
    "prompts.templates": list[str] | None,
}
LEAST = {
    **{"seed": 0, "limit": 1, "search_minutes": 0, "tolerance": 0, "task_limit": 2},
    **{f"calibration.{name}": 8 for name in ("samples", "selection", "held_out")},
}


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export leaves.

    Attributes:
        out: the new model folder.
        report: folder of `report.html` and `report.json`.
        gate: the comparison of int8 with fp32.
        chosen: tower → the recipe taken, with all trials.
    """

    out: Path
    report: Path
    gate: Gate
    chosen: Mapping[str, Chosen]


def export(cfg: Any) -> ExportResult:
    """Exports a model folder as the config says.

    Args:
        cfg: as `pathclip.launch.compose("export", overrides)` gives it.

    Raises:
        ConfigError: a missing or wrong value.
        ModelFolderError: `model` is no folder with torch weights.
        DataError: no shards to calibrate on, or too few pairs; a task whose pictures cannot be read.
        ExportGateError: int8 is too far from fp32 and `force` is false; nothing but the report is written.
    """
    check_values(cfg, VALUES, LEAST)
    if cfg.search not in SEARCHES:
        raise ConfigError(f"search: expected false, quick or full, got {cfg.search!r}")
    folder, out, report = _folders(cfg)
    recipe, thresholds = build(cfg.recipe, "recipe"), Thresholds.from_config(cfg.gate)
    tasks = _tasks(cfg)
    preprocess = Preprocess.from_card(folder.card["preprocess"])
    tokenizer = Tokenizer.of_folder(folder)
    classes, templates = class_prompts.named_classes(cfg, folder), class_prompts.templates(cfg, folder)
    prompts = class_prompts.gate_prompts(classes, templates, tokenizer)

    wanted = _wanted(cfg, folder)
    drawn = draw_sets(wanted, folder.card.get("training") or {}, preprocess, tokenizer)
    calibration, selection, held_out = drawn.calibration, drawn.selection, drawn.held_out
    source = f"held-out pairs{', ' + TRAINED_ON if drawn.trained_on else ''}"
    labelled = labelled_by_pairs(held_out, classes, templates, tokenizer, source)
    for name, task in tasks.items():
        labelled = labelled_by_task(name, task, cfg.task_limit, (calibration, selection), tokenizer)

    with tempfile.TemporaryDirectory(prefix="pathclip-export-") as name:
        work = Path(name)
        fp32 = _fp32_towers(folder, work, preprocess)
        asked = class_prompts.search_prompts(prompts, labelled)
        chosen = _chosen(cfg, folder, fp32, calibration, selection, recipe, asked, work)
        int8 = {tower: chosen[tower].quantised.file for tower in TOWERS}
        # Without a search there is no choice that the prompts could have taken part in.
        chosen_by = asked if cfg.search else None
        fitted = [
            calibration,
            selection,
            *([text_samples(chosen_by.tokens, preprocess)] if chosen_by else []),
        ]
        details = {
            "recipes": {tower: _recipe(chosen[tower]) for tower in TOWERS},
            "forced": cfg.force,
            "held_out": {"source": drawn.source, "pairs": len(held_out), "note": drawn.note},
        }
        gate = compare(fp32, int8, held_out, thresholds, prompts, details, labelled, fitted, drawn.trained_on)
        layers = {tower: _layer_errors(chosen[tower], tower, selection) for tower in TOWERS}
        sets = sets_of(wanted.shards, drawn, labelled, chosen_by is not None)
        page = write_report(
            report, Exported(folder, out, gate, chosen, layers, sets, cfg.tolerance, cfg.seed)
        )
        print(f"gate: {gate.in_words()}", file=sys.stderr)
        print(f"report: {page}")
        if not gate.passed and not cfg.force:
            raise ExportGateError(
                f"{folder.path}: int8 is too far from fp32: {gate.failures()}. No model folder was written; "
                f"{page} says more. Try search=full, another recipe, more calibration.samples, or force=true "
                "to write it with a warning"
            )
        texts = class_prompts.stored_texts(cfg, folder, tasks.values())
        kept = {"int8": int8, **({"fp32": fp32} if cfg.keep_fp32 else {})}
        stored = class_prompts.embed_prompts(
            texts, {precision: files["text"] for precision, files in kept.items()}, tokenizer, preprocess
        )
        _write(cfg, folder, out, gate, kept, stored)
    print(f"model folder: {out}")
    return ExportResult(out, report, gate, chosen)


def _folders(cfg: Any) -> tuple[ModelFolder, Path, Path]:
    """The model, where the exported one goes, and where the report goes."""
    if cfg.model is None:
        raise ConfigError("model: name a model folder, as model=outputs/train/…/model")
    folder, out = open_model_folder(str(cfg.model)), output_folder(cfg)
    report = output_folder(cfg, "report")
    if not folder.has(WEIGHTS):
        raise ModelFolderError(
            f"{folder.path}: no {WEIGHTS} in it, so it was exported already; name the trained folder"
        )
    if out.resolve() == folder.path.resolve():
        raise ConfigError(f"out: {out} is the model that is exported; name another folder")
    if out.exists() and any(out.iterdir()) and not (out / "pathclip.json").is_file():
        raise ConfigError(f"out: {out} exists and is no model folder, so it is not replaced; name another")
    if report.resolve() in (out.resolve(), folder.path.resolve()):
        raise ConfigError(f"report: {report} is a model folder; name another folder")
    return folder, out, report


def _overrides() -> list[str]:
    """The words of the command but for the folders that it names first, which a reader has elsewhere."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return []
    words = [str(word) for word in HydraConfig.get().overrides.task]
    return [word for word in words if not word.startswith(("model=", "model_folder=", "out=", "report="))]


def _tasks(cfg: Any) -> dict[str, Any]:
    """The task that the gate measures accuracy on, if one is named."""
    if len(cfg.tasks) > 1:
        raise ConfigError(f"task: one at most, but {len(cfg.tasks)} were named: {', '.join(cfg.tasks)}")
    return {str(name): build(node, f"tasks.{name}") for name, node in cfg.tasks.items()}


def _wanted(cfg: Any, folder: ModelFolder) -> Wanted:
    """Pairs from the folders that the config names, else from those that the model was trained on."""
    given = cfg.calibration.shards
    found = given if given is not None else (folder.card.get("training") or {}).get("shards")
    if not found:
        raise ConfigError(
            f"calibration.shards: {folder.path} does not record its training shards; name a folder of shards"
        )
    sizes, held_out = cfg.calibration, cfg.calibration.held_out_shards
    return Wanted(
        sizes.samples,
        sizes.selection,
        sizes.held_out,
        folders_of(found),
        None if held_out is None else folders_of(held_out),
        cfg.seed,
        cfg.limit,
    )


def _fp32_towers(folder: ModelFolder, work: Path, preprocess: Preprocess) -> dict[str, Path]:
    from pathclip.export.graphs.onnx import export_towers
    from pathclip.model.torch_encoder import load_torch_model

    model = load_torch_model(folder)
    return export_towers(model, work, preprocess.size, int(folder.card["context_length"]))


def _chosen(
    cfg: Any,
    folder: ModelFolder,
    fp32: Mapping[str, Path],
    calibration: Samples,
    selection: Samples,
    recipe: Recipe,
    asked: ClassPrompts | None,
    work: Path,
) -> dict[str, Chosen]:
    """The recipe of each tower; the second gets the time that the first left."""
    objective = Objective(fp32, selection, float(folder.card["logit_scale"]), asked)
    left, chosen = cfg.search_minutes * 60.0, {}
    for number, name in enumerate(TOWERS):
        tower = Tower(name, fp32[name], calibration, selection, work)
        seconds = left / (len(TOWERS) - number)
        chosen[name] = search(tower, objective, recipe, cfg.search or None, cfg.tolerance, seconds)
        left = max(left - chosen[name].seconds, 0.0)
    return chosen


def _layer_errors(chosen: Chosen, tower: str, samples: Samples) -> tuple[Any, ...]:
    few, quantised = samples.part(0, LAYER_SAMPLES), chosen.quantised
    return layer_errors(chosen.fp32, quantised.file, tower, few, quantised.reasons)


def _recipe(chosen: Chosen) -> dict[str, Any]:
    """What `gate.json` says of a tower."""
    return {
        "recipe": chosen.trial.describe(),
        "layers": chosen.quantised.layers,
        "kept_fp32": list(chosen.quantised.kept_fp32),
        "reasons": dict(chosen.quantised.reasons),
        "chosen": chosen.number,
        "trials": [
            {
                **asdict(trial.recipe),
                **trial.fidelity.as_json(),
                "stage": trial.stage,
                "layers_in_fp32": len(trial.quantised.kept_fp32),
                "unsafe_layers": trial.unsafe,
                "speed": round(trial.speed, 3),
                "bytes": trial.size,
            }
            for trial in chosen.trials
        ],
    }


def _write(
    cfg: Any,
    folder: ModelFolder,
    out: Path,
    gate: Gate,
    towers: Mapping[str, Mapping[str, Path]],
    stored: Mapping[str, Mapping[str, Any]],
) -> None:
    card = {
        **{key: value for key, value in folder.card.items() if key not in ("files", "schema_version")},
        "export": {
            "from": folder.hash,
            "gate_passed": gate.passed,
            "recipes": {tower: entry["recipe"] for tower, entry in gate.details["recipes"].items()},
            "overrides": _overrides(),
        },
    }
    with write_model_folder(out, card) as staging:
        (staging / "onnx").mkdir()
        for precision, files in towers.items():
            for tower, file in files.items():
                shutil.copyfile(file, staging / "onnx" / f"{tower}_{precision}.onnx")
        for name in (*COPIED, *((WEIGHTS,) if cfg.keep_torch else ())):
            if folder.has(name):
                (staging / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(folder.file(name), staging / name)
        if stored:
            save_prompt_embeddings(staging / PROMPT_EMBEDDINGS, stored)
        atomic.write_json(staging / "gate.json", gate.as_json())
        atomic.write_text(staging / "README.md", readme(card, gate))
