"""Draws what the pathology classifier is trained on: tissue in many stains, and everything that is none."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from pathclip.curate.pathology import network_input
from pathclip.runtime.images import open_image
from pathclip.sources.synthetic_distractors import DISTRACTORS, draw_distractor
from pathclip.sources.synthetic_tiles import CLASSES, draw_tile

Pixels = NDArray[np.uint8]
CANVAS = 224
VIEWS = 4  # samples made of each picture

# Optical densities (red, green, blue) of pairs of stains: counterstain and the other.
STAINS = (
    ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11)),  # haematoxylin and eosin
    ((0.65, 0.70, 0.29), (0.27, 0.57, 0.78)),  # haematoxylin and DAB
    ((0.75, 0.55, 0.25), (0.60, 0.50, 0.22)),  # a negative immunostain
    ((0.60, 0.65, 0.30), (0.25, 0.85, 0.50)),  # periodic acid-Schiff
    ((0.55, 0.75, 0.35), (0.85, 0.35, 0.20)),  # trichrome
    ((0.80, 0.60, 0.15), (0.30, 0.80, 0.10)),  # Giemsa
    ((0.45, 0.60, 0.70), (0.75, 0.35, 0.40)),  # silver with green
)
SHARES = (0.6, 0.13, 0.05, 0.07, 0.05, 0.07, 0.03)  # of the pairs
_HE = np.array([*STAINS[0], (0.27, -0.05, 0.96)])


def restained(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """The picture in other stains: colour deconvolution (Ruifrok and Johnston 2001) and back."""
    density = -np.log((picture.astype(np.float32) + 1) / 256)
    amounts = density @ np.linalg.inv(_HE).astype(np.float32)
    pair = STAINS[int(rng.choice(len(STAINS), p=SHARES))]
    stains = np.array([*pair, _HE[2]]) + rng.normal(0, 0.07, (3, 3))
    amounts = amounts * np.exp(rng.normal(0, 0.3, 3)).astype(np.float32)
    light = 256 * np.exp(-(amounts @ np.clip(stains, 0, None).astype(np.float32))) - 1
    return np.clip(light, 0, 255).astype(np.uint8)


def synthetic_tile(rng: np.random.Generator) -> Pixels:
    return draw_tile(str(rng.choice(list(CLASSES))), rng, size=int(rng.choice([128, 160, 224])))


def synthetic_overview(rng: np.random.Generator) -> Pixels:
    """Pieces of tissue on glass, as a whole slide looks from afar."""
    tile = synthetic_tile(rng)
    small = Image.fromarray(tile).resize((56, 56), Image.Resampling.BOX)
    texture = np.tile(np.asarray(small), (4, 4, 1))
    mask = Image.new("L", (CANVAS, CANVAS))
    pen = ImageDraw.Draw(mask)
    for _ in range(int(rng.integers(1, 9))):
        x, y = rng.uniform(20, CANVAS - 20, 2)
        length, width, turn = rng.uniform(12, 90), rng.uniform(6, 50), rng.uniform(0, np.pi)
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        radii = 1 + 0.25 * rng.standard_normal(24)
        u, v = length * radii * np.cos(angles), width * radii * np.sin(angles)
        points = np.stack([x + u * np.cos(turn) - v * np.sin(turn), y + u * np.sin(turn) + v * np.cos(turn)])
        pen.polygon([tuple(point) for point in points.T.tolist()], 255)
    share = np.asarray(mask.filter(ImageFilter.GaussianBlur(1)), np.float32)[..., None] / 255
    cloud = noise(rng, rng.uniform(0.8, 1.6))[..., None]
    inked = texture * (0.85 + 0.15 * cloud)
    glass = rng.uniform(225, 255) + rng.normal(0, 1, (CANVAS, CANVAS, 3)) + rng.uniform(-4, 4, 3)
    return np.clip(share * inked + (1 - share) * glass, 0, 255).astype(np.uint8)


def noise(rng: np.random.Generator, exponent: float) -> NDArray[np.float32]:
    """Noise with a spectrum of 1 / f^exponent as natural pictures have, [CANVAS, CANVAS], deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(CANVAS)[:, None], np.fft.rfftfreq(CANVAS)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((CANVAS, CANVAS))) / frequency**exponent
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, (CANVAS, CANVAS))
    return (field / max(field.std(), 1e-9)).astype(np.float32)


