"""A table of coloured squares, and its parts."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.tiny_shards import COLOURS, jpeg


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """96 noisy squares of four colours in groups of two; a third of the groups are to test on."""
    rows = []
    for number in range(96):
        colour = list(COLOURS)[(number // 2) % 4]
        name = f"{number:03d}.jpg"
        (tmp_path / name).write_bytes(jpeg(COLOURS[colour], number))
        split = "test" if (number // 8) % 3 == 0 else "train"
        rows.append({"path": name, "label": colour, "group": f"g{number // 2}", "split": split})
    return write_table(tmp_path / "squares.csv", rows)


def write_table(file: Path, rows: list[dict[str, str]]) -> Path:
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file
