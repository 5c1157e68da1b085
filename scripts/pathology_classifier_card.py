"""Tests the pathology classifier on real and synthetic pictures, and writes its card."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pathology_training_pictures import NEGATIVES, VIEWS, Pixels
from PIL import Image

from pathclip.curate.pathology import SIDE, network_input, tissue_probability
from pathclip.errors import DataError
from pathclip.runtime.images import open_image
from pathclip.sources.synthetic import make_feed

Negatives = Sequence[tuple[str, Path]]
# The highest tenth at which at least 97 % of the real pictures of each data set that was trained on pass.
THRESHOLD = 0.7
FEED_SEEDS = (9001, 9002, 9003)
# Never trained on: a whole data set, some slides and every third case of the overviews.
UNSEEN_DATASETS = ("lc25000",)
UNSEEN_SLIDES = ("BS25", "ectopic-pancreas", "BS9")
# Microscopy all the same, or no picture of anything.
NO_NEGATIVES = ("ihc.png", "cell.png", "pathology")


@dataclass(frozen=True)
class Real:
    """Real tissue: the file, its data set, its group (slide, case) and whether it may be trained on."""

    path: Path
    dataset: str
    group: str
    train: bool


def real_tissue(folder: Path | None) -> list[Real]:
    if folder is None:
        return []
    found = []
    with (folder / "patches" / "manifest.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["dataset"] == "histolab_qc":
                continue
            group = Path(row["path"]).parent.name if row["dataset"] != "lc25000" else row["group"]
            unseen = row["dataset"] in UNSEEN_DATASETS or group.split("_")[0] in UNSEEN_SLIDES
            found.append(Real(folder / row["path"], row["dataset"], group, not unseen))
    overviews = folder / "pairs" / "patoloji_atlasi"
    for line in (overviews / "pairs.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        case = row["case"]
        unseen = case in UNSEEN_SLIDES or hashlib.sha256(case.encode()).digest()[0] % 3 == 0
        found.append(Real(overviews / row["image"], "patoloji_atlasi", case, not unseen))
    return sorted(found, key=lambda one: str(one.path))


def package_pictures() -> list[tuple[str, Path]]:
    """Pictures that lie in installed packages: (package, file)."""
    found = []
    for name in ("matplotlib", "networkx", "skimage", "sklearn", "sympy"):
        try:
            module = __import__(name)
        except ImportError:
            continue
        root = Path(module.__file__ or "").parent
        found += [(name, path) for path in sorted(root.rglob("*")) if path.suffix.lower() in SUFFIXES]
    return [(name, path) for name, path in found if not path.name.startswith(NO_NEGATIVES)]


SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp")


def folder_pictures(folder: Path | None) -> list[tuple[str, Path]]:
    if folder is None:
        return []
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return [(path.relative_to(folder).parts[0], path) for path in files]


def probabilities(path: Path, weights: Path) -> tuple[float, list[float]] | None:
    """Of the whole picture and of five crops of half its sides; None if curation would not get so far."""
    image = opened_for_test(path)
    if image is None:
        return None
    width, height = image.size
    whole = tissue_probability(image, weights)
    w, h = width // 2, height // 2
    corners = [(0, 0), (w, 0), (0, h), (w, h), (w // 2, h // 2)]
    crops = [image.crop((x, y, x + w, y + h)) for x, y in corners] if min(w, h) >= 48 else []
    return whole, [tissue_probability(crop, weights) for crop in crops]


def opened_for_test(path: Path) -> Image.Image | None:
    try:
        image = open_image(path, draft_to=512)
    except DataError:
        return None
    return image if min(image.size) >= 96 else None


def interval(hits: NDArray[np.float64], totals: NDArray[np.float64]) -> list[float]:
    """95 % bootstrap interval of sum(hits) / sum(totals), drawing groups; Wilson's where all are alike."""
    if len(hits) and 0 < hits.sum() < totals.sum():
        drawn = np.random.default_rng(0).integers(len(hits), size=(2000, len(hits)))
        shares = hits[drawn].sum(1) / totals[drawn].sum(1)
        return [round(float(end), 4) for end in np.percentile(shares, (2.5, 97.5))]
    n, p, z = len(hits), float(hits.sum() / max(totals.sum(), 1)), 1.96
    if not n:
        return [0.0, 1.0]
    middle, spread = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    ends = ((middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n))
    return [round(float(np.clip(end, 0, 1)), 4) for end in ends]


