"""Two small models with shards to calibrate on, and what exporting each gives."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pathclip.launch import compose
from pathclip.model.build import from_open_clip, from_towers
from pathclip.model_folder import TRAINING_PICTURES
from pathclip.shards.writer import Sample, write_shards
from pathclip.train.training_pictures import from_hashes

WORDS = ["adenocarcinoma", "benign colon", "keratin pearls", "signet ring cells", "adipose tissue", "mitosis"]
SEEN = "ab" * 32  # SHA-256 of a picture that the transformer was trained on
TRANSFORMER = {
    "embed_dim": 32,
    "vision_cfg": {"layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"layers": 2, "width": 64, "heads": 2},
}
# Random towers rank classes and captions by a hair, so int8 may change which is first; what they must keep is
# their embeddings.
OVERRIDES = [
    *("calibration.samples=48", "calibration.selection=16", "calibration.held_out=32", "keep_fp32=true"),
    *("gate.recall_drop=0.3", "gate.zero_shot_agreement=0.5", "gate.accuracy_drop=1"),
]


def picture(seed: int) -> bytes:
    """A smooth random picture in the colours of a stain."""
    rng = np.random.default_rng(seed)
    small = rng.normal((190, 120, 170), (30, 50, 30), (8, 8, 3)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("calibration") / "train"
    samples = [
        Sample(f"s{i:03d}", picture(i), f"{WORDS[i % 6]}, case {i}", {"group": f"g{i // 2}"})
        for i in range(96)
    ]
    write_shards(folder, samples)
    return folder


@pytest.fixture(scope="session")
def transformer(tmp_path_factory, shards) -> Path:
    """A CLIP of two layers with random weights, the same in every run."""
    torch.manual_seed(0)
    towers = from_open_clip("ViT-B-32", image_size=32, context_length=24, overrides=TRANSFORMER)
    out = tmp_path_factory.mktemp("transformer") / "model"
    files = {TRAINING_PICTURES: from_hashes([SEEN]).to_bytes()}
    return towers.save(out, {"training": {"shards": [str(shards)], "pairs": 96}}, files=files)


@pytest.fixture(scope="session")
def convolutional(tmp_path_factory, shards) -> Path:
    """EfficientNet-Lite0 with ImageNet weights beside two layers of MiniLM; only projections are random."""
    torch.manual_seed(0)
    towers = from_towers(image_size=64, context_length=24, embed_dim=64, text_layers=2)
    out = tmp_path_factory.mktemp("convolutional") / "model"
    return towers.save(out, {"training": {"shards": [str(shards)], "pairs": 96}})


def config(model: Path, out: Path, *overrides: str):
    return compose("export", [f"model={model}", f"out={out}", *OVERRIDES, *overrides])


@pytest.fixture(scope="session")
def exported_transformer(transformer, tmp_path_factory):
    from pathclip.export.export import export

    out = tmp_path_factory.mktemp("exported") / "transformer"
    return export(config(transformer, out, "prompts.classes=[benign,malignant,necrosis]"))


@pytest.fixture(scope="session")
def exported_convolutional(convolutional, tmp_path_factory):
    from pathclip.export.export import export

    return export(config(convolutional, tmp_path_factory.mktemp("exported") / "lite", "search=false"))
