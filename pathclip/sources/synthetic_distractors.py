"""Crude pictures that pathologists post beside their slides: charts, text, people, landscapes, cats."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from pathclip.sources.synthetic_canvas import Canvas

Colour = tuple[int, int, int]

_WORDS = [
    "results",
    "methods",
    "cohort",
    "survival",
    "grading",
    "follow",
    "up",
    "patients",
    "study",
    "median",
    "update",
    "residents",
    "digital",
    "staging",
    "agenda",
    "questions",
    "margin",
    "reporting",
    "protocol",
    "quality",
    "turnaround",
    "specimens",
    "summary",
    "outline",
    "consensus",
    "2021",
    "n",
    "=",
    "42",
    "p",
    "<",
    "0.05",
    "hazard",
    "ratio",
    "fellowship",
    "schedule",
    "thank",
    "you",
]


def draw_distractor(kind: str, rng: np.random.Generator, size: int = 160) -> NDArray[np.uint8]:
    """Draws a picture that is no micrograph.

    Args:
        kind: a key of `DISTRACTORS`.
        rng: the only source of chance.
        size: side in pixels.

    Returns:
        RGB, uint8 [size, size, 3].

    Raises:
        ValueError: `kind` is none of them.
    """
    if kind not in DISTRACTORS:
        raise ValueError(f"there is no kind '{kind}'; known: {', '.join(DISTRACTORS)}")
    draw = DISTRACTORS[kind]
    # Drawn at twice the size and shrunk, so that edges are smooth as in a photograph.
    picture = draw(rng, 2 * size).resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(picture.convert("RGB")).copy()


def _blank(size: int, colour: Colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("RGB", (size, size), colour)
    return picture, ImageDraw.Draw(picture)


def _colour(rng: np.random.Generator, low: int = 20, high: int = 235) -> Colour:
    red, green, blue = (int(value) for value in rng.integers(low, high, 3))
    return red, green, blue


def _font(height: float) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=max(6, height))


def _phrase(rng: np.random.Generator, words: int) -> str:
    return " ".join(str(word) for word in rng.choice(_WORDS, words))


def _chart(rng: np.random.Generator, size: int) -> Image.Image:
    picture, pen = _blank(size, (255, 255, 255))
    left, top, right, bottom = (int(size * part) for part in (0.14, 0.16, 0.94, 0.86))
    pen.text((left, size * 0.04), _phrase(rng, 3), (30, 30, 30), _font(size / 16))
    for level in np.linspace(bottom, top, 5):
        pen.line((left, level, right, level), (220, 220, 220), 2)
    pen.line((left, top, left, bottom, right, bottom), (20, 20, 20), 3)
    shape = rng.integers(3)
    if shape == 0:
        edges = np.linspace(left + 8, right, int(rng.integers(4, 9)))
        fill = _colour(rng)
        for x, following in itertools.pairwise(edges.tolist()):
            height = rng.uniform(0.1, 0.95) * (bottom - top)
            pen.rectangle((x, bottom - height, x + 0.7 * (following - x), bottom), fill)
    elif shape == 1:
        for _ in range(int(rng.integers(2, 4))):
            # A survival curve: steps that only go down.
            steps = np.sort(rng.uniform(top, bottom, 12))
            xs = np.linspace(left, right, 12)
            points = [(x, y) for i, x in enumerate(xs) for y in (steps[max(i - 1, 0)], steps[i])]
            pen.line(points, _colour(rng, 0, 200), 5)
    else:
        fill = _colour(rng)
        for x, y in rng.uniform((left, top), (right, bottom), (60, 2)):
            pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill)
    for x in np.linspace(left, right - 30, 4):
        pen.text((x, bottom + 6), str(int(rng.integers(0, 100))), (60, 60, 60), _font(size / 22))
    return picture


def _text_slide(rng: np.random.Generator, size: int) -> Image.Image:
    dark = rng.random() < 0.4
    paper: Colour = _colour(rng, 0, 60) if dark else _colour(rng, 240, 256)
    ink: Colour = (240, 240, 240) if dark else (25, 25, 40)
    picture, pen = _blank(size, paper)
    pen.rectangle((0, 0, size, size * 0.16), _colour(rng, 30, 160))
    pen.text((size * 0.05, size * 0.04), _phrase(rng, 3).title(), (255, 255, 255), _font(size / 14))
    for line in range(int(rng.integers(5, 9))):
        y = size * (0.22 + 0.085 * line)
        pen.text((size * 0.07, y), f"- {_phrase(rng, int(rng.integers(3, 6)))}", ink, _font(size / 20))
    return picture


def _scenery(rng: np.random.Generator, size: int, top: Colour, bottom: Colour) -> Image.Image:
    ramp = np.linspace(0, 1, size)[:, None, None]
    wall = np.array(top) * (1 - ramp) + np.array(bottom) * ramp + np.zeros((size, size, 3))
    wall += 9 * Canvas(size, rng).noise(30)[..., None] + rng.normal(0, 3, (size, size, 3))
    return Image.fromarray(np.clip(wall, 0, 255).astype(np.uint8))


def _portrait(rng: np.random.Generator, size: int) -> Image.Image:
    grey = int(rng.integers(90, 220))
    picture = _scenery(rng, size, (grey, grey, grey + 15), (grey - 40, grey - 30, grey - 30))
    pen = ImageDraw.Draw(picture)
    tone = rng.uniform(0.35, 1.0)
    skin = (int(235 * tone), int(190 * tone), int(160 * tone))
    shade = (int(205 * tone), int(155 * tone), int(128 * tone))
    dark = rng.uniform(0.15, 1.0)
    hair = (int(130 * dark), int(90 * dark), int(60 * dark))
    x, y, w = size * rng.uniform(0.42, 0.58), size * 0.42, size * rng.uniform(0.15, 0.2)
    pen.ellipse((x - 1.25 * w, y - 1.6 * w, x + 1.25 * w, y + 1.2 * w), hair)
    pen.rectangle((x - 0.4 * w, y + w, x + 0.4 * w, y + 1.9 * w), shade)
    pen.ellipse((x - 2.6 * w, y + 1.5 * w, x + 2.6 * w, y + 6 * w), (238, 240, 242))
    pen.polygon(((x - 0.5 * w, y + 1.6 * w), (x + 0.5 * w, y + 1.6 * w), (x, y + 3.2 * w)), _colour(rng))
    pen.ellipse((x - w, y - 1.25 * w, x + w, y + 1.35 * w), skin)
    for side in (-0.42, 0.42):
        pen.ellipse(
            (x + (side - 0.17) * w, y - 0.25 * w, x + (side + 0.17) * w, y - 0.02 * w), (250, 250, 250)
        )
        pen.ellipse((x + (side - 0.09) * w, y - 0.22 * w, x + (side + 0.09) * w, y - 0.04 * w), (50, 35, 30))
    pen.line((x, y, x - 0.12 * w, y + 0.4 * w), shade, 4)
    pen.arc((x - 0.45 * w, y + 0.3 * w, x + 0.45 * w, y + 0.85 * w), 20, 160, (150, 60, 60), 6)
    return picture.filter(ImageFilter.GaussianBlur(size / 160))


def _landscape(rng: np.random.Generator, size: int) -> Image.Image:
    picture = _scenery(rng, size, (80, 140, int(rng.integers(200, 250))), (205, 225, 240))
    pen = ImageDraw.Draw(picture)
    x, y, r = size * rng.uniform(0.1, 0.9), size * rng.uniform(0.08, 0.25), size * 0.06
    pen.ellipse((x - r, y - r, x + r, y + r), (255, 240, 180))
    steps = np.linspace(0, size, 60)
    for depth, green in zip((0.5, 0.64, 0.8), (95, 120, 80), strict=True):
        ridge = size * (depth + 0.05 * np.interp(steps, steps[::6], rng.standard_normal(10)))
        outline = [(0.0, float(size)), *zip(steps.tolist(), ridge.tolist(), strict=True), (size, size)]
        pen.polygon(outline, (int(rng.integers(30, 110)), green, int(rng.integers(20, 80))))
    grain = np.asarray(picture).astype(float) + rng.normal(0, 7, (size, size, 1))
    return Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))


def _cat(rng: np.random.Generator, size: int) -> Image.Image:
    picture = _scenery(rng, size, _colour(rng, 110, 230), _colour(rng, 60, 160))
    pen = ImageDraw.Draw(picture)
    light = rng.uniform(0.3, 1.0)
    fur = (int(225 * light), int(165 * light), int(95 * light))
    stripe = (int(150 * light), int(95 * light), int(50 * light))
    x, y, w = size * rng.uniform(0.4, 0.6), size * 0.5, size * rng.uniform(0.22, 0.3)
    pen.ellipse((x - 1.3 * w, y + 0.5 * w, x + 1.3 * w, y + 3.5 * w), fur)
    for side in (-1.0, 1.0):
        pen.polygon(
            ((x + side * 0.95 * w, y - 1.4 * w), (x + side * 0.15 * w, y - 0.7 * w), (x + side * w, y)), fur
        )
    pen.ellipse((x - w, y - 0.9 * w, x + w, y + 0.85 * w), fur)
    for shift in (-0.3, 0.0, 0.3):
        pen.line((x + shift * w, y - 0.85 * w, x + 0.7 * shift * w, y - 0.5 * w), stripe, 8)
    for side in (-0.42, 0.42):
        pen.ellipse((x + (side - 0.2) * w, y - 0.3 * w, x + (side + 0.2) * w, y + 0.08 * w), (180, 200, 70))
        pen.ellipse((x + (side - 0.06) * w, y - 0.3 * w, x + (side + 0.06) * w, y + 0.08 * w), (10, 10, 10))
        for tilt in (-0.12, 0.0, 0.12):
            ends = (x + 0.5 * side * w, y + 0.4 * w, x + 3.2 * side * w, y + (0.4 + tilt) * w)
            pen.line(ends, (245, 245, 245), 2)
    pen.polygon(
        ((x - 0.1 * w, y + 0.22 * w), (x + 0.1 * w, y + 0.22 * w), (x, y + 0.36 * w)), (200, 110, 110)
    )
    grain = np.asarray(picture).astype(float) + 14 * Canvas(size, rng).noise(2.5)[..., None]
    return Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8))


DISTRACTORS: dict[str, Callable[[np.random.Generator, int], Image.Image]] = {
    "chart": _chart,
    "text_slide": _text_slide,
    "portrait": _portrait,
    "landscape": _landscape,
    "cat": _cat,
}