def share(rows: Iterable[tuple[str, Sequence[float]]], above: bool) -> dict[str, Any]:
    """Share of the probabilities on the right side of the threshold, with n and an interval by group."""
    groups: dict[str, list[bool]] = {}
    for group, values in rows:
        groups.setdefault(group, []).extend((value >= THRESHOLD) == above for value in values)
    groups = {name: right for name, right in groups.items() if right}
    hits = np.array([sum(right) for right in groups.values()], float)
    totals = np.array([len(right) for right in groups.values()], float)
    return {
        "n": int(totals.sum()),
        "groups": len(groups),
        "share": round(float(hits.sum() / max(totals.sum(), 1)), 4),
        "interval": interval(hits, totals),
    }


def precision(recall: float, specificity: float) -> float:
    """Of the pictures that pass, the share that shows tissue, if as many do as do not."""
    return round(recall / max(recall + 1 - specificity, 1e-9), 4)


def test_real(weights: Path, real: Sequence[Real], negatives: Negatives) -> dict[str, Any]:
    """Recall by data set, specificity by package, for whole pictures and crops."""
    report: dict[str, Any] = {}
    seen = [(one.dataset, one.group, probabilities(one.path, weights)) for one in real if not one.train]
    shown: dict[str, tuple[str, Path]] = {}
    for package, path in negatives:  # the same picture in two packages counts once
        shown.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), (package, path))
    refused = [(package, digest, probabilities(path, weights)) for digest, (package, path) in shown.items()]
    for name, pick in (("whole", lambda p: [p[0]]), ("crops", lambda p: p[1])):
        positive = [(data, group, pick(p)) for data, group, p in seen if p]
        negative = [(package, group, pick(p)) for package, group, p in refused if p]
        part: dict[str, Any] = {
            "recall": {
                data: share([(g, v) for d, g, v in positive if d == data], True)
                for data in sorted({row[0] for row in positive})
            },
            "specificity": {
                package: share([(g, v) for d, g, v in negative if d == package], False)
                for package in sorted({row[0] for row in negative})
            },
        }
        if positive and negative:
            part["recall"]["all"] = share([(f"{d}/{g}", v) for d, g, v in positive], True)
            part["specificity"]["all"] = share([(g, v) for _, g, v in negative], False)
            mean = float(np.mean([row["share"] for name, row in part["recall"].items() if name != "all"]))
            part["precision"] = precision(mean, part["specificity"]["all"]["share"])
        report[name] = part
    return report


def recall_in_training(weights: Path, real: Sequence[Real]) -> dict[str, Any]:
    """Of the real pictures trained on, the share that passes, by data set: what the threshold is set by."""
    seen = [(one.dataset, str(one.path), opened_for_test(one.path)) for one in real if one.train]
    values = [(data, path, [tissue_probability(image, weights)]) for data, path, image in seen if image]
    return {
        data: share([(path, v) for d, path, v in values if d == data], True)
        for data in sorted({row[0] for row in values})
    }


def test_feed(weights: Path, seed: int) -> dict[str, Any]:
    """Precision and recall of the reason 'not_pathology' on one feed."""
    with tempfile.TemporaryDirectory() as folder:
        feed = make_feed(Path(folder) / "feed", posts=1500, seed=seed)
        rows = [json.loads(line) for line in feed.truth.read_text(encoding="utf-8").splitlines()]
        skip = ("image_unreachable", "image_undecodable", "image_too_small")
        files = [
            (row["label"] is None, feed.images / f"{row['id']}.jpg")
            for row in rows
            if row["kind"] == "media" and row["reason"] not in skip
        ]
        found = [(truth, tissue_probability(open_image(path), weights) < THRESHOLD) for truth, path in files]
    right = sum(truth and fell for truth, fell in found)
    return {
        "seed": seed,
        "n": len(found),
        "not_pathology": sum(truth for truth, _ in found),
        "precision": round(right / max(sum(fell for _, fell in found), 1), 4),
        "recall": round(right / max(sum(truth for truth, _ in found), 1), 4),
    }


