"""Mixed figures: what shows tissue, but not tissue alone. Geometry and exact colours, no trained model.

Each function takes a small picture, uint8 [height, width, 3] as `reduced` gives it, and is pure.

- **panels**: several pictures side by side between light or dark gutters. Not caught: panels that touch, and
  those that are themselves as light as the gutter along most of it.
- **browser**: a window of a slide viewer or a browser: flat bands with text or buttons along an edge, cut off
  from the picture by a straight line across all of it. Not caught: buttons that float over the tissue.
- **screen_photo**: a photograph through the eyepiece (four evenly dark corners about a round field) or of a
  screen (moire: sharp peaks in the spectrum). Not caught: an eyepiece whose rim is outside the picture, and
  moire that resizing has blurred away.
- **text_overlay**: letters, numbers and arrows in black or a vivid colour; in white, which gaps in tissue are
  too, words of four letters and more, and not all of these. A scale bar alone is fine. Not caught: single
  white letters and arrows, letters in colours that tissue has, letters below about eight pixels of the
  reduced picture, soft edges.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 384  # pixels of the longer side, at most
FLAGS = ("panels", "browser", "screen_photo", "text_overlay")

Box = tuple[int, int, int, int]
Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

EVEN = 10  # grey levels by which the pixels of a drawn, flat area differ at most after JPEG
LETTER = 8  # pixels of the smallest letter
BLED = 28  # the same of a narrow gutter, into which JPEG smears colour from both sides
LIGHT, DARK = 205, 50
LUMINANCE = np.array([0.3, 0.59, 0.11], np.float32)


def reduced(image: Image.Image) -> Pixels:
    """The picture in RGB, at most `SIDE` pixels along its longer side."""
    small = image.convert("RGB")
    if max(small.size) > SIDE:
        small = small.copy()
        small.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small)


def enlarged(box: Box, small: tuple[int, ...], size: tuple[int, int]) -> Box:
    """A box of the reduced picture in pixels of the picture itself, drawn in by what reducing blurred.

    Args:
        box: left, top, right, bottom.
        small: shape of the reduced picture.
        size: height and width of the picture itself.
    """
    y, x = size[0] / small[0], size[1] / small[1]
    left, top, right, bottom = box
    inset = 0 if x <= 1 and y <= 1 else 1
    return (
        round((left + inset * (left > 0)) * x),
        round((top + inset * (top > 0)) * y),
        round((right - inset * (right < small[1])) * x),
        round((bottom - inset * (bottom < small[0])) * y),
    )


def flags(pixels: Pixels) -> tuple[str, ...]:
    """Those of `FLAGS` that hold, panels left out: they have a function of their own."""
    if min(pixels.shape[:2]) < 48:
        return ()
    found = (
        ("browser", is_browser(pixels)),
        ("screen_photo", has_round_field(pixels) or has_moire(pixels)),
        ("text_overlay", has_text(pixels)),
    )
    return tuple(name for name, holds in found if holds)


# --- panels ---------------------------------------------------------------------------------------------


def panels(pixels: Pixels, smallest: float = 0.04) -> list[Box]:
    """The panels of a figure, by recursive XY-cut (Nagy and Seth, ICPR 1984).

    A gutter is a run of rows or columns of one light or dark colour that spans the whole region and on both
    sides of which something else begins at once, along most of it on one side: empty glass between pieces
    of tissue ends raggedly.

    Args:
        pixels: the picture.
        smallest: area of a panel as a share of the picture; labels and legends are smaller.

    Returns:
        (left, top, right, bottom) of each, from top to bottom and left to right; one box or none is no
        figure of panels.
    """
    height, width = pixels.shape[:2]
    high, low = _extremes(pixels)
    shades = {"light": low >= LIGHT, "dark": high <= DARK}
    found = [
        box
        for box in _cut(pixels.astype(np.int16), shades, (0, 0, width, height), 6)
        if (box[2] - box[0]) * (box[3] - box[1]) >= smallest * height * width
        and min(box[2] - box[0], box[3] - box[1]) >= 0.08 * min(height, width)
    ]
    return sorted(found, key=lambda box: (box[1], box[0]))


def _extremes(pixels: Pixels) -> tuple[Pixels, Pixels]:
    """Largest and smallest channel; by planes, much faster than along a last axis of three."""
    red, green, blue = (np.ascontiguousarray(pixels[..., channel]) for channel in range(3))
    return np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)


def _cut(pixels: NDArray[np.int16], shades: dict[str, Mask], box: Box, depth: int) -> Iterator[Box]:
    left, top, right, bottom = box
    if depth and min(right - left, bottom - top) >= 16:
        region = pixels[top:bottom, left:right]
        masks = [shade[top:bottom, left:right] for shade in shades.values()]
        for axis in (0, 1):
            lines = region if axis == 0 else region.transpose(1, 0, 2)
            pale = np.any([mask.mean(axis=1 - axis) >= 0.97 for mask in masks], axis=0)
            parts = _between_gutters(lines, pale)
            if parts != [(0, len(lines))]:
                for start, end in parts:
                    across = (left, top + start, right, top + end)
                    down = (left + start, top, left + end, bottom)
                    yield from _cut(pixels, shades, across if axis == 0 else down, depth - 1)
                return
    yield box


def _between_gutters(lines: NDArray[np.int16], pale: Mask) -> list[tuple[int, int]]:
    """Stretches of lines between gutters; [(0, all)] if there is none. Only pale lines may be gutters."""
    count = len(lines)
    empty = np.zeros(count, bool)
    if pale.any():
        empty[pale] = _off(lines[pale], BLED).mean(axis=1) <= 0.03
    parts, start = [], 0
    for first, last in _runs(empty):
        colour = np.median(lines[(first + last) // 2], axis=0)
        before = 1.0 if first == 0 else _share(lines[max(first - 4, 0) : first], colour)
        after = 1.0 if last == count else _share(lines[last : last + 4], colour)
        if min(before, after) > 0.3 and max(before, after) > 0.7:
            if first > start:
                parts.append((start, first))
            start = last
    if start < count:
        parts.append((start, count))
    return parts


def _runs(mask: Mask) -> list[tuple[int, int]]:
    """First and one past the last of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _share(lines: NDArray[np.int16], colour: NDArray[Any]) -> float:
    """Share of their length along which the lines differ from the gutter's colour."""
    return float(_differ(lines, colour, 40).any(axis=0).mean())