def colours(rng: np.random.Generator, count: int) -> list[tuple[int, int, int]]:
    """Colours about one to three hues, as the things of one photograph have."""
    import colorsys

    hues = rng.random(int(rng.integers(1, 4)))
    vivid = rng.beta(1.2, 2.0)
    found = []
    for _ in range(count):
        hue = (rng.choice(hues) + rng.normal(0, 0.05)) % 1
        saturation = float(np.clip(vivid + rng.normal(0, 0.18), 0, 1))
        rgb = colorsys.hsv_to_rgb(hue, saturation, rng.uniform(0.05, 1))
        found.append(tuple(int(255 * value) for value in rgb))
    return found  # type: ignore[return-value]


def leaves(rng: np.random.Generator) -> Pixels:
    """Dead leaves: things of all sizes that hide one another (Lee, Mumford and Huang 2001)."""
    palette = colours(rng, int(rng.integers(4, 14)))
    image = Image.new("RGB", (CANVAS, CANVAS), palette[0])
    pen = ImageDraw.Draw(image)
    largest = rng.uniform(0.15, 0.7) * CANVAS
    straight = rng.random()
    for size in np.sort(largest * rng.uniform(0.03, 1, int(rng.integers(8, 160))) ** 2)[::-1]:
        x, y = rng.uniform(0, CANVAS, 2)
        wide, high = size * rng.uniform(0.3, 1.5, 2)
        fill = palette[int(rng.integers(len(palette)))]
        if rng.random() < straight:
            corners = int(rng.integers(3, 7))
            angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
            pen.polygon([(x + wide * np.cos(a), y + high * np.sin(a)) for a in angles], fill)
        else:
            pen.ellipse((x - wide, y - high, x + wide, y + high), fill)
    if rng.random() < 0.7:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.exponential(1.5))))
    return shaded(np.asarray(image, np.float32), rng)


def shaded(picture: NDArray[np.float32], rng: np.random.Generator) -> Pixels:
    """Light that falls off over the picture, texture and grain."""
    ramp = np.linspace(-1, 1, CANVAS, dtype=np.float32)
    slope = rng.normal(0, 0.25, 2)
    light = 1 + slope[0] * ramp[:, None] + slope[1] * ramp[None] + rng.uniform(0, 0.15) * noise(rng, 1.3)
    texture = rng.uniform(0, 22) * noise(rng, rng.uniform(0.3, 1.2))
    grain = rng.normal(0, rng.uniform(0, 6), picture.shape)
    return np.clip(picture * light[..., None] + texture[..., None] + grain, 0, 255).astype(np.uint8)


def scene(rng: np.random.Generator) -> Pixels:
    """A sky or wall above, ground below, and things in front of both."""
    palette = colours(rng, 12)
    ramp = np.linspace(0, 1, CANVAS)[:, None, None]
    ground = np.array(palette[0]) * (1 - ramp) + np.array(palette[1]) * ramp + np.zeros((CANVAS, CANVAS, 3))
    image = Image.fromarray(ground.astype(np.uint8))
    pen = ImageDraw.Draw(image)
    horizon = CANVAS * rng.uniform(0.25, 0.8)
    pen.rectangle((0, horizon, CANVAS, CANVAS), palette[2])
    for _ in range(int(rng.integers(0, 25))):
        x, wide, high = rng.uniform(0, CANVAS), rng.uniform(2, 45), rng.uniform(8, 120)
        foot = horizon + rng.uniform(-5, 60)
        fill = palette[int(rng.integers(3, 12))]
        if rng.random() < 0.5:
            pen.rectangle((x, foot - high, x + wide, foot), fill)
        else:
            pen.rectangle((x - 2, foot - high / 2, x + 2, foot), palette[3])
            pen.ellipse((x - wide / 1.5, foot - high, x + wide / 1.5, foot - high / 3), fill)
    return shaded(np.asarray(image, np.float32), rng)


