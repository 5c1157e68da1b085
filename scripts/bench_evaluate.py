"""Where the time of an evaluation goes: 10,000 patches, all metrics, with an empty cache and again from it.

    python scripts/bench_evaluate.py FOLDER --model MODEL_FOLDER [--pictures 10000] [key=value …]

Makes labelled JPEG patches of 224 pixels under FOLDER, once: noise whose grain, direction and colour follow
the class, in groups of ten that share a tint; the same bytes for the same Pillow. A fifth of the groups is to
learn from, a tenth to validate on. Then runs `pathclip evaluate` on them, passing on every key=value, and
prints its profile. At last the encoder runs alone on ready arrays: what a run would take if nothing else took
time. Prints Markdown.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ("adipose tissue", "smooth muscle", "lymphocytes", "mucus", "tumour epithelium")
GRAIN = ((6, 6), (4, 28), (40, 40), (14, 5), (20, 24))  # rows and columns of noise, before it is enlarged
COLOURS = ((228, 205, 222), (214, 130, 160), (120, 90, 160), (190, 180, 215), (170, 100, 150))
SPLITS = ("train", "test", "test", "test", "train", "test", "validation", "test", "test", "test")
SIZE, PER_GROUP, PER_JOB = 224, 10, 250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the patches; they are made where it has none")
    parser.add_argument("--model", required=True, help="a model folder")
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("overrides", nargs="*", help="passed on to pathclip evaluate")
    arguments = parser.parse_intermixed_args()
    table = make_patches(arguments.folder, arguments.pictures)
    print(f"{cpu()}; {arguments.pictures:,} JPEG patches of {SIZE} px; {arguments.model}\n")
    with tempfile.TemporaryDirectory(prefix="bench-evaluate-") as work:
        command = [
            *(sys.executable, "-m", "pathclip", "evaluate", "task=patches_csv", *arguments.overrides),
            *(f"model={arguments.model}", f"precision={arguments.precision}", f"cache={work}/cache"),
            *(f"tasks.patches_csv.dataset.{key}={value}" for key, value in columns(table).items()),
        ]
        for name in ("empty cache", "again, from the cache"):
            out = Path(work) / name.split(maxsplit=1)[0].strip(",")
            start = time.perf_counter()
            subprocess.run([*command, f"out={out}"], check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - start
            profile = json.loads((out / "profile.json").read_text())
            print_profile(f"{name}: {seconds:.1f} s with the start of the program", profile)
    alone = encoder_alone(arguments.model, arguments.precision)
    print(f"The encoder alone: {alone * 1e3:.2f} ms a picture and variant on ready arrays.")


def columns(table: Path) -> dict[str, str]:
    return {"csv": str(table), "group": "group", "split": "split"}


def make_patches(folder: Path, count: int) -> Path:
    """Writes pictures and `patches.csv`; what is there already stays."""
    table = folder / f"patches-{count}.csv"
    if table.is_file():
        return table
    (folder / "patches").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        jobs = [(folder, range(n, min(n + PER_JOB, count))) for n in range(0, count, PER_JOB)]
        list(pool.map(write_patches, *zip(*jobs, strict=True)))
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "group", "split"])
        for number in range(count):
            group = number // PER_GROUP
            split = SPLITS[group // len(CLASSES) % len(SPLITS)]
            writer.writerow([name(number), CLASSES[group % len(CLASSES)], f"g{group}", split])
    return table


def name(number: int) -> str:
    return f"patches/{number:06d}.jpg"


def write_patches(folder: Path, numbers: range) -> None:
    for number in numbers:
        path = folder / name(number)
        if not path.is_file():
            patch(number).save(path, "JPEG", quality=85)


def patch(number: int) -> Image.Image:
    """One patch, which its number alone decides."""
    group = number // PER_GROUP
    kind = group % len(CLASSES)
    tint = np.random.default_rng((1, group)).normal(0, 12, 3)
    rng = np.random.default_rng((2, number))
    coarse = rng.normal(0, 1, GRAIN[kind])
    grain = np.asarray(
        Image.fromarray(coarse.astype(np.float32)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    )
    shades = grain[..., None] * (22, 34, 20) + rng.normal(0, 6, (SIZE, SIZE, 1))
    return Image.fromarray(np.clip(np.array(COLOURS[kind]) + tint + shades, 0, 255).astype(np.uint8))


def print_profile(title: str, profile: dict[str, Any]) -> None:
    print(f"{title}\n\n| part | calls | seconds | processor | share |\n|---|---|---|---|---|")
    for part in profile["parts"]:
        share = "beside" if part["share"] is None else f"{part['share']:.1%}"
        called = f"{part['name']} {part['detail']}".strip()
        print(f"| {called} | {part['calls']:,} | {part['seconds']:.1f} | {part['processor']:.1f} | {share} |")
    print(
        f"\nIn the encoder: {profile['encoder_share']:.1%} of {profile['seconds']:.1f} s, "
        f"{profile['encoder_processor_share']:.1%} of {profile['processor']:.1f} processor seconds.\n",
        flush=True,
    )


def encoder_alone(model: str, precision: str, pictures: int = 640) -> float:
    """Seconds per picture, the least of three runs."""
    import pathclip

    encoder = pathclip.load(model, precision=precision)  # type: ignore[arg-type]
    pixels = np.random.default_rng(0).integers(0, 256, (pictures, *encoder.preprocess.size, 3), np.uint8)
    encoder.encode_images(pixels[:64])
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        encoder.encode_images(pixels)
        seconds.append(time.perf_counter() - start)
    return min(seconds) / pictures


def cpu() -> str:
    from pathclip.runtime.cores import available_cores
    from pathclip.runtime.cpu import cpu

    return f"{cpu().name}, {available_cores()} cores"


if __name__ == "__main__":
    main()