def colour_features(pixels: Pixels) -> NDArray[np.float32]:
    """Colour and coarse texture of [n, 3, SIDE, SIDE]: all that no convolution is needed for."""
    if len(pixels) > 512:  # bounded memory
        return np.concatenate([colour_features(pixels[at : at + 512]) for at in range(0, len(pixels), 512)])
    values = pixels.astype(np.float32) / 255
    flat = values.reshape(len(values), 3, -1)
    bins = (flat * 7.999).astype(np.intp)
    joint = (bins[:, 0] * 8 + bins[:, 1]) * 8 + bins[:, 2]
    histograms = np.stack([np.bincount(row, minlength=512) for row in joint]) / flat.shape[2]
    steps = [np.abs(np.diff(values, axis=axis)).mean((2, 3)) for axis in (2, 3)]
    return np.concatenate([np.sqrt(histograms), flat.mean(2), flat.std(2), *steps], axis=1).astype(np.float32)


def baseline(images: Pixels, labels: NDArray[np.float32], real: Sequence[Real], negatives: Negatives) -> Any:
    """Recall and specificity, on whole pictures, of colour features with a multi-layer perceptron."""
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), MLPClassifier((64,), max_iter=30, random_state=0))
    model.fit(colour_features(images), labels)

    def right(paths: Iterable[Path], tissue: bool) -> dict[str, Any]:
        opened = [image for path in paths if (image := opened_for_test(path)) is not None]
        pixels = np.stack([(network_input(image) * 255 + 0.5).astype(np.uint8) for image in opened])
        hits = (model.predict(colour_features(pixels)) == 1) == tissue
        return {"n": len(hits), "share": round(float(hits.mean()), 4)}

    unseen = [one for one in real if not one.train]
    report: dict[str, Any] = {"model": "colour histogram, mean, deviation, gradient; perceptron of 64 units"}
    report["recall"] = {
        data: right([one.path for one in unseen if one.dataset == data], True)
        for data in sorted({one.dataset for one in unseen})
    }
    report["specificity"] = right([path for _, path in negatives], False)
    return report


LICENCES = {
    "atlas_wsi_tiles": "tiles of 9 whole slides, github.com/pathologyatlas, MIT",
    "lc25000": "LC25000 (arXiv:1912.12142), tested on only",
    "oral_oscc": "atlan-antillia/EfficientNet-Histopathologic-Oral-Cancer, CC0",
    "patoloji_atlasi": "slide overviews, github.com/patolojiatlasi/patolojiatlasi.github.io, CC BY 4.0",
}


def facts(arguments: argparse.Namespace, real: Sequence[Real], parameters: int) -> dict[str, Any]:
    """What the card says of the network and of what it was trained on."""
    command = ["python scripts/train_pathology_classifier.py"]
    command += ["--real FOLDER"] if arguments.real else []
    command += ["--negatives FOLDER"] if arguments.negatives else []
    command += [f"--pictures {arguments.pictures} --epochs {arguments.epochs} --seed {arguments.seed}"]
    weights = (arguments.out / "classifier.onnx").read_bytes()
    counts = {
        name: {
            "pictures": sum(one.dataset == name and one.train for one in real),
            "groups": len({one.group for one in real if one.dataset == name and one.train}),
            "source": LICENCES[name],
        }
        for name in sorted({one.dataset for one in real if one.train})
    }
    return {
        "task": "tells stained tissue or cells from any other picture",
        "use": "curation of research data; not for diagnosis",
        "input": f"RGB, the whole picture resized to {SIDE} x {SIDE}",
        "threshold": THRESHOLD,
        "threshold_by": "the highest tenth at which 97 % of the real pictures of each training set pass",
        "network": {
            "parameters": parameters,
            "precision": "int8 (static QDQ, 7-bit weights per channel)",
            "bytes": len(weights),
            "sha256": hashlib.sha256(weights).hexdigest(),
        },
        "command": " ".join(command),
        "trained_on": {
            "samples": arguments.pictures * VIEWS,
            "positives": "synthetic tiles and overviews"
            + (" (40 %) and real tissue (60 %)" if real else " alone"),
            "real_tissue": counts,
            "negatives": "drawn: " + ", ".join(draw.__name__ for draw, _ in NEGATIVES),
            "real_negatives": 0,
        },
    }


