"""`export(cfg)`: from a trained model folder to one with int8 ONNX towers, if the gate lets it through."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pathclip import atomic
from pathclip.config import build, check_values, output_folder
from pathclip.errors import ConfigError, ModelFolderError
from pathclip.export.card import readme
from pathclip.export.gate import ExportGateError, Gate, Prompts, Thresholds, compare
from pathclip.export.recipe import Recipe
from pathclip.export.samples import Samples, halves, read_calibration
from pathclip.export.search import Chosen, quantize_best, variants
from pathclip.export.tower import Tower
from pathclip.model_folder import (
    TRAINING_PICTURES,
    WEIGHTS,
    ModelFolder,
    open_model_folder,
    write_model_folder,
)
from pathclip.runtime.classify import TEMPLATES, fill
from pathclip.runtime.preprocess import Preprocess
from pathclip.runtime.tokenizer import Tokenizer

TOWERS = ("image", "text")
COPIED = ("open_clip_config.json", "tokenizer.json", "text/config.json", TRAINING_PICTURES)
VALUES = {
    "model": str | int | None,
    "seed": int,
    "limit": int | None,
    "search": bool,
    "keep_fp32": bool,
    "keep_torch": bool,
    "force": bool,
    "calibration.shards": str | list[str] | None,
    "calibration.samples": int,
    "calibration.held_out": int,
    "prompts.classes": list[str] | None,
    "prompts.templates": list[str] | None,
}
LEAST = {"seed": 0, "limit": 1, "calibration.samples": 8, "calibration.held_out": 8}


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export leaves.

    Attributes:
        out: the new model folder.
        gate: the comparison of int8 with fp32.
        chosen: tower → the recipe taken, with all trials.
    """

    out: Path
    gate: Gate
    chosen: Mapping[str, Chosen]


def export(cfg: Any) -> ExportResult:
    """Exports a model folder as the config says.

    Args:
        cfg: as `pathclip.launch.compose("export", overrides)` gives it.

    Raises:
        ConfigError: a missing or wrong value.
        ModelFolderError: `model` is no folder with torch weights.
        DataError: no shards to calibrate on, or too few pairs.
        ExportGateError: int8 is too far from fp32 and `force` is false; nothing is written.
    """
    check_values(cfg, VALUES, LEAST)
    folder, out = _folders(cfg)
    recipe = build(cfg.recipe, "recipe")
    thresholds = Thresholds.from_config(cfg.gate)
    preprocess = Preprocess.from_card(folder.card["preprocess"])
    tokenizer = Tokenizer.of_folder(folder)
    prompts = _prompts(cfg, folder, tokenizer)
    calibration, held_out = read_calibration(
        _shards(cfg, folder),
        cfg.calibration.samples,
        cfg.calibration.held_out,
        preprocess,
        tokenizer,
        seed=cfg.seed,
        limit=cfg.limit,
    )
    with tempfile.TemporaryDirectory(prefix="pathclip-export-") as name:
        work = Path(name)
        fp32 = _fp32_towers(folder, work, preprocess)
        int8, chosen = _quantised(fp32, calibration, recipe, cfg.search, work)
        details = {"recipes": {tower: _trials(chosen[tower]) for tower in TOWERS}, "forced": cfg.force}
        gate = compare(fp32, int8, held_out, thresholds, prompts, details)
        if not gate.passed and not cfg.force:
            raise ExportGateError(
                f"{folder.path}: int8 is too far from fp32: {gate.failures()}. Nothing was written; try "
                "another recipe, more calibration.samples, or force=true to write it with a warning"
            )
        _write(cfg, folder, out, gate, int8, fp32 if cfg.keep_fp32 else {})
    print(f"model folder: {out}")
    return ExportResult(out, gate, chosen)


