"""Trains recipes from the same weights on the same shards, over several seeds, and compares their retrieval.

    python scripts/compare_recipes.py --train outputs/demo/shards/train --val outputs/demo/shards/val \
        --test outputs/demo/shards/test \
        --recipe plip --recipe "plip optim.lr=5e-4" --recipe tweets -- model=lite trainer.max_epochs=4

A recipe is the name of an experiment, with overrides of its own; what follows `--` is given to all. The table
has retrieval on the test pairs (any with the same text counts as right): mean over the seeds with a 95 %
t-interval, and the difference of each recipe to the last one, paired by seed. Runs that exist are kept.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy import stats

import pathclip
from pathclip.evaluate.image_text.retrieval import ranks, recall_at, relevance
from pathclip.evaluate.image_text.retrieval_chance import chance_recall
from pathclip.runtime.preprocess import open_image
from pathclip.shards.reader import read_samples

KS = (1, 5, 10)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", required=True, help="folder of shards")
    parser.add_argument("--val", required=True, help="folder of shards")
    parser.add_argument("--test", required=True, help="folder of shards")
    parser.add_argument("--recipe", action="append", required=True, help="experiment, with its own overrides")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("outputs/recipes"))
    parser.add_argument("overrides", nargs="*", help="for all, after --")
    arguments = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {recipe: [] for recipe in arguments.recipe}
    for seed in arguments.seeds:
        for number, recipe in enumerate(arguments.recipe):
            run = arguments.out / f"{number}_{recipe.split()[0]}_seed{seed}"
            if not (run / "model" / "pathclip.json").is_file():
                train(recipe, seed, run, arguments)
            results[recipe].append(retrieval(run / "model", arguments.test))
            print(f"{recipe}, seed {seed}: {results[recipe][-1]}", file=sys.stderr, flush=True)
    print(table(results))


def train(recipe: str, seed: int, run: Path, arguments: argparse.Namespace) -> None:
    """One run; ends the script if it fails."""
    experiment, *own = recipe.split()
    command = [sys.executable, "-m", "pathclip.train", f"experiment={experiment}"]
    command += [f"data.train={arguments.train}", f"data.val={arguments.val}", f"seed={seed}", f"out={run}"]
    subprocess.run([*command, *arguments.overrides, *own], check=True)


def retrieval(model: Path, shards: str) -> dict[str, float]:
    """Recall of both directions, and that of chance."""
    encoder = pathclip.load(model, runtime="torch")
    samples = list(read_samples(shards))
    images = encoder.encode_images([open_image(sample.image) for sample in samples])
    texts = encoder.encode_texts([sample.text for sample in samples])
    right = relevance("same_text_or_group", [sample.text for sample in samples], np.arange(len(samples)))
    found = {"text to image": ranks(texts, images, right), "image to text": ranks(images, texts, right)}
    recalls = {f"{name} R@{k}": float(recall_at(k, rank).mean()) for name, rank in found.items() for k in KS}
    return recalls | {f"chance R@{k}": chance_recall(k, right) for k in KS}


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: a row for each metric, and one for the difference."""
    names = [*results]
    metrics = [*results[names[0]][0]]
    lines = [f"| metric | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for metric in metrics:
        values = {name: np.array([run[metric] for run in runs]) for name, runs in results.items()}
        cells = [interval(values[name]) for name in names]
        lines.append(f"| {metric} | {' | '.join(cells)} |")
        if metric.startswith("chance"):
            continue
        last = values[names[-1]]
        cells = [interval(last - values[name]) if name != names[-1] else "" for name in names]
        lines.append(f"| … {names[-1]} minus it | {' | '.join(cells)} |")
    return "\n".join(lines)


def interval(values: np.ndarray) -> str:
    """Mean and 95 % t-interval over the seeds."""
    mean = values.mean()
    if len(values) < 2:
        return f"{mean:.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]"


if __name__ == "__main__":
    main()