# --- browser --------------------------------------------------------------------------------------------


def is_browser(pixels: Pixels) -> bool:
    """Whether a flat band with marks lies along an edge, with a straight border to what is beside it."""
    return any(_has_bar(np.rot90(pixels, turn)) for turn in range(4))


def _has_bar(lines: Pixels) -> bool:
    """Whether the first lines are such a band, between 3 and 35 % of all."""
    least, most = max(int(0.03 * len(lines)), 4), int(0.35 * len(lines)) + 2
    if _off(lines[1:least:2].astype(np.int16)).mean() > 0.5:  # most tissue is told by few lines
        return False
    band = lines[:most].astype(np.int16)
    off = _off(band)
    flat = off.mean(axis=1) < 0.5
    end = most - 2 if flat.all() else int(np.argmin(flat))
    for stop in range(min(end, most - 3), least - 1, -1):
        if off[stop - 1].mean() > 0.1:
            continue
        # From the last line of the band to the picture: a step nearly everywhere along it.
        if _differ(band[stop + 1], np.median(band[stop - 1], axis=0), 2 * EVEN).mean() < 0.9:
            continue
        below = lines[stop + 1 : stop + 1 + len(lines) // 4 : 4].astype(np.int16)
        marks = off[:stop]
        # Text and buttons: several marks, most of the band free of them.
        groups = len(_runs(np.any(marks, axis=0)))
        if groups >= 3 and 0.005 < marks.mean() < 0.4 and _off(below).mean() > 0.3:
            return True
    return False


def _off(lines: NDArray[np.int16], by: int = EVEN) -> Mask:
    """Which pixels differ from the median colour of their line; every fourth pixel tells that well enough."""
    return _differ(lines, np.median(lines[:, ::4], axis=1).astype(np.int16)[:, None], by)


def _differ(pixels: NDArray[np.int16], colours: NDArray[Any], by: int) -> Mask:
    """Which pixels differ from a colour in any channel by more than so many grey levels."""
    red, green, blue = (np.abs(pixels[..., i] - colours[..., i]) > by for i in range(3))
    return np.asarray(red | green | blue)


# --- photographs of screens and through eyepieces -------------------------------------------------------


def has_round_field(pixels: Pixels) -> bool:
    """Whether all four corners are evenly dark outside a round, brighter field."""
    height, width = pixels.shape[:2]
    if max(pixels[y, x].max() for y in (1, -2) for x in (1, -2)) > 60:
        return False
    grey = _extremes(pixels)[0]
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    if np.median(grey[np.hypot(x, y) < 0.7]) < 90:
        return False
    corner = (np.abs(y) + np.abs(x)) > 1.8
    quarters = [grey[corner & (y * a > 0) & (x * b > 0)] for a in (-1, 1) for b in (-1, 1)]
    return all(len(q) > 0 and np.percentile(q, 95) < 50 and q.std() < 10 for q in quarters)


def has_moire(pixels: Pixels, peak: float = 14.0) -> bool:
    """Whether the spectrum has sharp peaks away from the axes, as the grid of a screen leaves.

    Args:
        pixels: the picture.
        peak: amplitude over the mean at about the same frequency.
    """
    from scipy import fft

    side = min(192, *pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    grey = pixels[top : top + side, left : left + side] @ LUMINANCE
    window, order, starts = _rings(side)
    spectrum = np.abs(fft.rfft2((grey - grey.mean()) * window)).ravel()[order]
    most = np.maximum.reduceat(spectrum, starts)
    mean = np.add.reduceat(spectrum, starts) / np.diff(np.append(starts, len(order)))
    return bool(((most > peak * mean) & (most > 12 * side)).any())


@functools.cache
def _rings(side: int) -> tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.intp]]:
    """A window; the places of a spectrum that are looked at, by frequency; where each ring of them starts."""
    down, across = np.abs(np.fft.fftfreq(side))[:, None], np.fft.rfftfreq(side)[None]
    radius = np.hypot(down, across)
    # Close to the axes lie the block borders of JPEG and straight edges.
    looked_at = np.flatnonzero((radius > 0.1) & (radius < 0.5) & (down > 0.02) & (across > 0.02))
    ring = (radius.ravel()[looked_at] * 40).astype(np.intp)
    order = np.argsort(ring, kind="stable")
    starts = np.flatnonzero(np.diff(ring[order], prepend=-1))
    hann = np.hanning(side).astype(np.float32)
    return hann * hann[:, None], looked_at[order], starts


