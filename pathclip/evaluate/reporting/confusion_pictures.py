"""A confusion matrix whose cells lead to pictures, and wrong examples with what the model thought.

The page has no script: a cell is a link to a group of thumbnails, which the style shows when it is
the target.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate.datasets import LabelledImages
from pathclip.evaluate.reporting import report
from pathclip.page import data_url, thumbnail
from pathclip.runtime.preprocess import open_image

Numbers = NDArray[np.int64]
Cell = tuple[int, int]
SIDE = 96
MOST_PER_CELL = 6
MOST_PICTURES = 150
MOST_BYTES = 1_500_000  # of all thumbnails of one matrix, as the page holds them
THOUGHTS = 3


def confusion_with_pictures(
    name: str,
    images: LabelledImages,
    truth: Numbers,
    shares: NDArray[np.floating],
    classes: Sequence[str],
    most_per_cell: int = MOST_PER_CELL,
    most_pictures: int = MOST_PICTURES,
    most_bytes: int = MOST_BYTES,
) -> str:
    """The matrix, and below it the pictures of the cell that was clicked.

    Every cell gets one picture before any gets a second, wrong cells first. In a wrong cell stand those that
    the model was surest of; in a right one those that it was least sure of.

    Args:
        name: of the matrix, unique in the page: the ids of its groups begin with it.
        images: the n pictures.
        truth: class numbers int64 [n].
        shares: probabilities [n, classes]; the largest is the answer.
        classes: names.
        most_per_cell: pictures of a cell.
        most_pictures: of all cells.
        most_bytes: of all thumbnails, as base64.

    Returns:
        HTML.

    Raises:
        DataError: a picture cannot be read.
    """
    predicted = shares.argmax(axis=1)
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (truth, predicted), 1)
    chosen = list(chosen_pictures(truth, shares, most_per_cell))[:most_pictures]
    urls = _thumbnails(images, chosen, most_bytes)
    cells: dict[Cell, list[int]] = {}
    for number in chosen:
        if number in urls:
            cells.setdefault((int(truth[number]), int(predicted[number])), []).append(number)
    begin = "cells-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    links = {cell: f"{begin}-{cell[0]}-{cell[1]}" for cell in cells}
    groups = ""
    for cell, numbers in sorted(cells.items()):
        captions = [thoughts(shares[number], classes) for number in numbers]
        groups += _group(
            links[cell],
            f"{classes[cell[0]]}, taken for {classes[cell[1]]}" if cell[0] != cell[1] else classes[cell[0]],
            f"{len(numbers)} of {counts[cell]}",
            [(urls[number], caption) for number, caption in zip(numbers, captions, strict=True)],
            begin,
        )
    return (
        f'<div class="matrix" id="{begin}">{report.confusion_svg(counts, classes, links)}</div>'
        f'<p class="caption">Click a number to see pictures.</p>{groups}'
    )


def chosen_pictures(
    truth: Numbers, shares: NDArray[np.floating], most_per_cell: int = MOST_PER_CELL
) -> Iterator[int]:
    """Numbers of pictures worth showing: one of each cell, then a second; wrong cells before right ones."""
    predicted, sure = shares.argmax(axis=1), shares.max(axis=1)
    cells: dict[Cell, list[int]] = {}
    for number in np.argsort(-sure, kind="stable"):
        cells.setdefault((int(truth[number]), int(predicted[number])), []).append(int(number))
    order = sorted(cells, key=lambda cell: (cell[0] == cell[1], -len(cells[cell]), cell))
    for turn in range(most_per_cell):
        for cell in order:
            numbers = cells[cell] if cell[0] != cell[1] else cells[cell][::-1]
            if turn < len(numbers):
                yield numbers[turn]


def thoughts(shares: NDArray[np.floating], classes: Sequence[str], most: int = THOUGHTS) -> str:
    r"""The likeliest classes of one picture with their probabilities, one a line.

    >>> thoughts(np.array([0.1, 0.7, 0.2]), ["benign", "tumour", "stroma"], most=2)
    'tumour 0.70\nstroma 0.20'
    """
    best = np.argsort(-shares, kind="stable")[:most]
    return "\n".join(f"{classes[number]} {shares[number]:.2f}" for number in best)


def wrong_examples(
    images: LabelledImages,
    truth: Numbers,
    shares: NDArray[np.floating],
    classes: Sequence[str],
    most: int = 16,
) -> tuple[str, int]:
    """The pictures that a model was wrong about and surest of, with what it thought.

    Args:
        images: the n pictures.
        truth: class numbers int64 [n].
        shares: probabilities [n, classes].
        classes: names.
        most: pictures shown.

    Returns:
        HTML, '' if it was never wrong; and how many answers were wrong.

    Raises:
        DataError: a picture cannot be read.
    """
    wrong = np.flatnonzero(shares.argmax(axis=1) != truth)
    surest = wrong[np.argsort(-shares[wrong].max(axis=1), kind="stable")][:most]
    numbers = sorted(map(int, surest))
    contents = dict(zip(numbers, images.contents(numbers), strict=True))
    pictures = [
        (
            open_image(contents[number], name=images.paths[number]),
            f"is {classes[truth[number]]}, model says:\n{thoughts(shares[number], classes)}",
        )
        for number in map(int, surest)
    ]
    return (report.picture_grid(pictures) if pictures else ""), len(wrong)


def _thumbnails(images: LabelledImages, chosen: Sequence[int], most_bytes: int) -> Mapping[int, str]:
    """Numbers → `data:` URLs, those first in `chosen` until there is no more room."""
    numbers = sorted(chosen)
    urls = {
        number: data_url(thumbnail(open_image(content, name=images.paths[number]), SIDE, quality=75))
        for number, content in zip(numbers, images.contents(numbers), strict=True)
    }
    kept, room = {}, most_bytes
    for number in chosen:
        room -= len(urls[number])
        if room < 0:
            break
        kept[number] = urls[number]
    return kept


def _group(anchor: str, title: str, count: str, pictures: Sequence[tuple[str, str]], back: str) -> str:
    cells = "".join(report.picture_figure(url, caption) for url, caption in pictures)
    return (
        f'<div class="cell-pictures" id="{anchor}" tabindex="-1"><h3>{report.escape(title)}: {count} '
        f'<a href="#{back}">close</a></h3><div class="grid" style="--side:{SIDE}px">{cells}</div></div>'
    )
