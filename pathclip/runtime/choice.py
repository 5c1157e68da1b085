"""Which runtime `pathclip.load(…, runtime="auto")` takes: by the processor and by a measurement that is kept.

Embeddings of one folder by onnxruntime and by OpenVINO differ in the fourth digit, so an encoder keeps the
runtime that it was opened with.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathclip import atomic
from pathclip.model_folder import ModelFolder
from pathclip.runtime.cores import available_cores
from pathclip.runtime.cpu import Cpu, cpu
from pathclip.runtime.encoder import OnnxEncoder, Precision, TowerEncoder
from pathclip.runtime.openvino_encoder import OpenVinoEncoder, is_installed

BATCH = 16
SECONDS = 1.0
# Up to so many pictures, onnxruntime's quicker start decides.
FEW = 64
# From so many on, three seconds of loading both runtimes and measuring come back.
MEASURE_FROM = 1000
# onnxruntime is everywhere and the gate's numbers are its: another one must be clearly faster.
CLEARLY = 1.05
FILE = "runtimes.json"
_MOST_ENTRIES, _MOST_BYTES = 256, 1 << 20
ENCODERS: Mapping[str, Callable[[ModelFolder, Precision, int | None], TowerEncoder]] = {
    "onnx": OnnxEncoder,
    "openvino": OpenVinoEncoder,
}


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one runtime, for a folder in one precision on this machine.

    Attributes:
        opening: seconds from the call to the first embedding, with the import of the runtime.
        rate: images per second at batch 16, without preprocessing.
    """

    opening: float
    rate: float

    def __post_init__(self) -> None:
        """Refuses what no measurement gives, so that a damaged file cannot decide."""
        if not (0 <= self.opening < 1e6 and 0 < self.rate < 1e9):
            raise ValueError("no measurement")

    def seconds(self, pictures: int) -> float:
        """That so many pictures take from the call on."""
        return self.opening + pictures / self.rate


Measurements = Mapping[str, Measured]


def open_by_choice(
    folder: ModelFolder, precision: Precision, threads: int | None = None, pictures: int | None = None
) -> TowerEncoder:
    """Opens the folder's ONNX in the runtime that is the faster here.

    onnxruntime without more ado for a few pictures, and where OpenVINO is not installed or not the faster on
    such a processor (see `worth_asking`). Else by what was measured before on this machine, with the time of
    opening counted where `pictures` says how many are to come. Where nothing was measured, 1,000 pictures or
    more are reason to measure now, about three seconds with the loading of both; fewer, or an unknown
    number, take onnxruntime.

    Args:
        folder: an open model folder that has the precision.
        precision: 'int8' or 'fp32'.
        threads: of one matrix product; by default the physical cores that the process may use.
        pictures: how many are to be embedded, where that is known.
    """
    few = pictures is not None and pictures <= FEW
    if few or not is_installed() or not worth_asking(cpu()):
        return OnnxEncoder(folder, precision, threads)
    threads = threads or available_cores()
    key = key_of(folder, precision, threads)
    measured = recall(key)
    if measured is None:
        if pictures is None or pictures < MEASURE_FROM:
            return OnnxEncoder(folder, precision, threads)
        encoders, measured = measure(folder, precision, threads)
        keep(key, measured)
        return encoders[faster(measured, pictures)]
    return ENCODERS[faster(measured, pictures)](folder, precision, threads)


def worth_asking(machine: Cpu) -> bool:
    """Whether OpenVINO may be the faster on such a processor.

    Its int8 needs VNNI, AMX or their like: on AVX2 alone it reached half of onnxruntime's speed, and with
    fp32 less than it too (docs/performance.md).
    """
    return machine.exact_u8s8 or not machine.avx2


def faster(measured: Measurements, pictures: int | None = None) -> str:
    """The runtime with the least time for so many pictures; for very many where the number is not known.

    'onnx' unless another is faster by 5 %.
    """

    def cost(name: str) -> float:
        return 1 / measured[name].rate if pictures is None else measured[name].seconds(pictures)

    best = min(measured, key=cost)
    return best if "onnx" not in measured or cost(best) * CLEARLY < cost("onnx") else "onnx"


def measure(
    folder: ModelFolder, precision: Precision, threads: int, seconds: float = SECONDS
) -> tuple[dict[str, TowerEncoder], dict[str, Measured]]:
    """Opens the image tower in every runtime and lets them embed in turn, so that a busy moment meets all.

    Args:
        folder: an open model folder that has the precision.
        precision: 'int8' or 'fp32'.
        threads: of one matrix product.
        seconds: of the measuring, both together; three turns each are made in any case.

    Returns:
        The encoders, and what was measured of each.
    """
    encoders: dict[str, TowerEncoder] = {}
    opening: dict[str, float] = {}
    for name, encoder in ENCODERS.items():
        start = time.perf_counter()
        encoders[name] = encoder(folder, precision, threads)
        height, width = encoders[name].preprocess.size
        pixels = np.random.default_rng(0).integers(0, 256, (BATCH, height, width, 3), np.uint8)
        encoders[name].encode_images(pixels[:1])
        opening[name] = time.perf_counter() - start
    for encoder_ in encoders.values():
        encoder_.encode_images(pixels)  # the first batch of a size prepares for it
    taken: dict[str, list[float]] = {name: [] for name in encoders}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken["onnx"]) < 3:
        for name, encoder_ in encoders.items():
            start = time.perf_counter()
            encoder_.encode_images(pixels)
            taken[name].append(time.perf_counter() - start)
    rates = {name: BATCH / max(float(np.median(times)), 1e-6) for name, times in taken.items()}
    return encoders, {name: Measured(opening[name], rates[name]) for name in encoders}


def key_of(folder: ModelFolder, precision: str, threads: int) -> str:
    """Hash of everything that a measurement depends on: model, threads, processor and versions."""
    from importlib.metadata import PackageNotFoundError, version  # 0.02 s that a few pictures need not pay

    machine = cpu()
    parts: list[Any] = [folder.hash, precision, threads, machine.name, sorted(machine.features)]
    for package in ("onnxruntime", "openvino"):
        try:
            parts.append(version(package))
        except PackageNotFoundError:
            parts.append(None)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def recall(key: str) -> dict[str, Measured] | None:
    """What was measured under this key; None where nothing was, or its file is damaged."""
    try:
        return {name: Measured(**_entries()[key]["measured"][name]) for name in ENCODERS}
    except (KeyError, TypeError, ValueError):
        return None


def keep(key: str, measured: Measurements) -> None:
    """Writes a measurement for later calls; of 256 the oldest goes. What cannot be written is not kept."""
    entries = {name: entry for name, entry in _entries().items() if name != key}
    entries[key] = {"at": time.time(), "measured": {name: asdict(one) for name, one in measured.items()}}
    newest = sorted(entries, key=lambda name: _age(entries[name]))[:_MOST_ENTRIES]
    with contextlib.suppress(OSError):  # where nobody may write it is measured again
        atomic.write_json(cache_folder() / FILE, {name: entries[name] for name in newest})


def cache_folder() -> Path:
    """`PATHCLIP_CACHE`, or `pathclip` in the user's cache; where evaluation keeps its features, too."""
    given = os.environ.get("PATHCLIP_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pathclip"


def _entries() -> dict[str, Any]:
    file = cache_folder() / FILE
    try:
        if file.stat().st_size > _MOST_BYTES:
            return {}
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _age(entry: Any) -> float:
    """Smaller is newer; what has no time is the oldest."""
    at = entry.get("at") if isinstance(entry, dict) else None
    return -float(at) if isinstance(at, int | float) else 0.0