def write_card(card: dict[str, Any], out: Path) -> None:
    (out / "card.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "README.md").write_text(readme(card), encoding="utf-8")


def readme(card: dict[str, Any]) -> str:
    trained, net, tested = card["trained_on"], card["network"], card["tested_on"]
    lines = [
        "# The pathology classifier",
        "",
        "Written by `scripts/train_pathology_classifier.py`, as are `classifier.onnx` and `card.json`.",
        "",
        f"It {card['task']}. Input: {card['input']}. A picture passes from a probability "
        f"of {card['threshold']} on (`images.pathology_threshold`): {card['threshold_by']}.",
        f"Use: {card['use']}. A convolutional network of {net['parameters']:,} parameters, "
        f"trained from scratch, {net['precision']}, {net['bytes'] / 1000:.0f} kB.",
        "",
        "    " + card["command"],
        "",
        "## Trained on",
        "",
        f"{trained['samples']:,} samples. Positives: {trained['positives']}. "
        f"Negatives, {trained['negatives']}; no real picture among them.",
        "",
    ]
    for name, row in trained["real_tissue"].items():
        lines.append(f"- {name}: {row['pictures']} pictures of {row['groups']} groups; {row['source']}")
    lines += [
        "",
        "## Tested on",
        "",
        "Nothing below was trained on: neither a picture nor its slide, case or group.",
        "",
    ]
    lines += ["| | pictures or crops | groups | right | 95 % interval |", "|---|---|---|---|---|"]
    for view_name, part in tested["real"].items():
        rows = [(f"recall, {name}", row) for name, row in part["recall"].items() if name != "all"]
        if "all" in part["specificity"]:
            rows.append(("specificity, other pictures", part["specificity"]["all"]))
        for name, row in rows:
            low, high = row["interval"]
            lines.append(
                f"| {view_name}: {name} | {row['n']} | {row['groups']} | {row['share']:.3f} "
                f"| {low:.3f} to {high:.3f} |"
            )
    packages = [name for name in tested["real"]["whole"]["specificity"] if name != "all"]
    lines += [
        "",
        "A crop is a quarter of a picture. Intervals: bootstrap by group, of other pictures by picture. The "
        "other pictures (photographs, drawings, screenshots, diagrams) are from the packages "
        + ", ".join(packages)
        + "; "
        "`card.json` counts each. Pictures of histology and of cells among them are left out. None was "
        "trained on, but errors on them were looked at twice before the drawings to train on were chosen: "
        "the figure is not blind.",
    ]
    for view_name, part in tested["real"].items():
        if "precision" in part:
            lines += [
                "",
                f"{view_name}: precision {part['precision']:.3f} with as many of one kind as of the other, "
                "at the mean recall of the data sets.",
            ]
    lines += [
        "",
        "| synthetic feed, seed | pictures | not pathology | precision | recall |",
        "|---|---|---|---|---|",
    ]
    for row in tested["feed"]:
        lines.append(
            f"| {row['seed']} | {row['n']} | {row['not_pathology']} "
            f"| {row['precision']:.3f} | {row['recall']:.3f} |"
        )
    if card.get("baseline"):
        base = card["baseline"]
        recalls = ", ".join(f"{name} {row['share']:.3f}" for name, row in base["recall"].items())
        lines += [
            "",
            f"For comparison, trained on the same samples: {base['model']}; recall on whole pictures "
            f"{recalls}; specificity {base['specificity']['share']:.3f}.",
        ]
    return "\n".join([*lines, ""])
