"""Measures what makes training pixels from JPEGs, on one core: open_clip's transform against `Collate`.

    .venv/bin/python scripts/bench_loader.py [--pictures FOLDER] [--augment default plip tweets]
        [--n 48] [--batch 8] [--repeats 8] [--size 224] [--pillow]

Both get the same files and one thread, and take turns. open_clip's side is what `open_clip_train` does with a
sample: Pillow decodes it whole, then `image_transform_v2(…, is_train=True)`, then the samples are stacked.
The row 'its crop' does that and no more; the recipes also turn, warp and recolour.
Without --pictures, photographs of 768 x 1024 pixels are made here. The figure is processor time, of every
batch the least of several repeats, so that other work on the machine counts for little.
"""

from __future__ import annotations

import argparse
import io
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bench_train_contender import CROPPED_AS_OPEN_CLIP
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, ImageFilter

from pathclip.config import build
from pathclip.launch import compose
from pathclip.runtime.images import find_images
from pathclip.runtime.preprocess import Preprocess
from pathclip.shards import decode
from pathclip.shards.collate import Collate
from pathclip.shards.transforms import Augment
from pathclip.train.allocator import keep_freed_memory

WIDTH, HEIGHT, QUALITY = 1024, 768, 90


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path, help="a folder of JPEGs; without it they are made here")
    parser.add_argument(
        "--augment", nargs="+", default=["default", "plip", "tweets"], help="of conf/augment/"
    )
    parser.add_argument("--n", type=int, default=48, help="pictures")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--pillow", action="store_true", help="decode with Pillow, as without simplejpeg")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as `pathclip train` does, for both
    if arguments.pillow:
        decode.simplejpeg = None

    contents = read(arguments.pictures, arguments.n) if arguments.pictures else photographs(arguments.n)
    augments = {"its crop": of_config(*CROPPED_AS_OPEN_CLIP)}
    augments |= {name: of_config(f"augment={name}") for name in arguments.augment}
    names = ["open_clip", *augments]
    seconds = dict.fromkeys(names, 0.0)
    for start in range(0, len(contents), arguments.batch):
        batch = contents[start : start + arguments.batch]
        ways = {"open_clip": open_clip_way(batch, arguments.size)}
        ways |= {name: collate_way(batch, arguments.size, augment) for name, augment in augments.items()}
        for name, least in least_times(ways, arguments.repeats).items():
            seconds[name] += least

    kib = sum(map(len, contents)) / len(contents) / 1024
    print(f"{cpu()}, torch {torch.__version__}, decoder {'simplejpeg' if decode.simplejpeg else 'Pillow'}")
    print(f"{len(contents)} JPEGs of {kib:.0f} KiB on average, to {arguments.size} pixels, one thread")
    print(f"{'':12}{'images/s':>10}{'ms/image':>10}{'ratio':>8}")
    for name in names:
        each = seconds[name] / len(contents)
        print(f"{name:12}{1 / each:10.0f}{1000 * each:10.2f}{seconds['open_clip'] / seconds[name]:8.2f}")


def least_times(ways: dict[str, Callable[[], torch.Tensor]], repeats: int) -> dict[str, float]:
    """Least processor seconds of each way; between repeats they take turns."""
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.process_time()
            way()
            least[name] = min(least[name], time.process_time() - start)
    return least


def open_clip_way(contents: list[bytes], size: int) -> Callable[[], torch.Tensor]:
    transform = image_transform_v2(PreprocessCfg(size=size), is_train=True)

    def way() -> torch.Tensor:
        pictures = []
        for content in contents:
            with io.BytesIO(content) as stream:
                image = Image.open(stream)
                image.load()
                pictures.append(transform(image.convert("RGB")))
        return torch.stack(pictures)

    return way


def of_config(*overrides: str) -> Augment:
    augment: Augment = build(compose("train", list(overrides)).data.augment)
    return augment


def collate_way(contents: list[bytes], size: int, augment: Augment) -> Callable[[], torch.Tensor]:
    # Texts are no part of the measurement.
    collate = Collate(Preprocess(size=(size, size)), tokenizer=None, augment=augment)
    samples = [{"__key__": str(number), "jpg": content} for number, content in enumerate(contents)]
    generator = torch.Generator().manual_seed(0)
    return lambda: collate._pixels(samples, generator, 0, len(samples))


def read(folder: Path, most: int) -> list[bytes]:
    files = [file for file in find_images(folder) if file.suffix.lower() in (".jpg", ".jpeg")][:most]
    if not files:
        raise SystemExit(f"{folder}: no JPEGs in it")
    return [file.read_bytes() for file in files]


def photographs(n: int) -> list[bytes]:
    """Coloured clouds with grain, in size and entropy like photographs of sections."""
    rng = np.random.default_rng(0)
    contents = []
    for _ in range(n):
        picture = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        for side, weight in ((6, 90), (24, 60), (96, 50), (384, 30)):
            noise = Image.fromarray(rng.integers(0, 256, (side * 3 // 4, side, 3), dtype=np.uint8))
            picture += weight / 255 * np.asarray(noise.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
        picture += rng.normal(0, 5, picture.shape)
        image = Image.fromarray(picture.clip(0, 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(0.5))
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=QUALITY)
        contents.append(stream.getvalue())
    return contents


def cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