# --- text and arrows ------------------------------------------------------------------------------------


def has_text(pixels: Pixels) -> bool:
    """Whether there are letters or arrows: thin, sharply bordered marks in black, white or a vivid colour."""
    high, low = _extremes(pixels)
    red, green, blue = (pixels[..., channel].astype(np.int16) for channel in range(3))
    # Yellow to cyan, and the pure red and blue of drawing programs; stains are none of these.
    pure = ((red > 190) & (green < 60) & (blue < 60)) | ((blue > 190) & (green < 60) & (red < 60))
    vivid = ((high > 150) & (high - low > 110) & (green > red - 40) & (green > blue - 20)) | pure
    if _marks(pixels, high <= 28) or _marks(pixels, vivid):
        return True
    return _has_white_word(pixels[..., 1])


def _marks(pixels: Pixels, mask: Mask) -> list[tuple[slice, ...]]:
    """Boxes of the marks in a mask that are shaped and bordered like drawn ones."""
    from scipy import ndimage

    if not 0.0003 < mask.mean() < 0.25:
        return []
    height, width = mask.shape
    most = 0.5 * max(height, width)
    named, _ = ndimage.label(mask, np.ones((3, 3)))
    found = []
    for number, place in enumerate(ndimage.find_objects(named), 1):
        rows, columns = place
        size = max(rows.stop - rows.start, columns.stop - columns.start)
        inside = rows.start > 0 and columns.start > 0 and rows.stop < height and columns.stop < width
        if inside and LETTER <= size <= most and _is_mark(pixels, named, number, place):
            found.append(place)
    return found