def close_up(rng: np.random.Generator) -> Pixels:
    """Something round before a soft ground: a face, a fruit, a flower."""
    palette = colours(rng, 6)
    if rng.random() < 0.4:
        tone = rng.uniform(0.3, 1.05)
        palette[1] = tuple(int(min(255, tone * value)) for value in (236, 188, 165))  # skin
    image = Image.fromarray(leaves(rng)).filter(ImageFilter.GaussianBlur(float(rng.uniform(3, 14))))
    pen = ImageDraw.Draw(image)
    x, y = rng.uniform(0.3, 0.7, 2) * CANVAS
    size = rng.uniform(0.15, 0.5) * CANVAS
    petals = int(rng.integers(5, 20)) if rng.random() < 0.5 else 0
    for number in range(petals):
        angle = 2 * np.pi * number / petals
        u, v = x + 0.8 * size * np.cos(angle), y + 0.8 * size * np.sin(angle)
        pen.ellipse((u - size / 2, v - size / 2, u + size / 2, v + size / 2), palette[2 + number % 2])
    wide = size * rng.uniform(0.6, 1)
    pen.ellipse((x - wide, y - size, x + wide, y + size), palette[1])
    for _ in range(int(rng.integers(0, 8))):
        u, v = x + rng.normal(0, 0.35) * size, y + rng.normal(0, 0.35) * size
        r = size * rng.uniform(0.03, 0.2)
        pen.ellipse((u - r, v - r / 2, u + r, v + r / 2), palette[4 + int(rng.integers(2))])
    return shaded(np.asarray(image.filter(ImageFilter.GaussianBlur(1)), np.float32), rng)


def clouds(rng: np.random.Generator) -> Pixels:
    """Noise or a gradient between a few colours."""
    field = noise(rng, rng.uniform(0, 2.2)) if rng.random() < 0.6 else np.zeros((CANVAS, CANVAS), np.float32)
    ramp = np.linspace(-2, 2, CANVAS, dtype=np.float32)
    slope = rng.normal(0, 1, 2)
    place = field + slope[0] * ramp[:, None] + slope[1] * ramp[None]
    palette = np.array(colours(rng, 4), np.float32)
    stops = np.linspace(-2.5, 2.5, 4)
    picture = np.stack([np.interp(place, stops, palette[:, channel]) for channel in range(3)], axis=-1)
    return np.clip(picture + rng.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)


_WORDS = [
    "the",
    "of",
    "results",
    "and",
    "cohort",
    "we",
    "in",
    "survival",
    "a",
    "patient",
    "model",
    "with",
    "2021",
    "to",
    "=",
    "for",
    "study",
    "0.05",
    "is",
]


def text(pen: ImageDraw.ImageDraw, box: tuple[float, ...], ink: Any, rng: np.random.Generator) -> None:
    """Lines of words that fill a box."""
    height = rng.uniform(6, 20)
    font = ImageFont.load_default(size=height)
    for y in np.arange(box[1], box[3] - height, height * rng.uniform(1.1, 1.8)):
        words = " ".join(rng.choice(_WORDS, int(rng.integers(1, 14))))
        pen.text((box[0], y), words[: int((box[2] - box[0]) / height * 1.9)], ink, font)


