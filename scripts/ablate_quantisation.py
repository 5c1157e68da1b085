"""What each ingredient of a recipe is worth: one tower quantised with it alone, and with all but it.

    python scripts/ablate_quantisation.py outputs/train/plip/model --train shards/train --val shards/val
    python scripts/ablate_quantisation.py outputs/train/plip/model --train shards/train --val shards/val \
        --tower text --skip adaround nncf

Ranges are read off pairs of --train; cosines to fp32 are of pairs of --val of other groups, in onnxruntime on
this machine. What rows share (graphs, ranges) is made before the clock of a row starts.
8-bit weights look as good as 7-bit ones on CPUs with VNNI, where nothing saturates. The table is Markdown.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from pathclip.errors import ConfigError, DataError, PathclipError
from pathclip.export.calibration.samples import BATCH, LEAST, Samples, read_calibration
from pathclip.export.graphs.onnx import export_towers
from pathclip.export.graphs.session import embed
from pathclip.export.graphs.speed import time_in_turn
from pathclip.export.quantiser.nncf_quantizer import import_nncf
from pathclip.export.quantiser.recipe import Recipe
from pathclip.export.quantiser.tower import Tower
from pathclip.model.torch_encoder import load_torch_model
from pathclip.model_folder import open_model_folder
from pathclip.runtime.preprocess import Preprocess
from pathclip.runtime.tokenizer import Tokenizer
from pathclip.shards.reader import data_hash

DEFAULT = Recipe()
NAIVE = Recipe(
    calibration="minmax",
    weight_bits=8,
    bias_correction=False,
    smoothing=0.0,
    equalisation=False,
    keep_fp32=(),
)
SAFE = dataclasses.replace(NAIVE, weight_bits=7)
# Added to 7-bit min-max alone, and set in the default recipe: (name, what changes).
INGREDIENTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("min-max", {"calibration": "minmax"}),
    ("percentile 99.99", {"calibration": "percentile"}),
    ("percentile 99.9", {"calibration": "percentile", "percentile": 99.9}),
    ("entropy", {"calibration": "entropy"}),
    ("mse", {"calibration": "mse"}),
    ("bias correction", {"bias_correction": True}),
    ("no bias correction", {"bias_correction": False}),
    ("smoothing 0.7", {"smoothing": 0.7}),
    ("smoothing 0.5", {"smoothing": 0.5}),
    ("no smoothing", {"smoothing": 0.0}),
    ("equalisation", {"equalisation": True}),
    ("no equalisation", {"equalisation": False}),
    ("adaround", {"rounding": "adaround"}),
    ("stem in fp32", {"keep_fp32": ("stem",)}),
    ("stem and depthwise in fp32", {"keep_fp32": ("stem", "depthwise")}),
    ("nothing in fp32", {"keep_fp32": ()}),
    ("8-bit weights", {"weight_bits": 8}),
    ("int8 attention", {"attention": True}),
    ("one scale per tensor", {"per_channel": False}),
    ("nncf", {"quantizer": "nncf", "rounding": "nearest"}),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="a model folder with torch weights")
    parser.add_argument("--train", type=Path, required=True, help="folder of shards to calibrate on")
    parser.add_argument("--val", type=Path, required=True, help="folder of shards to judge on")
    parser.add_argument("--tower", choices=("image", "text"), default="image")
    parser.add_argument("--samples", type=int, default=96, help="pairs to calibrate on")
    parser.add_argument("--held-out", type=int, default=128, help="pairs to judge on")
    parser.add_argument("--skip", nargs="*", default=[], help="ingredients left out, such as adaround nncf")
    parser.add_argument("--only", nargs="*", default=[""], help="rows whose label has one of these in it")
    parser.add_argument("--minutes", type=float, default=20.0, help="no new row is begun after these")
    parser.add_argument("--keep", type=Path, help="a folder for the fp32 and int8 files")
    try:
        ablate(parser.parse_args())
    except PathclipError as error:
        sys.exit(str(error))


def ablate(arguments: argparse.Namespace) -> None:
    """Prints the table, a row as soon as it is measured."""
    calibration, held_out, model, preprocess, length = read(arguments)
    with tempfile.TemporaryDirectory(prefix="pathclip-ablation-") as name:
        work = arguments.keep or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        fp32 = export_towers(model, work, preprocess.size, length)[arguments.tower]
        tower = Tower(arguments.tower, fp32, calibration, held_out, work)
        expected = embed(fp32, arguments.tower, held_out)
        print(f"{arguments.tower} tower, calibrated on {len(calibration)}, judged on {len(held_out)}\n")
        print("| recipe | mean cosine | 1 % worst | speed / fp32 | layers in fp32 | quantised in s |")
        print("|---|---|---|---|---|---|", flush=True)
        end = time.monotonic() + 60 * arguments.minutes
        for place, (label, recipe) in enumerate(rows(arguments.skip, arguments.only)):
            if time.monotonic() > end:
                print(f"| {label} | not measured: over {arguments.minutes:g} minutes | | | | |")
                continue
            print(row(label, tower, recipe, expected, work / f"{place:02d}.onnx"), flush=True)


def read(arguments: argparse.Namespace) -> tuple[Samples, Samples, Any, Preprocess, int]:
    """Calibration and held-out pairs of other groups, the torch model, and what its towers take."""
    refuse_same(arguments.train, arguments.val)
    folder = open_model_folder(str(arguments.model))
    preprocess = Preprocess.from_card(folder.card["preprocess"])
    tokenizer = Tokenizer.of_folder(folder)
    calibration, _ = read_calibration([arguments.train], arguments.samples, LEAST, preprocess, tokenizer)
    _, held_out = read_calibration([arguments.val], LEAST, arguments.held_out, preprocess, tokenizer)
    held_out = of_other_groups(held_out, calibration)
    return calibration, held_out, load_torch_model(folder), preprocess, int(folder.card["context_length"])


def refuse_same(train: Path, val: Path) -> None:
    """Raises ConfigError if both are the same pairs, by their folder or by their content."""
    known = data_hash(val)
    if train.resolve() == val.resolve() or (known and known == data_hash(train)):
        raise ConfigError(f"--val {val}: the same pairs as --train {train}; name shards of other pairs")


def of_other_groups(held_out: Samples, calibration: Samples) -> Samples:
    """The held-out pairs without those whose group lends pairs to calibrate on."""
    seen = set(calibration.groups)
    kept = [number for number, group in enumerate(held_out.groups) if group not in seen]
    if len(kept) < LEAST:
        raise DataError(
            f"--val: {len(kept)} of {len(held_out)} pairs are of groups that --train was not drawn from; "
            f"at least {LEAST} are needed"
        )
    return held_out.take(kept)


def rows(skip: list[str], only: list[str]) -> list[tuple[str, Recipe]]:
    """Label and recipe of every row that is asked for; none twice."""
    found = [("naive: min-max, 8-bit", NAIVE), ("7-bit, min-max", SAFE)]
    found += [(f"7-bit, min-max + {name}", changed(SAFE, change)) for name, change in INGREDIENTS]
    found += [("default", DEFAULT)]
    found += [(f"default, {name}", changed(DEFAULT, change)) for name, change in INGREDIENTS]
    seen: list[Recipe] = []
    kept = []
    for label, recipe in found:
        wanted = any(part in label for part in only) and not any(part in label for part in skip)
        if recipe not in seen and wanted:
            seen.append(recipe)
            kept.append((label, recipe))
    return kept


def changed(recipe: Recipe, change: dict[str, Any]) -> Recipe:
    return dataclasses.replace(recipe, **change)


def row(label: str, tower: Tower, recipe: Recipe, expected: np.ndarray, file: Path) -> str:
    """One row; a recipe that cannot be carried out says why."""
    try:
        if recipe.quantizer == "nncf":
            import_nncf()
        tower.statistics(tower.graph(recipe))
        start = time.monotonic()
        made = tower.quantise(recipe, file)
    except PathclipError as error:
        return f"| {label} | {error} | | | | |"
    taken = time.monotonic() - start
    ratio = time_in_turn(tower.fp32, file, next(tower.selection.part(0, BATCH).feeds(tower.name))).ratio
    cosine = (embed(file, tower.name, tower.selection) * expected).sum(axis=1)
    return (
        f"| {label} | {cosine.mean():.5f} | {np.quantile(cosine, 0.01):.5f} | {ratio:.2f} "
        f"| {len(made.kept_fp32)} of {made.layers} | {taken:.1f} |"
    )


if __name__ == "__main__":
    main()
