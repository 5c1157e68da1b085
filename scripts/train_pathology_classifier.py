"""Trains the classifier of `pathclip.curate.pathology`, tests it and writes its card.

    python scripts/train_pathology_classifier.py --real ../shared/data --negatives FOLDER

Positives are tiles of the synthetic feed and, where `--real` is given, real tissue; negatives are drawn
(`pathology_training_pictures`). Real negatives are for the test alone (`pathology_classifier_card`): the
pictures that installed packages bring, and those below `--negatives` (one folder per package). Same
arguments, same versions: same weights. With `--test-only` the weights stay, and the card's test is made anew.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pathology_classifier_card import (
    FEED_SEEDS,
    Real,
    baseline,
    facts,
    folder_pictures,
    package_pictures,
    real_tissue,
    recall_in_training,
    test_feed,
    test_real,
    write_card,
)
from pathology_training_pictures import VIEWS, Pixels, samples

OUT = Path(__file__).resolve().parents[1] / "data" / "pathology"


def balanced(real: Sequence[Real]) -> list[Path]:
    """Training files, those of small data sets repeated so that each counts about alike."""
    by_dataset: dict[str, list[Path]] = {}
    for one in real:
        if one.train:
            by_dataset.setdefault(one.dataset, []).append(one.path)
    most = max((len(paths) for paths in by_dataset.values()), default=0)
    return [path for paths in by_dataset.values() for path in (paths * (most // len(paths) + 1))[:most]]


def training_set(pictures: int, seed: int, real: Sequence[Path]) -> tuple[Pixels, NDArray[np.float32]]:
    make = partial(samples, seed=seed, real=real)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        made = list(pool.map(make, range(pictures), chunksize=32))
    images = np.stack([image for images, _ in made for image in images])
    return images, np.array([label for _, labels in made for label in labels], np.float32)


def network(widths: Sequence[int] = (16, 32, 64, 96, 128)) -> Any:
    """Five convolutions (stride 2 but for the fourth), their mean and maximum, one linear layer."""
    from torch import nn

    layers: list[Any] = []
    before = 3
    for number, width in enumerate(widths):
        stride = 1 if number == 3 else 2
        layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        before = width

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(*layers)
            self.drop = nn.Dropout(0.2)
            self.head = nn.Linear(2 * before, 1)

        def forward(self, pixels: Any) -> Any:
            import torch

            seen = self.body((pixels - 0.5) * 4)
            pooled = torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], 1)
            return self.head(self.drop(pooled))[:, 0]

    return Network()


def train(images: Pixels, labels: NDArray[np.float32], epochs: int, seed: int) -> Any:
    import torch

    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    model = network().to(memory_format=torch.channels_last)
    batch = 128
    order = np.random.default_rng([seed, 1])
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps, pct_start=0.2)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        shuffled = order.permutation(len(images))
        for start in range(0, len(images) - batch + 1, batch):
            chosen = np.sort(shuffled[start : start + batch])
            pixels = torch.from_numpy(images[chosen]).to(memory_format=torch.channels_last).float() / 255
            if order.random() < 0.5:
                pixels = pixels.flip(3)
            gain = torch.from_numpy(np.exp(order.normal(0, 0.08, (batch, 3, 1, 1)))).float()
            target = torch.from_numpy(labels[chosen]) * 0.96 + 0.02
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                model((pixels * gain).clamp(0, 1)), target
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        print(f"epoch {epoch + 1}: loss {total / (len(images) // batch):.4f}", flush=True)
    return model.eval()


def export(model: Any, calibration: NDArray[np.float32], file: Path) -> None:
    """Writes the int8 network: static QDQ, 7-bit weights per channel, so that no CPU saturates."""
    import onnx
    import torch
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    model = model.to(memory_format=torch.contiguous_format)
    parts = list(model.body)
    fused = [fuse_conv_bn_eval(parts[i], parts[i + 1]) for i in range(0, len(parts), 3)]
    model.body = torch.nn.Sequential(*(layer for one in fused for layer in (one, torch.nn.ReLU())))

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            row = next(self.rows, None)
            return None if row is None else {"pixels": row[None]}

    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "fp32.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (torch.from_numpy(calibration[:1]),),
                plain,
                input_names=["pixels"],
                output_names=["logit"],
                opset_version=20,
                dynamo=False,
            )
        quantize_static(
            plain,
            file,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    quantised = onnx.load(file)
    del quantised.metadata_props[:]
    quantised.doc_string = ""
    for node in quantised.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.save(quantised, file)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", type=Path, help="real tissue; without, the synthetic feed alone")
    parser.add_argument("--negatives", type=Path, help="more negatives for the test, a folder per package")
    parser.add_argument("--pictures", type=int, default=9000, help=f"drawn or read; {VIEWS} samples of each")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test-only", action="store_true", help="keep the weights, test anew")
    parser.add_argument("--baseline", action="store_true", help="also train and test a colour histogram")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    real = real_tissue(arguments.real)
    negatives = [*package_pictures(), *folder_pictures(arguments.negatives)]
    arguments.out.mkdir(parents=True, exist_ok=True)
    weights = arguments.out / "classifier.onnx"
    known = arguments.out / "card.json"
    earlier = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else {}
    if not arguments.test_only or arguments.baseline:
        images, labels = training_set(arguments.pictures, arguments.seed, balanced(real))
        print(f"{len(images)} samples", flush=True)
    if not arguments.test_only:
        model = train(images, labels, arguments.epochs, arguments.seed)
        calibration = images[:: max(1, len(images) // 256)].astype(np.float32) / 255
        export(model, calibration, weights)
    card = facts(arguments, real, sum(p.numel() for p in network().parameters()))
    if real:
        card["trained_on"]["recall"] = recall_in_training(weights, real)
    card["tested_on"] = {
        "real": test_real(weights, real, negatives),
        "feed": [test_feed(weights, seed) for seed in FEED_SEEDS],
    }
    if arguments.baseline:
        card["baseline"] = baseline(images, labels, real, negatives)
    elif earlier.get("network", {}).get("sha256") == card["network"]["sha256"]:
        card["baseline"] = earlier.get("baseline")
    write_card(card, arguments.out)
    print((arguments.out / "README.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