def page(rng: np.random.Generator) -> Pixels:
    """Text, tables, charts, diagrams and windows, on a light or dark ground."""
    dark = rng.random() < 0.3
    paper = tuple(int(v) for v in (rng.integers(0, 60, 3) if dark else rng.integers(215, 256, 3)))
    if rng.random() < 0.4:
        paper = (255, 255, 255)
    ink = (235, 235, 235) if sum(paper) < 300 else (20, 20, 20)
    image = Image.new("RGB", (CANVAS, CANVAS), paper)
    pen = ImageDraw.Draw(image)
    palette = colours(rng, 8)
    for _ in range(int(rng.integers(1, 5))):
        left, top = rng.uniform(0, 0.6, 2) * CANVAS
        right, bottom = left + rng.uniform(50, 200), top + rng.uniform(50, 200)
        kind = int(rng.integers(6))
        if kind == 0:
            text(pen, (left, top, right, bottom), ink, rng)
        elif kind == 1:
            for number, x in enumerate(np.arange(left, right, rng.uniform(8, 25))):
                pen.rectangle(
                    (x, bottom - rng.uniform(0, 1) * (bottom - top), x + 6, bottom), palette[number % 8]
                )
        elif kind == 2:
            for fill in palette[:4]:
                xs = np.linspace(left, right, 20)
                ys = top + (bottom - top) * (0.5 + 0.1 * np.cumsum(rng.standard_normal(20)))
                pen.line(list(zip(xs.tolist(), ys.tolist(), strict=True)), fill, int(rng.integers(1, 4)))
        elif kind == 3:
            start = 0.0
            for fill in palette:
                end = start + rng.uniform(10, 80)
                pen.pieslice((left, top, left + 120, top + 120), start, end, fill)
                start = end
        elif kind == 4:
            for x, y in rng.uniform((left, top), (right, bottom), (int(rng.integers(20, 300)), 2)):
                pen.ellipse((x - 2, y - 2, x + 2, y + 2), palette[int(rng.integers(3))])
        else:
            step = rng.uniform(8, 30)
            for y in np.arange(top, bottom, step):
                for x in np.arange(left, right, step):
                    pen.rectangle((x, y, x + step - 1, y + step - 1), palette[int(rng.integers(8))], ink)
    if rng.random() < 0.3:
        pen.rectangle((0, 0, CANVAS, rng.uniform(10, 40)), palette[0])
    return shaded(np.asarray(image, np.float32), rng) if rng.random() < 0.25 else np.asarray(image)


def line_drawing(rng: np.random.Generator) -> Pixels:
    """Thin lines, circles, arrows and a few words."""
    dark = rng.random() < 0.15
    image = Image.new("RGB", (CANVAS, CANVAS), (10, 10, 20) if dark else (255, 255, 255))
    pen = ImageDraw.Draw(image)
    palette = [*colours(rng, 3), (230, 230, 230) if dark else (30, 30, 30)]
    for _ in range(int(rng.integers(2, 30))):
        ink = palette[int(rng.integers(4))]
        x, y = rng.uniform(0, CANVAS, 2)
        kind = int(rng.integers(4))
        if kind == 0:
            steps = rng.normal(0, rng.uniform(3, 40), (int(rng.integers(2, 20)), 2)).cumsum(axis=0)
            pen.line([(x + u, y + v) for u, v in steps.tolist()], ink, int(rng.integers(1, 4)))
        elif kind == 1:
            r = rng.uniform(2, 60)
            pen.ellipse((x - r, y - r, x + r, y + r), outline=ink, width=int(rng.integers(1, 4)))
        elif kind == 2:
            w, h = rng.uniform(8, 120, 2)
            pen.rectangle((x, y, x + w, y + h), outline=ink, width=1)
        else:
            text(pen, (x, y, x + 90, y + 20), ink, rng)
    return np.asarray(image)


def window(rng: np.random.Generator) -> Pixels:
    """Windows and forms: pale grounds in one another, small text, boxes, one colour for the chosen."""
    grey = int(rng.integers(190, 256)) if rng.random() < 0.75 else int(rng.integers(15, 70))
    image = Image.new("RGB", (CANVAS, CANVAS), (grey, grey, min(255, grey + int(rng.integers(0, 8)))))
    pen = ImageDraw.Draw(image)
    accent = colours(rng, 1)[0]
    ink = (40, 40, 40) if grey > 128 else (210, 210, 210)
    for _ in range(int(rng.integers(1, 7))):
        left, top = rng.uniform(-20, 150, 2)
        right, bottom = left + rng.uniform(40, 200), top + rng.uniform(20, 200)
        level = int(np.clip(grey + rng.integers(-25, 26), 0, 255))
        pen.rectangle((left, top, right, bottom), (level, level, level), (150, 150, 150))
        pen.rectangle((left, top, right, top + rng.uniform(6, 16)), accent if rng.random() < 0.5 else None)
        text(pen, (left + 6, top + 18, right, bottom), ink, rng)
    for _ in range(int(rng.integers(0, 12))):
        x, y = rng.uniform(0, CANVAS, 2)
        pen.rectangle((x, y, x + 8, y + 8), colours(rng, 1)[0])
    return np.asarray(image)


