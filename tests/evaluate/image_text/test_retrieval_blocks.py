from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pathclip.evaluate.image_text.retrieval_blocks import fixed_point, products
from pathclip.runtime.encoder import normalise

STATUS = Path("/proc/self/status")


@pytest.fixture
def rows():
    return normalise(np.random.default_rng(0).normal(size=(300, 200)))


def mapped_megabytes():
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("RssFile"))
    return int(line.split()[1]) / 1e3


def test_rounding_changes_a_component_by_less_than_float32_resolves(rows):
    assert np.abs(fixed_point(rows, 0, 300) - rows).max() <= 2.0**-25


def test_rounding_leaves_the_embeddings_alone(rows):
    before = rows.copy()
    fixed_point(rows, 0, 300)
    assert (rows == before).all()


@pytest.mark.parametrize("width", [1, 3, 64, 300])
def test_a_product_is_the_same_in_every_block_and_alone(width, rows):
    exact = fixed_point(rows, 0, 300)
    whole = exact @ exact.T
    for start in range(0, 300, width):
        assert (
            exact @ fixed_point(rows, start, min(start + width, 300)).T == whole[:, start : start + width]
        ).all()
    numbers = np.random.default_rng(1).integers(0, 300, (2, 500))
    assert (products(exact, numbers[0], rows, numbers[1]) == whole[numbers[0], numbers[1]]).all()


@pytest.mark.skipif(not STATUS.is_file(), reason="only Linux tells how much of a file is mapped")
def test_a_mapped_file_does_not_stay_in_memory(tmp_path):
    file = tmp_path / "vectors.npy"
    np.save(file, np.full((100_000, 256), 2.0**-4, np.float16))  # 51 MB
    vectors = np.load(file, mmap_mode="r", allow_pickle=False)
    before, most = mapped_megabytes(), 0.0
    for start in range(0, len(vectors), 2000):
        fixed_point(vectors, start, start + 2000)
        most = max(most, mapped_megabytes() - before)
    assert most < 10
