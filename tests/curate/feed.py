"""A miniature feed: posts as the API gives them, pictures drawn here, and what curation makes of them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pathclip.curate.curate import CurateResult, curate
from pathclip.curate.funnel import read_dropped
from pathclip.launch import compose
from pathclip.shards.reader import read_samples
from pathclip.shards.writer import Sample


def tissue(seed: int, side: int = 160) -> Image.Image:
    """Violet nuclei on grainy pink, as coarse as needed to pass for H&E."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (side, side), (226, 170, 200))
    draw = ImageDraw.Draw(image)
    for _ in range(side):
        x, y = rng.integers(0, side, 2)
        r = int(rng.integers(2, 7))
        draw.ellipse(
            (x - r, y - r, x + r, y + r),
            fill=tuple(int(v) for v in rng.integers((80, 40, 110), (120, 80, 160))),
        )
    grain = rng.normal(0, 9, (side, side, 1))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


def chart(side: int = 160) -> Image.Image:
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    for number in range(5):
        left = 15 + 28 * number
        draw.rectangle((left, side - 30 - 20 * number, left + 16, side - 20), fill=(40, 160, 60))
    draw.line((10, 10, 10, side - 20, side - 5, side - 20), fill="black", width=2)
    return image


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def tweet(number: int, text: str, *media: str, at: str = "2022-01-01", **more: Any) -> dict[str, Any]:
    return {
        "id": str(number),
        "text": text,
        "created_at": f"{at}T00:00:00.000Z",
        "lang": "en",
        "attachments": {"media_keys": list(media)},
        **more,
    }


def reply(number: int, to: int, text: str, likes: int = 0, **more: Any) -> dict[str, Any]:
    return tweet(
        number,
        text,
        referenced_tweets=[{"type": "replied_to", "id": str(to)}],
        conversation_id=str(to),
        public_metrics={"like_count": likes},
        **more,
    )


def write_feed(folder: Path, posts: Iterable[Any], images: Mapping[str, bytes]) -> list[str]:
    """Writes posts (one page each; a string as it is) and pictures; returns the overrides that read them."""
    (folder / "images").mkdir(parents=True)
    lines = [line if isinstance(line, str) else json.dumps({"data": [line]}) for line in posts]
    (folder / "posts.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    for key, content in images.items():
        (folder / "images" / f"{key}.jpg").write_bytes(content)
    return [
        "source=twitter",
        f"source.posts={folder / 'posts.jsonl'}",
        f"source.images={folder / 'images'}",
        f"out={folder / 'out'}",
        "workers=1",
    ]


def cases(numbers: Iterable[int], tag: str = "#GIpath") -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Tweets with a picture of their own each, and the pictures."""
    posts = [tweet(n, f"Adenocarcinoma of case {n} {tag}", f"3_{n}") for n in numbers]
    return posts, {f"3_{n}": jpeg(tissue(n)) for n in numbers}


def run(overrides: Iterable[str], *more: str) -> CurateResult:
    """Curates in this process."""
    return curate(compose("curate", [*overrides, *more]))


def samples(out: Path) -> list[Sample]:
    """All pairs, in the order of splits and shards."""
    return [sample for name in ("train", "val", "test") for sample in read_samples(out / name)]


def reasons(out: Path) -> dict[str, str]:
    """Id of each dropped row → why it fell."""
    return {row.id: row.reason for row in read_dropped(out / "dropped.parquet")}


def contents(out: Path) -> dict[str, bytes]:
    """Every file that a run left, but for what Hydra notes of the command."""
    return {
        str(file.relative_to(out)): file.read_bytes()
        for file in sorted(out.rglob("*"))
        if file.is_file() and ".hydra" not in file.parts and file.name != "launch.log"
    }