def cut_out(rng: np.random.Generator) -> Pixels:
    """A thing on white: its outline made of a few round or straight parts, its surface from others."""
    surface = (leaves, close_up, clouds, scene)[int(rng.integers(4))](rng)
    mask = Image.new("L", (CANVAS, CANVAS))
    pen = ImageDraw.Draw(mask)
    x, y = rng.uniform(0.4, 0.6, 2) * CANVAS
    size = rng.uniform(0.12, 0.48) * CANVAS
    if rng.random() < 0.35:
        wide = size * (1.0 if rng.random() < 0.6 else rng.uniform(0.3, 1))
        pen.ellipse((x - wide, y - size, x + wide, y + size), 255)
    else:
        for _ in range(int(rng.integers(2, 9))):
            u, v = x + rng.normal(0, 0.4) * size, y + rng.normal(0, 0.4) * size
            a, b = size * rng.uniform(0.1, 0.7, 2)
            if rng.random() < 0.5:
                pen.ellipse((u - a, v - b, u + a, v + b), 255)
            else:
                corners = rng.normal(0, 1, (int(rng.integers(3, 6)), 2)) * (a, b) + (u, v)
                pen.polygon([tuple(corner) for corner in corners.tolist()], 255)
        for _ in range(int(rng.integers(0, 6))):  # limbs and stalks
            angle, length = rng.uniform(0, 2 * np.pi), size * rng.uniform(0.6, 1.4)
            end = (x + length * np.cos(angle), y + length * np.sin(angle))
            pen.line(((x, y), end), 255, int(rng.integers(2, 16)))
    inside = np.asarray(mask.filter(ImageFilter.GaussianBlur(0.7)), np.float32)[..., None] / 255
    ground = np.full((CANVAS, CANVAS, 3), 255.0)
    if rng.random() < 0.3:
        ground = ground * rng.uniform(0.6, 1) + rng.uniform(-12, 12, 3)
    return np.clip(inside * surface + (1 - inside) * ground, 0, 255).astype(np.uint8)


def blank(rng: np.random.Generator) -> Pixels:
    """Empty glass: dust, a line or the ink of a pen, but no tissue."""
    ground = rng.uniform(150, 255) + rng.uniform(-8, 8, 3)
    picture = ground + rng.normal(0, rng.uniform(0, 3), (CANVAS, CANVAS, 3))
    picture += rng.uniform(0, 3) * noise(rng, 1.2)[..., None]
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 4))):
        x, y = rng.uniform(0, CANVAS, 2)
        pen.ellipse((x, y, x + 2, y + 2), (120, 110, 110))
    if rng.random() < 0.3:
        points = rng.uniform(-40, CANVAS + 40, (int(rng.integers(2, 5)), 2))
        pen.line([tuple(p) for p in points.tolist()], colours(rng, 1)[0], int(rng.integers(1, 70)), "curve")
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 6))))
    return np.asarray(image)


def distractor(rng: np.random.Generator) -> Pixels:
    return draw_distractor(str(rng.choice(list(DISTRACTORS))), rng, int(rng.choice([128, 160, 224])))


NEGATIVES: tuple[tuple[Callable[[np.random.Generator], Pixels], float], ...] = (
    (distractor, 0.13),
    (page, 0.12),
    (line_drawing, 0.10),
    (window, 0.07),
    (leaves, 0.15),
    (scene, 0.09),
    (close_up, 0.10),
    (cut_out, 0.15),
    (clouds, 0.05),
    (blank, 0.04),
)


