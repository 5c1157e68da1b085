"""Measures what pictures cost beside the encoder: JPEG to embedding against the encoder alone.

    .venv/bin/python scripts/bench_preprocess.py FOLDER [--sizes 224 512 1024] [--n 64] [--batch 16]
        [--repeats 5] [--threads N] [--runtime onnx] [--precision int8] [--pictures FOLDER]

The encoder alone gets pixels of the model's size, uint8, which it normalises. End to end it gets JPEG files
of each size (quality 90, 4:2:0) by `read_batches`, as `pathclip classify` and `pathclip index` do; 'whole' is
the same with `draft` 0, where all of every JPEG is decoded. The ways take turns; of each the best repeat
counts, so that other work matters less. 'share' is the encoder's own time over that of the whole,
by the clock, and 'of CPU' the same of processor time, which says more on a busy machine.
Without --pictures, micrographs are drawn here; with it, its pictures are cut and scaled to each size.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

import pathclip
from pathclip.runtime.cores import available_cores
from pathclip.runtime.images import find_images, open_image, read_batches
from pathclip.runtime.preprocess import Preprocess

QUALITY = 90
ALONE = "encoder alone"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a model folder")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 512, 1024], help="edges of the JPEGs")
    parser.add_argument("--n", type=int, default=64, help="pictures of each size")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of the encoder and of decoding; default: the cores")
    parser.add_argument("--runtime", default="onnx")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--pictures", type=Path, help="a folder; without it micrographs are drawn here")
    arguments = parser.parse_args()
    threads = arguments.threads or available_cores()
    model = pathclip.load(arguments.folder, arguments.runtime, arguments.precision, threads)

    with tempfile.TemporaryDirectory() as scratch:
        files = {
            size: write_jpegs(Path(scratch), size, arguments.n, arguments.pictures)
            for size in arguments.sizes
        }
        ready = np.random.default_rng(0).integers(
            0, 256, (arguments.n, *model.preprocess.size, 3), dtype=np.uint8
        )
        ways: dict[str, Callable[[], None]] = {ALONE: lambda: encode_ready(model, ready, arguments.batch)}
        for size, paths in files.items():
            for name, preprocess in (
                (f"JPEG of {size} px", model.preprocess),
                (f"JPEG of {size} px, whole", replace(model.preprocess, draft=0)),
            ):
                ways[name] = end_to_end(model, paths, preprocess, arguments.batch, threads)
            ways[f"decoding {size} px alone"] = decoding(paths, model.preprocess, threads)
        seconds, processor = least_times(ways, arguments.repeats)
        kib = {
            size: sum(p.stat().st_size for p in paths) / len(paths) / 1024 for size, paths in files.items()
        }

    print(f"{cpu()}, {threads} threads; {model.name} {model.precision} by {model.runtime}")
    print(f"{arguments.n} pictures, batch {arguments.batch}, best of {arguments.repeats}; KiB: ", end="")
    print(", ".join(f"{size} px {each:.0f}" for size, each in kib.items()))
    print(f"{'':24}{'images/s':>10}{'ms/image':>10}{'share':>8}{'CPU ms':>10}{'of CPU':>8}")
    for name, took in seconds.items():
        line = f"{name:24}{arguments.n / took:10.1f}{1000 * took / arguments.n:10.2f}"
        used = f"{1000 * processor[name] / arguments.n:10.2f}"
        if name.startswith("decoding"):
            print(f"{line}{'':8}{used}")
        else:
            share, of_cpu = seconds[ALONE] / took, processor[ALONE] / processor[name]
            print(f"{line}{share:8.2f}{used}{of_cpu:8.2f}")


def encode_ready(model: pathclip.runtime.encoder.Encoder, pixels: np.ndarray, batch: int) -> None:
    for start in range(0, len(pixels), batch):
        model.encode_images(pixels[start : start + batch])


def end_to_end(model, paths: list[Path], preprocess: Preprocess, batch: int, threads: int):
    def run() -> None:
        for found in read_batches(paths, preprocess, batch, threads):
            model.encode_images(found.pixels)

    return run


def decoding(paths: list[Path], preprocess: Preprocess, threads: int):
    def run() -> None:
        for _ in read_batches(paths, preprocess, 16, threads):
            pass

    return run


def least_times(
    ways: dict[str, Callable[[], None]], repeats: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Least seconds of each way, by the clock and of all processors; between repeats they take turns."""
    clock, processor = dict.fromkeys(ways, float("inf")), dict.fromkeys(ways, float("inf"))
    for way in ways.values():
        way()  # the first run loads the model and fills the page cache
    for _ in range(repeats):
        for name, way in ways.items():
            start, used = time.perf_counter(), time.process_time()
            way()
            clock[name] = min(clock[name], time.perf_counter() - start)
            processor[name] = min(processor[name], time.process_time() - used)
    return clock, processor


def write_jpegs(folder: Path, size: int, n: int, pictures: Path | None) -> list[Path]:
    sources = find_images(pictures) if pictures else []
    paths = []
    for number in range(n):
        if sources:
            image = ImageOps.fit(open_image(sources[number % len(sources)]), (size, size))
        else:
            image = micrograph(number, size)
        paths.append(folder / f"{size}_{number}.jpg")
        image.save(paths[-1], "JPEG", quality=QUALITY)
    return paths


def micrograph(seed: int, size: int) -> Image.Image:
    """Coloured spots at the scale of nuclei with a little noise, which JPEG must keep."""
    rng = np.random.default_rng(seed)
    spots = rng.normal((190, 120, 170), (30, 50, 30), (size // 8, size // 8, 3)).clip(0, 255)
    smooth = Image.fromarray(spots.astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth, np.float32) + rng.normal(0, 4, (size, size, 1))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
