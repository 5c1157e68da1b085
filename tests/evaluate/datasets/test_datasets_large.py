"""Large pictures that are cut into patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pathclip.errors import DataError
from pathclip.evaluate import datasets
from pathclip.evaluate.datasets.large_pictures import CASE
from pathclip.runtime.images import open_image
from tests.evaluate import public_sets

CONF = Path(__file__).parents[3] / "conf"


@pytest.fixture
def folder(tmp_path):
    return public_sets.digestpath(tmp_path)


def read(folder, **changes):
    return datasets.digestpath(
        str(folder), **{"levels": [1, 2], "side": 16, "test_fraction": None, **changes}
    )


def place(path):
    """Level, top and left of a patch, out of its name."""
    words = path.rpartition(": ")[2].replace(",", "").split()
    return int(words[0][2:]), int(words[1]), int(words[3])


def test_patches_are_malignant_where_half_of_them_is_marked(folder):
    data = read(folder, levels=[1], overlap=0.0)
    for path, label in zip(data.test.paths, data.test.labels, strict=True):
        _, _, left = place(path)
        assert label == ("malignant" if "pos" in path and left < 64 else "benign")
    # 128 pixels hold 7 patches of 16, for the eighth touches the edge; 4 of 7 columns are marked.
    assert data.test.labels.count("malignant") == 4 * 4 * 7 and len(data.test) == 8 * 49


def test_patches_that_are_marked_in_part_are_left_out(folder):
    # At 1/1, columns begin at 0, 24, 48 and 72: the third is marked by two thirds, and none below a half.
    starts = {place(path)[2] for path in read(folder, levels=[1], side=24, overlap=0.0, tumour=0.7).test.paths
              if "pos" in path}  # fmt: skip
    assert starts == {0, 24, 72, 96}


def test_a_patch_is_cut_from_the_picture_shrunk_as_a_whole(folder):
    data = read(folder)
    number = next(n for n, path in enumerate(data.test.paths) if place(path)[0] == 2)
    level, top, left = place(data.test.paths[number])
    image = open_image(data.test.paths[number].rpartition(": ")[0])
    shrunk = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC))
    found = np.asarray(open_image(next(data.test.contents([number]))))
    assert level == 2 and np.array_equal(found, shrunk[top : top + 16, left : left + 16])


def test_patches_are_the_same_whatever_was_read_before(folder):
    data = read(folder)
    numbers = list(range(0, len(data.test), 37))
    together = list(data.test.contents(numbers))
    assert together == [next(data.test.contents([number])) for number in numbers]
    assert len({*together}) == len(together)


def test_glass_is_left_out(folder):
    file = next((folder / "Colonoscopy_tissue_segment_dataset" / "tissue-train-neg").glob("*.jpg"))
    pixels = np.asarray(Image.open(file)).copy()
    pixels[:64] = 255
    Image.fromarray(pixels).save(file, quality=95)
    tops = {place(path)[1] for path in read(folder, levels=[1], overlap=0.0).test.paths if file.name in path}
    assert min(tops) == 64


def test_cases_stay_whole(folder):
    data = read(folder, test_fraction=0.5, validation_fraction=0.5)
    sides = [{*part.groups} for part in (data.test, data.train, data.validation) if part]
    assert sum(len(side) for side in sides) == len(set.union(*sides)) == 8
    assert set.union(*sides) >= {"D201700", "18-09921"}


def test_parts_of_one_specimen_are_one_case(tmp_path):
    public_sets.digestpath_of_real_names(tmp_path)
    data = read(tmp_path, levels=[1], side=32)
    found = {}
    for path, group in zip(data.test.paths, data.test.groups, strict=True):
        found.setdefault(group, set()).add(path.rpartition(": ")[0].rpartition("/")[2].removesuffix(".jpg"))
    assert found == {case: {*names} for case, names in public_sets.DIGESTPATH_NAMES.items()}


def test_the_task_has_the_readers_expression_of_a_case():
    config = yaml.safe_load((CONF / "task" / "digestpath.yaml").read_text())
    assert config["dataset"]["case"] == CASE


def test_the_number_of_patches_can_be_bounded_and_repeats(folder):
    first, second = (read(folder, most=2) for _ in range(2))
    assert first.test.paths == second.test.paths
    # 4 positive pictures with 2 classes and 4 negative ones with 1, at 2 levels.
    assert len(first.test) == 2 * 2 * (4 * 2 + 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": []}, "levels and side must be at least 1"),
        ({"overlap": 1.0}, "overlap at least 0 and below 1"),
        ({"most": 0}, "most is at least 1"),
        ({"case": "^x"}, "its name has no case by the expression"),
        ({"case": "("}, r"case: '\(' is no regular expression"),
        ({"side": 500}, "no patch to test on"),
    ],
)
def test_a_cut_that_makes_no_sense_is_refused(folder, changes, message):
    with pytest.raises(DataError, match=message):
        read(folder, **changes)


def test_a_missing_mask_is_named(folder):
    next(folder.rglob("*_mask.jpg")).unlink()
    with pytest.raises(DataError, match=r"_mask\.jpg: no such file\. DigestPath is expected as tissue"):
        read(folder)


def test_a_mask_of_another_size_is_refused(folder):
    Image.new("L", (64, 64)).save(next(folder.rglob("*_mask.jpg")))
    with pytest.raises(DataError, match=r"\(128, 128\) pixels, but its mask has \(64, 64\)"):
        read(folder)
