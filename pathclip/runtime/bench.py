"""How fast a folder runs by every runtime: processes that each hold one, told to work one at a time.

Peak memory is a process's own, and a busy moment of the machine meets all alike: rounds go through the
runtimes in turn, and ratios are formed within a round.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import numpy as np

from pathclip.errors import ConfigError
from pathclip.model_folder import WEIGHTS, ModelFolder
from pathclip.progress import track
from pathclip.runtime import openvino_encoder
from pathclip.runtime.cpu import Cpu
from pathclip.runtime.energy import EnergyMeter
from pathclip.runtime.processes import interrupts_held, own_code_only

BATCHES = (1, 8, 16, 32)
ROUNDS = 5
COMPARED_AT = 16  # batch at which runtimes are compared
What = Literal["images", "texts"]
_BF16 = ("avx512_bf16", "amx_bf16", "avx_ne_convert")


class Contender(NamedTuple):
    """A runtime with a precision."""

    runtime: str
    precision: str

    def __str__(self) -> str:
        names = {"onnx": "onnxruntime", "openvino": "OpenVINO"}
        return f"{names.get(self.runtime, self.runtime)} {self.precision}"


REFERENCE = Contender("torch", "fp32")
CONTENDERS = (
    REFERENCE,
    *(Contender("onnx", precision) for precision in ("fp32", "int8")),
    *(Contender("openvino", precision) for precision in ("fp32", "bf16", "int8")),
)


@dataclass(slots=True)
class Timed:
    """What was measured of one contender.

    Attributes:
        opening: seconds from the start of loading to the first embedding, with the runtime's import.
        rates: batch → images (or texts) per second, one number a round.
        latencies: seconds of every call with a batch of one.
        peak: bytes of memory that its process held at most, or None.
        joules: for one image at batch 16, of the whole processor, one number a round; empty where the
            machine does not tell.
    """

    opening: float
    rates: dict[int, list[float]] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    peak: int | None = None
    joules: list[float] = field(default_factory=list)

    def rate(self, batch: int) -> float:
        """Median over the rounds."""
        return statistics.median(self.rates[batch])

    def ratio(self, other: Timed, batch: int = COMPARED_AT) -> float:
        """How many times faster than another: median of the ratios within rounds."""
        pairs = zip(self.rates[batch], other.rates[batch], strict=True)
        return statistics.median(mine / its for mine, its in pairs)

    def latency(self, percentile: float) -> float:
        """Seconds of a batch of one."""
        return float(np.percentile(self.latencies, percentile))


@dataclass(frozen=True, slots=True)
class Bench:
    """What a run gives.

    Attributes:
        timed: of each contender that ran.
        missing: why the others did not.
    """

    timed: Mapping[Contender, Timed]
    missing: Mapping[Contender, str]


def bench(
    folder: ModelFolder,
    machine: Cpu,
    threads: int,
    seconds: float = 2.0,
    what: What = "images",
    batches: Sequence[int] = BATCHES,
) -> Bench:
    """Times every runtime that the folder and the installation offer.

    Args:
        folder: an open model folder.
        machine: the processor.
        threads: of one matrix product, in every runtime.
        seconds: for each contender and batch size, all rounds together; a round makes one call at least.
        what: 'images' times the image tower without preprocessing; 'texts' the text tower with its tokenizer.
        batches: sizes, 1 and 16 among them.

    Raises:
        ConfigError: the folder holds nothing that runs here.
    """
    missing = {one: why for one in CONTENDERS if (why := reason_against(one, folder, machine, what))}
    meter = EnergyMeter()
    with contextlib.ExitStack() as stack:
        workers: dict[Contender, _Worker] = {}
        timed: dict[Contender, Timed] = {}
        for one in track([one for one in CONTENDERS if one not in missing], "loading"):
            worker = stack.enter_context(_worker(folder, one, threads, what))
            answer = worker.answer()
            if "error" in answer:
                missing[one] = answer["error"]
            else:
                workers[one], timed[one] = worker, Timed(answer["opening"])
        _run_rounds(workers, timed, missing, batches, seconds / ROUNDS, meter)
    ran = {one: timed[one] for one in CONTENDERS if one in timed and one not in missing}
    if not ran:
        raise ConfigError(f"{folder.path}: nothing in it runs here: {'; '.join(missing.values())}")
    return Bench(ran, {one: missing[one] for one in CONTENDERS if one in missing})


def reason_against(one: Contender, folder: ModelFolder, machine: Cpu, what: What = "images") -> str | None:
    """Why a contender cannot run, and what to do for it; None if it can."""
    if one.runtime == "torch":
        if not folder.has(WEIGHTS):
            return "the folder has no safetensors: pathclip export … keep_torch=true"
        return None if find_spec("torch") else "torch is not installed: pip install 'pathclip[train]'"
    if one.runtime == "openvino" and not openvino_encoder.is_installed():
        return "OpenVINO is not installed: pip install 'pathclip[openvino]'"
    tower, precision = what.removesuffix("s"), "int8" if one.precision == "int8" else "fp32"
    for needed in {"image", tower}:  # an encoder always has an image tower
        if not folder.has(f"onnx/{needed}_{precision}.onnx"):
            keep = " keep_fp32=true" if precision == "fp32" else ""
            return f"the folder has no onnx/{needed}_{precision}.onnx: pathclip export …{keep}"
    if one.precision == "bf16" and not machine.features & {*_BF16, "bf16"}:
        return "the processor has no bfloat16"
    return None


def _run_rounds(
    workers: Mapping[Contender, _Worker],
    timed: Mapping[Contender, Timed],
    missing: dict[Contender, str],
    batches: Sequence[int],
    seconds: float,
    meter: EnergyMeter,
) -> None:
    """All batch sizes, each in rounds through the workers, after one call each that counts not."""
    steps = [(batch, round_) for batch in batches for round_ in range(-1, ROUNDS)]
    for batch, round_ in track(steps, "measuring"):
        for one, worker in workers.items():
            if one in missing:
                continue
            before = meter.read()
            answer = worker.time(batch, seconds if round_ >= 0 else 0.0)
            if "error" in answer:
                missing[one] = answer["error"]
            elif round_ >= 0:
                _note(timed[one], batch, answer, meter.joules(before) if meter.told else None)


def _note(timed: Timed, batch: int, answer: Mapping[str, Any], joules: float | None) -> None:
    calls = answer["seconds"]
    timed.rates.setdefault(batch, []).append(batch * len(calls) / max(sum(calls), 1e-9))
    timed.peak = answer["peak"]
    if batch == 1:
        timed.latencies += calls
    if batch == COMPARED_AT and joules is not None:
        timed.joules.append(joules / (batch * len(calls)))


class _Worker:
    """A process of `pathclip.runtime.bench_worker`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def time(self, batch: int, seconds: float) -> dict[str, Any]:
        """Lets it embed batches for so long; gives the seconds of each call and the peak of memory."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"batch": batch, "seconds": seconds, "least": 1}) + "\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it has ended; its answer says so
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """What it says next; an 'error' where it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return dict(json.loads(line))
        status = self._process.wait()
        return {
            "error": f"its process ended with status {status}" + (", out of memory?" if status == -9 else "")
        }


@contextlib.contextmanager
def _worker(folder: ModelFolder, one: Contender, threads: int, what: What) -> Iterator[_Worker]:
    command = [sys.executable, "-m", "pathclip.runtime.bench_worker"]
    with interrupts_held():
        process = subprocess.Popen(
            [*command, str(folder.path), *one, str(threads), what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=own_code_only(),
        )
    try:
        yield _Worker(process)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]