def decorated(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Tissue as figures show it: in panels, under letters, in a window, seen through an eyepiece."""
    kind = int(rng.integers(4))
    width, height = image.size
    if kind == 0:
        ground = (255, 255, 255) if rng.random() < 0.7 else (0, 0, 0)
        sheet = Image.new("RGB", (CANVAS, CANVAS), ground)
        columns, rows = int(rng.integers(1, 4)), int(rng.integers(1, 3))
        gap = int(rng.integers(2, 9))
        for row in range(rows):
            for column in range(columns):
                w, h = CANVAS // columns, CANVAS // rows
                panel = view(image, rng, positive=True).resize((w, h))
                sheet.paste(panel.crop((0, 0, w - gap, h - gap)), (column * w, row * h))
        return sheet
    pen = ImageDraw.Draw(image)
    if kind == 1:
        left, top = rng.uniform(0, 0.7, 2) * (width, height)
        text(pen, (left, top, left + width / 2, top + height / 4), colours(rng, 1)[0], rng)
        return image
    if kind == 2:
        sheet = Image.new("RGB", (CANVAS, CANVAS), (int(rng.integers(30, 250)),) * 3)
        text(ImageDraw.Draw(sheet), (4, 4, CANVAS, CANVAS), (120, 120, 120), rng)
        left, top = int(rng.integers(0, 60)), int(rng.integers(12, 50))
        sheet.paste(image.resize((CANVAS - left, CANVAS - top)), (left, top))
        return sheet
    mask = Image.new("L", image.size, 0)
    r = min(width, height) * rng.uniform(0.4, 0.55)
    ImageDraw.Draw(mask).ellipse((width / 2 - r, height / 2 - r, width / 2 + r, height / 2 + r), fill=255)
    return Image.composite(image, Image.new("RGB", image.size, (8, 8, 8)), mask)


def view(image: Image.Image, rng: np.random.Generator, positive: bool) -> Image.Image:
    """A crop in another scale and proportion, turned or mirrored."""
    width, height = image.size
    share = 1.0 if rng.random() < 0.3 else rng.uniform(0.45, 1)
    w, h = max(32, int(width * share)), max(32, int(height * share * rng.uniform(0.8, 1)))
    left, top = int(rng.integers(0, max(width - w, 0) + 1)), int(rng.integers(0, max(height - h, 0) + 1))
    image = image.crop((left, top, min(left + w, width), min(top + h, height)))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if positive or rng.random() < 0.15:
        image = image.rotate(90 * int(rng.integers(4)), expand=True)
    return image


def photographed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """What cameras, screens and networks do: exposure, white balance, blur, resizing, JPEG."""
    values = np.asarray(image, np.float32) / 255
    values = values ** np.exp(rng.normal(0, 0.2)) * np.exp(rng.normal(0, 0.06, 3)) * rng.uniform(0.8, 1.08)
    image = Image.fromarray((np.clip(values, 0, 1) * 255).astype(np.uint8))
    if rng.random() < 0.2:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 2))))
    if rng.random() < 0.4:
        side = int(rng.integers(96, 257))
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(rng.integers(35, 96)))
    return Image.open(file)


def samples(number: int, seed: int, real: Sequence[Path]) -> tuple[list[Pixels], list[int]]:
    """`VIEWS` samples of one picture; even numbers show tissue."""
    rng = np.random.default_rng([seed, number])
    positive = number % 2 == 0
    if positive:
        if real and rng.random() < 0.6:
            base = np.asarray(open_image(real[int(rng.integers(len(real)))], draft_to=256))
        else:
            base = (synthetic_overview if rng.random() < 0.3 else synthetic_tile)(rng)
    else:
        drawings, weights = zip(*NEGATIVES, strict=True)
        base = drawings[int(rng.choice(len(drawings), p=weights))](rng)
        if rng.random() < 0.25:
            base = np.asarray(Image.fromarray(base).convert("L").convert("RGB"))
    made = []
    for _ in range(VIEWS):
        pixels = restained(base, rng) if positive and rng.random() < 0.6 else base
        image = view(Image.fromarray(pixels), rng, positive)
        if positive and rng.random() < 0.15:
            image = decorated(image, rng)
        image = photographed(image.convert("RGB"), rng)
        made.append((network_input(image) * 255 + 0.5).astype(np.uint8))
    return made, [int(positive)] * VIEWS
