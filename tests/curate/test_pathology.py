import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pathclip.config import data_dir
from pathclip.curate import pathology
from pathclip.curate.images import ImageSettings
from pathclip.curate.pathology import SIDE, network_input, tissue_probability
from pathclip.errors import DataError
from pathclip.runtime.images import open_image
from pathclip.sources.synthetic_distractors import DISTRACTORS, draw_distractor
from pathclip.sources.synthetic_tiles import CLASSES, LABORATORIES, draw_tile

THRESHOLD = ImageSettings().pathology_threshold


def passes(image: Image.Image) -> bool:
    return tissue_probability(image) >= THRESHOLD


def test_synthetic_tissue_of_every_class_and_laboratory_passes():
    tiles = [
        draw_tile(name, np.random.default_rng([9100, number, at]), laboratory)
        for number, name in enumerate(CLASSES)
        for at, laboratory in enumerate(LABORATORIES)
    ]
    assert sum(passes(Image.fromarray(tile)) for tile in tiles) >= 0.98 * len(tiles)


@pytest.mark.parametrize("kind", DISTRACTORS)
def test_a_drawing_is_no_pathology(kind):
    drawings = [draw_distractor(kind, np.random.default_rng([9101, number])) for number in range(25)]
    assert sum(not passes(Image.fromarray(drawing)) for drawing in drawings) >= 24


def test_photographs_of_people_and_places_are_no_pathology():
    sklearn = pytest.importorskip("sklearn")
    matplotlib = pytest.importorskip("matplotlib")
    folder = Path(sklearn.__file__).parent / "datasets" / "images"
    people = Path(matplotlib.__file__).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg"
    for file in (folder / "china.jpg", folder / "flower.jpg", people):
        assert not passes(open_image(file)), file.name


def test_empty_glass_shows_nothing():
    for value in ((244, 243, 245), (255, 255, 255), (228, 226, 230)):
        assert not passes(Image.new("RGB", (200, 200), value))


def test_the_input_is_the_whole_picture_in_unit_range():
    wide = Image.new("RGB", (400, 100))
    wide.paste((255, 0, 0), (200, 0, 400, 100))
    seen = network_input(wide)
    assert (seen.shape, seen.dtype) == ((3, SIDE, SIDE), np.float32)
    assert (seen[0, :, : SIDE // 2 - 1].max(), seen[0, :, SIDE // 2 + 1 :].min(), seen[1:].max()) == (0, 1, 0)


def test_missing_weights_are_named_with_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"pathology=false"):
        tissue_probability(Image.new("RGB", (9, 9)), tmp_path / "none.onnx")


def test_the_card_is_of_these_weights_and_of_this_threshold():
    folder = data_dir() / "pathology"
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    weights = (data_dir() / pathology.WEIGHTS).read_bytes()
    assert card["network"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert card["threshold"] == THRESHOLD
    assert len(weights) == card["network"]["bytes"] < 2_000_000


@pytest.mark.real_data
def test_real_tissue_of_four_laboratories_passes(shared_data):
    folders = {name: shared_data / "patches" / name for name in ("lc25000", "oral_oscc", "atlas_wsi_tiles")}
    folders["patoloji_atlasi"] = shared_data / "pairs" / "patoloji_atlasi"
    for name, folder in folders.items():
        files = sorted(folder.rglob("*.jp*g"))
        chosen = random.Random(0).sample(files, 100)
        assert sum(passes(open_image(file, draft_to=256)) for file in chosen) >= 95, name