def _folders(cfg: Any) -> tuple[ModelFolder, Path]:
    if cfg.model is None:
        raise ConfigError("model: name a model folder, as model=outputs/train/…/model")
    folder, out = open_model_folder(str(cfg.model)), output_folder(cfg)
    if not folder.has(WEIGHTS):
        raise ModelFolderError(
            f"{folder.path}: no {WEIGHTS} in it, so it was exported already; name the trained folder"
        )
    if out.resolve() == folder.path.resolve():
        raise ConfigError(f"out: {out} is the model that is exported; name another folder")
    if out.exists() and any(out.iterdir()) and not (out / "pathclip.json").is_file():
        raise ConfigError(f"out: {out} exists and is no model folder, so it is not replaced; name another")
    return folder, out


def _shards(cfg: Any, folder: ModelFolder) -> list[Path]:
    """The folders that the config names, else those that the model was trained on."""
    given = cfg.calibration.shards
    found = given if given is not None else (folder.card.get("training") or {}).get("shards")
    if not found:
        raise ConfigError(
            f"calibration.shards: {folder.path} does not record its training shards; name a folder of shards"
        )
    return [Path(found)] if isinstance(found, str) else [Path(str(one)) for one in found]


def _fp32_towers(folder: ModelFolder, work: Path, preprocess: Preprocess) -> dict[str, Path]:
    from pathclip.export.onnx import export_towers
    from pathclip.model.torch_encoder import load_torch_model

    model = load_torch_model(folder)
    return export_towers(model, work, preprocess.size, int(folder.card["context_length"]))


def _quantised(
    fp32: Mapping[str, Path], calibration: Samples, recipe: Recipe, search: bool, work: Path
) -> tuple[dict[str, Path], dict[str, Chosen]]:
    recipes = variants(recipe) if search else [recipe]
    int8 = {tower: work / f"{tower}_int8.onnx" for tower in TOWERS}
    used, selection = halves(calibration)
    chosen = {
        tower: quantize_best(Tower(tower, fp32[tower], used, selection, work), int8[tower], recipes)
        for tower in TOWERS
    }
    return int8, chosen


def _trials(chosen: Chosen) -> dict[str, Any]:
    kept = len(chosen.quantised.kept_fp32)
    return {
        "recipe": chosen.recipe.describe() + (f", {kept} layers in fp32" if kept else ""),
        "layers": chosen.quantised.layers,
        "kept_fp32": list(chosen.quantised.kept_fp32),
        "trials": [
            {**asdict(trial.recipe), "cosine": round(trial.cosine, 6), "bytes": trial.size}
            for trial in chosen.trials
        ],
    }


def _prompts(cfg: Any, folder: ModelFolder, tokenizer: Tokenizer) -> Prompts | None:
    """Classes from the config, else from the card; templates likewise.

    Raises:
        ConfigError: a template without `{}`, by which all classes would be one.
    """
    card = folder.card.get("prompts") or {}
    classes = tuple(cfg.prompts.classes or card.get("classes") or ())
    if len(classes) < 2:
        return None
    templates = list(cfg.prompts.templates or card.get("templates") or TEMPLATES)
    for template in templates:
        if "{}" not in template:
            raise ConfigError(f"prompts.templates: '{template}' has no {{}} where the class goes")
    texts = [fill(template, label) for label in classes for template in templates]
    return Prompts(classes, tokenizer(texts))


def _write(
    cfg: Any,
    folder: ModelFolder,
    out: Path,
    gate: Gate,
    int8: Mapping[str, Path],
    fp32: Mapping[str, Path],
) -> None:
    card = {
        **{key: value for key, value in folder.card.items() if key not in ("files", "schema_version")},
        "export": {
            "from": folder.hash,
            "gate_passed": gate.passed,
            "recipes": {tower: entry["recipe"] for tower, entry in gate.details["recipes"].items()},
        },
    }
    with write_model_folder(out, card) as staging:
        (staging / "onnx").mkdir()
        for precision, files in (("int8", int8), ("fp32", fp32)):
            for tower, file in files.items():
                shutil.copyfile(file, staging / "onnx" / f"{tower}_{precision}.onnx")
        for name in (*COPIED, *((WEIGHTS,) if cfg.keep_torch else ())):
            if folder.has(name):
                (staging / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(folder.file(name), staging / name)
        atomic.write_json(staging / "gate.json", gate.as_json())
        atomic.write_text(staging / "README.md", readme(card, gate))
