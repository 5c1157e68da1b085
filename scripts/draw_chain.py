"""Draws docs/chain.svg, the picture of the chain in the README: python scripts/draw_chain.py"""

# ruff: noqa: E501
from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from pathclip.sources.synthetic_tiles import CLASSES, draw_tile

STEPS = (
    ("posts", "a dump and a folder\nof pictures"),
    ("curate", "a reason for every\nrow that falls out"),
    ("train", "a dual encoder,\nby config overrides"),
    ("evaluate", "intervals, baselines,\nrandomised colour"),
    ("export", "int8 that gives the\nsame numbers everywhere"),
    ("use", "classify, index, search\non a plain CPU"),
)
WIDTH, BOX, GAP = 1180, 170, 28


def tile(name: str, seed: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(draw_tile(name, np.random.default_rng(seed), size=96)).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def main() -> None:
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 232" font-family="system-ui, sans-serif">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for number, (title, text) in enumerate(STEPS):
        x = 10 + number * (BOX + GAP)
        colour = "#6b2c6e" if title in ("curate", "train", "evaluate", "export") else "#b0407a"
        parts.append(
            f'<rect x="{x}" y="120" width="{BOX}" height="98" rx="10" fill="#fbf6fa" stroke="{colour}" stroke-width="1.5"/>'
            f'<text x="{x + BOX / 2}" y="148" text-anchor="middle" font-size="17" font-weight="600" fill="{colour}">{title}</text>'
        )
        for line, words in enumerate(text.split("\n")):
            parts.append(
                f'<text x="{x + BOX / 2}" y="{174 + 19 * line}" text-anchor="middle" font-size="13.5" fill="#333">{words}</text>'
            )
        if number:
            parts.append(
                f'<path d="M{x - GAP + 3} 169 h{GAP - 9} m-6 -5 l6 5 l-6 5" fill="none" stroke="#888" stroke-width="1.6"/>'
            )
    for number, name in enumerate(list(CLASSES)[:9]):
        parts.append(
            f'<image x="{14 + number * 129}" y="8" width="96" height="96" href="{tile(name, 40 + number)}"/>'
        )
    parts.append("</svg>")
    Path("docs/chain.svg").write_text("\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