def _is_mark(pixels: Pixels, named: NDArray[np.integer[Any]], number: int, place: tuple[slice, ...]) -> bool:
    from scipy import ndimage

    rows, columns = (slice(max(part.start - 4, 0), part.stop + 4) for part in place)
    shape = named[rows, columns] == number
    high, wide = place[0].stop - place[0].start, place[1].stop - place[1].start
    filled = shape.sum() / (high * wide)
    if filled < 0.08 or (filled > 0.8 and max(high, wide) >= 4 * min(high, wide)):  # a scale bar
        return False
    thickness = 2 * float(ndimage.distance_transform_cdt(shape, "chessboard").max())
    if thickness > 0.45 * max(high, wide):
        return False
    inner = pixels[rows, columns].astype(np.int16)
    near = ndimage.binary_dilation(shape, np.ones((3, 3)), iterations=2)
    ring = ndimage.binary_dilation(near, np.ones((3, 3))) & ~near
    away = np.abs(inner - inner[shape].mean(axis=0)).max(axis=2)
    return bool((away[ring] > 70).mean() > 0.85)


def _has_white_word(green: Pixels) -> bool:
    """Whether four thin white marks of about one height stand side by side on one line.

    Args:
        green: the green channel, in which every stain is dark.
    """
    from scipy import ndimage

    # The white top-hat keeps what is thinner than nine pixels: strokes, but no gaps in tissue.
    thin = (green > 200) & (green - _opened(green) > 45)
    named, _ = ndimage.label(thin, np.ones((3, 3)))
    boxes = [
        (rows.start, rows.stop, columns.start, columns.stop)
        for rows, columns in ndimage.find_objects(named)
        if 6 <= rows.stop - rows.start <= 40 and columns.stop - columns.start <= 40
    ]
    boxes.sort(key=lambda box: box[2])
    return any(_letters_from(number, boxes) >= 4 for number in range(len(boxes)))


def _opened(grey: Pixels) -> Pixels:
    """Grey opening with a square of nine pixels: the least, then the greatest of each neighbourhood.

    By doubling (windows of 2, 4, 8 and 9 pixels), several times faster than scipy's.
    """
    for extreme in (np.minimum, np.maximum):
        grey = np.pad(grey, 4, mode="edge")
        for step in (1, 2, 4, 1):
            grey = extreme(grey[:-step], grey[step:])
        for step in (1, 2, 4, 1):
            grey = extreme(grey[:, :-step], grey[:, step:])
    return grey


def _letters_from(first: int, boxes: list[Box]) -> int:
    """How many boxes (top, bottom, left, right; sorted by left) follow one another like letters of a word."""
    top, bottom, _, right = boxes[first]
    high, count = bottom - top, 1
    for other_top, other_bottom, left, end in boxes[first + 1 :]:
        if left - right > 0.7 * high:
            break
        level = abs(other_bottom - bottom) <= max(1, 0.1 * high) and abs(other_top - top) <= 0.4 * high
        if level and left >= right - 1:
            right, count = end, count + 1
    return count
