"""Figures drawn over synthetic tissue, with variations; and how often real tissue is taken for one."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from pathclip.curate import figures
from pathclip.runtime.images import open_image
from pathclip.sources.synthetic_tiles import CLASSES, draw_tile

VARIATIONS = 24


@functools.cache
def tile(seed: int) -> Image.Image:
    names = list(CLASSES)
    return Image.fromarray(draw_tile(names[seed % len(names)], np.random.default_rng(seed), size=224))


def tissue(seed: int, width: int = 300, height: int = 240) -> Image.Image:
    return tile(seed % 12).resize((width, height), Image.Resampling.BICUBIC)


def compressed(image: Image.Image, quality: int = 85) -> np.ndarray:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return figures.reduced(Image.open(file))


def panelled(seed: int) -> tuple[Image.Image, list[figures.Box]]:
    rng = np.random.default_rng(seed)
    columns, rows = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    if columns * rows == 1:
        columns = 2
    width, height, gap = int(rng.integers(110, 180)), int(rng.integers(100, 160)), int(rng.integers(3, 15))
    ground = [(255, 255, 255), (0, 0, 0), (240, 240, 240)][seed % 3]
    margin = gap if rng.random() < 0.5 else 0
    sheet = Image.new(
        "RGB",
        (columns * (width + gap) - gap + 2 * margin, rows * (height + gap) - gap + 2 * margin),
        ground,
    )
    boxes = []
    for row in range(rows):
        for column in range(columns):
            left, top = margin + column * (width + gap), margin + row * (height + gap)
            sheet.paste(tissue(seed + row * columns + column, width, height), (left, top))
            boxes.append((left, top, left + width, top + height))
    return sheet, boxes


def browser(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    width, height = 420, 320
    bar = int(rng.integers(20, 60))
    ground = [(235, 235, 238), (45, 45, 48), (255, 255, 255), (20, 90, 160)][seed % 4]
    ink = (20, 20, 20) if sum(ground) > 400 else (230, 230, 230)
    sheet = Image.new("RGB", (width, height), ground)
    pen = ImageDraw.Draw(sheet)
    side = seed % 3 == 1
    sheet.paste(tissue(seed, width - bar * side, height - bar * (not side)), (bar, 0) if side else (0, bar))
    font = ImageFont.load_default(size=12)
    for number in range(6):
        if side:
            pen.rectangle((bar * 0.3, 15 + 50 * number, bar * 0.7, 30 + 50 * number), ink)
        else:
            pen.text(
                (8 + 65 * number, bar / 2 - 7), ("File", "View", "Zoom 20x", "Help")[number % 4], ink, font
            )
    return sheet


def eyepiece(seed: int) -> Image.Image:
    image = tissue(seed, 320, 240 + 80 * (seed % 2))
    width, height = image.size
    radius = min(width, height) * (0.42 + 0.02 * (seed % 5))
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).ellipse(
        (width / 2 - radius, height / 2 - radius, width / 2 + radius, height / 2 + radius), fill=255
    )
    return Image.composite(image, Image.new("RGB", image.size, (12, 10, 10)), mask)


def screen(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    pixels = np.asarray(tissue(seed, 320, 260), np.float32)
    y, x = np.mgrid[:260, :320]
    turn, period = rng.uniform(0.1, 1.4), rng.uniform(2.8, 6)
    for angle in (turn, turn + np.pi / 2):
        wave = np.cos(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
        pixels = pixels * (1 + 0.09 * wave[..., None])
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def lettered(seed: int) -> Image.Image:
    """A letter, an arrow or a word in black, yellow or green."""
    rng = np.random.default_rng(seed)
    image = tissue(seed)
    pen = ImageDraw.Draw(image)
    x, y = float(rng.uniform(20, 180)), float(rng.uniform(20, 180))
    ink = [(0, 0, 0), (255, 255, 0), (0, 220, 0)][seed // 3 % 3]
    if seed % 3 == 0:
        pen.text((x, y), "ABC"[seed % 2], ink, ImageFont.load_default(size=26))
    elif seed % 3 == 1:
        pen.line((x, y, x + 40, y + 18), ink, 4)
        pen.polygon(((x + 52, y + 23), (x + 36, y + 25), (x + 43, y + 9)), ink)
    else:
        pen.text((x / 2, y), "100 microns", ink, ImageFont.load_default(size=20))
    return image


def white_word(seed: int) -> Image.Image:
    image = tissue(seed)
    place = np.random.default_rng(seed).uniform(10, 180, 2)
    ImageDraw.Draw(image).text(
        (place[0] / 2, place[1]), "20 microns", "white", ImageFont.load_default(size=28)
    )
    return image


def with_scale_bar(seed: int) -> Image.Image:
    image = tissue(seed)
    ImageDraw.Draw(image).rectangle((220, 215, 280, 220), [(0, 0, 0), (255, 255, 255)][seed % 2])
    return image


@pytest.mark.parametrize(
    ("flag", "draw", "share"),
    [
        ("browser", browser, 0.9),
        ("screen_photo", eyepiece, 0.95),
        ("screen_photo", screen, 0.95),
        ("text_overlay", lettered, 0.9),
        ("text_overlay", white_word, 0.4),  # gaps in tissue are white too
    ],
)
def test_a_mixed_figure_gets_its_flag(flag: str, draw: Callable[[int], Image.Image], share: float):
    found = sum(flag in figures.flags(compressed(draw(seed))) for seed in range(VARIATIONS))
    assert found >= share * VARIATIONS, found


def test_panels_are_found_where_they_are():
    right = 0
    for seed in range(VARIATIONS):
        sheet, truth = panelled(seed)
        pixels = compressed(sheet)
        scale = sheet.width / pixels.shape[1]
        found = np.array(figures.panels(pixels)) * scale
        right += found.shape == np.shape(truth) and np.abs(found - np.array(truth)).max() <= 2 * scale + 2
    assert right >= 0.8 * VARIATIONS, right  # a panel that ends in white glass is missed


def test_tissue_alone_gets_no_flag():
    for seed in range(12):
        pixels = compressed(tissue(seed))
        assert (figures.flags(pixels), len(figures.panels(pixels))) == ((), 1)


def test_a_scale_bar_alone_is_fine():
    assert not any(figures.has_text(compressed(with_scale_bar(seed))) for seed in range(VARIATIONS))


def test_pieces_of_tissue_on_glass_are_no_panels():
    sheet = Image.new("RGB", (400, 300), (248, 248, 248))
    for number in range(3):
        mask = Image.new("L", (400, 300))
        ImageDraw.Draw(mask).ellipse((20 + 130 * number, 60, 120 + 130 * number, 240), fill=255)
        sheet.paste(tissue(number, 400, 300), mask=mask)
    assert len(figures.panels(compressed(sheet))) <= 1


def test_a_legend_below_a_picture_is_no_panel():
    sheet = Image.new("RGB", (300, 280), "white")
    sheet.paste(tissue(0, 300, 250))
    ImageDraw.Draw(sheet).text((10, 262), "Figure 1. A tumour.", "black", ImageFont.load_default(size=12))
    assert len(figures.panels(compressed(sheet))) == 1


def test_a_box_of_the_reduced_picture_becomes_one_of_the_picture():
    assert figures.enlarged((0, 10, 50, 100), (100, 100), (400, 200)) == (0, 44, 98, 400)


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (300, 2), (20, 20), (60, 384)])
def test_any_shape_and_any_flat_colour_is_an_answer(shape: tuple[int, int]):
    for value in (0, 128, 255):
        pixels = np.full((*shape, 3), value, np.uint8)
        assert len(figures.panels(pixels)) <= 1 and figures.flags(pixels) == ()


@pytest.mark.real_data
def test_real_tissue_is_seldom_taken_for_a_figure(shared_data):
    files = sorted((shared_data / "patches").glob("*/images/**/*.jp*g"))[::40]
    files += sorted((shared_data / "pairs" / "patoloji_atlasi" / "images").glob("*.jpg"))[::4]
    wrong = 0
    for file in files:
        pixels = figures.reduced(open_image(file, draft_to=256))
        wrong += bool(figures.flags(pixels)) or len(figures.panels(pixels)) > 1
    assert wrong <= 0.02 * len(files), (wrong, len(files))
