"""Which runtime `pathclip.load(…, runtime="auto")` takes: by the processor and by a measurement that is kept.

Which runtime it is changes numbers: on one folder embeddings by onnxruntime and by OpenVINO had a cosine of
0.9966 and more, and probabilities differed by up to 0.02. So an encoder keeps the runtime that it was opened
with and tells it (`runtime`), an index is searched with the one that made it, and whoever needs the same
numbers everywhere names one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pathclip import atomic
from pathclip.errors import ModelFolderError
from pathclip.model_folder import ModelFolder
from pathclip.progress import track
from pathclip.runtime.cores import available_cores
from pathclip.runtime.cpu import Cpu, cpu
from pathclip.runtime.encoder import OnnxEncoder, Precision, TowerEncoder
from pathclip.runtime.libraries import versions
from pathclip.runtime.openvino_encoder import OpenVinoEncoder, is_installed, works
from pathclip.runtime.user_cache import user_cache

BATCH = 16
SECONDS = 1.0
# A measurement that takes longer is given up before its next step: loading a runtime, or one batch.
MOST_SECONDS = 10.0
# Up to so many pictures, onnxruntime's quicker start decides.
FEW = 64
# From so many on, three seconds of loading both runtimes and measuring come back.
MEASURE_FROM = 1000
# onnxruntime is everywhere and the gate's numbers are its: another one must be clearly faster.
CLEARLY = 1.05
FILE = "runtimes.json"
_MOST_ENTRIES, _MOST_BYTES = 256, 1 << 20
_WAY = 2  # of running and of measuring: one more makes what was kept before void
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
    """Opens the folder's ONNX in onnxruntime, or in OpenVINO where that was measured to be the faster.

    In this order:

    1. onnxruntime for 64 pictures or fewer, and where OpenVINO is not installed or cannot be the faster on
       such a processor (see `worth_asking`);
    2. the faster by the measurement that is kept for this folder, precision, number of threads and machine,
       with the time of opening counted where `pictures` says how many are to come;
    3. without one, for 1,000 pictures or more, the faster by a measurement made and kept now: about three
       seconds with the loading of both, and given up in favour of onnxruntime after some ten;
    4. onnxruntime.

    Where OpenVINO turns out to be broken it is onnxruntime, too.

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
        if measured is None:
            return encoders["onnx"]
        keep(key, measured)
        return encoders[faster(measured, pictures)]
    name = faster(measured, pictures)
    if name == "openvino" and not works():
        name = "onnx"
    return ENCODERS[name](folder, precision, threads)


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
    folder: ModelFolder,
    precision: Precision,
    threads: int,
    seconds: float = SECONDS,
    most: float = MOST_SECONDS,
) -> tuple[dict[str, TowerEncoder], dict[str, Measured] | None]:
    """Opens the image tower in every runtime and lets them embed in turn, so that a busy moment meets all.

    Args:
        folder: an open model folder that has the precision.
        precision: 'int8' or 'fp32'.
        threads: of one matrix product.
        seconds: of the measuring, both together; three turns each that count are made in any case.
        most: seconds after which it is given up, whatever is missing; what has begun is finished.

    Returns:
        The encoders, onnxruntime's in any case, and what was measured of each; None where it was given up or
        a runtime beside onnxruntime does not work.

    Raises:
        ModelFolderError: onnxruntime cannot load the tower.
    """
    give_up = time.perf_counter() + most
    encoders: dict[str, TowerEncoder] = {}
    opening: dict[str, float] = {}
    for name, kind in track(ENCODERS.items(), "loading runtimes to compare", len(ENCODERS)):
        start = time.perf_counter()
        if encoders and start > give_up:
            return encoders, None
        encoder = kind(folder, precision, threads)
        height, width = encoder.preprocess.size
        pixels = np.random.default_rng(0).integers(0, 256, (BATCH, height, width, 3), np.uint8)
        try:
            encoder.encode_images(pixels[:1])
        except ModelFolderError:
            if name == "onnx":
                raise
            return encoders, None
        encoders[name], opening[name] = encoder, time.perf_counter() - start
    taken: dict[str, list[float]] = {name: [] for name in encoders}
    end = time.perf_counter() + seconds
    turns = 4  # the first batch of a size prepares for it, and counts not
    while time.perf_counter() < end or len(taken["onnx"]) < turns:
        for name, encoder in encoders.items():
            start = time.perf_counter()
            if start > give_up:
                return encoders, None
            encoder.encode_images(pixels)
            taken[name].append(time.perf_counter() - start)
    rates = {name: BATCH / max(float(np.median(times[1:])), 1e-6) for name, times in taken.items()}
    return encoders, {name: Measured(opening[name], rates[name]) for name in encoders}


def key_of(folder: ModelFolder, precision: str, threads: int) -> str:
    """Hash of everything that a measurement depends on: model, threads, processor and versions."""
    machine = cpu()
    found = versions("onnxruntime", "openvino")
    parts: list[Any] = [_WAY, folder.hash, precision, threads, machine.name, sorted(machine.features), found]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def recall(key: str) -> dict[str, Measured] | None:
    """What was measured under this key; None where nothing was, or its file is damaged."""
    try:
        return {name: Measured(**_entries()[key]["measured"][name]) for name in ENCODERS}
    except (KeyError, TypeError, ValueError):
        return None


def keep(key: str, measured: Measurements) -> None:
    """Writes a measurement for later calls; of 256 the oldest goes. What cannot be written is not kept."""
    folder = user_cache()
    if folder is None:
        return
    entries = {name: entry for name, entry in _entries().items() if name != key}
    entries[key] = {"at": time.time(), "measured": {name: asdict(one) for name, one in measured.items()}}
    newest = sorted(entries, key=lambda name: _age(entries[name]))[:_MOST_ENTRIES]
    with contextlib.suppress(OSError):  # where nobody may write it is measured again
        atomic.write_json(folder / FILE, {name: entries[name] for name in newest})


def _entries() -> dict[str, Any]:
    folder = user_cache()
    if folder is None:
        return {}
    file = folder / FILE
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
