"""A process with one encoder in it, which embeds when it is told to: `pathclip bench` starts one a runtime.

Orders come as JSON lines on stdin, answers go as JSON lines to stdout. It ends with its stdin.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import PathclipError
from pathclip.runtime.encoder import Encoder, Precision
from pathclip.runtime.tower import brief

TEXTS = (
    "an H&E image of lung adenocarcinoma",
    "signet ring cells in a gastric biopsy",
    "benign colon tissue",
)
LARGEST = 64  # pictures in a batch


@dataclass(frozen=True, slots=True)
class _Ready:
    """Stands for a Preprocess whose work is done, so that the tower alone is timed."""

    size: tuple[int, int]

    def batch(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        return images


def main(arguments: Sequence[str]) -> None:
    """Opens the encoder and answers orders.

    Args:
        arguments: folder, runtime, precision ('bf16' too), threads, and 'images' or 'texts'.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end ends this
    folder, runtime, precision, threads, what = arguments
    # What a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    start = time.perf_counter()
    try:
        encoder = _open(folder, runtime, precision, int(threads))
        embed = _embed(encoder, what)
        embed(1)
    except (Exception, SystemExit) as error:  # of any runtime: the others are measured all the same
        _say(answers, {"error": _told(error)})
        return
    _say(answers, {"opening": time.perf_counter() - start})
    for line in sys.stdin:
        try:
            _say(answers, {"seconds": _time(embed, json.loads(line)), "peak": peak_memory()})
        except (Exception, SystemExit) as error:
            _say(answers, {"error": _told(error)})


def _told(error: BaseException) -> str:
    """In one line."""
    return str(error) if isinstance(error, PathclipError) else f"{type(error).__name__}: {brief(error)}"


def _open(folder: str, runtime: str, precision: str, threads: int) -> Encoder:
    import pathclip

    if runtime != "openvino":
        return pathclip.load(folder, cast(Any, runtime), cast(Any, precision), threads)
    from pathclip.model_folder import open_model_folder
    from pathclip.runtime.openvino_encoder import OpenVinoEncoder

    kept: Precision = "int8" if precision == "int8" else "fp32"
    # As after a while of large batches, which is what a rate is for.
    return OpenVinoEncoder(
        open_model_folder(folder, verify=False), kept, threads, bf16=precision == "bf16", streams_after=0.0
    )


def _embed(encoder: Encoder, what: str) -> Callable[[int], object]:
    """A function that embeds a batch of so many."""
    if what == "texts":
        texts = [f"{TEXTS[number % len(TEXTS)]}, case {number}" for number in range(LARGEST)]
        return lambda n: encoder.encode_texts(texts[:n])
    size = encoder.preprocess.size
    pixels = np.random.default_rng(0).standard_normal((LARGEST, 3, *size), np.float32)
    cast(Any, encoder).preprocess = _Ready(size)
    return lambda n: encoder.encode_images(cast(Any, pixels)[:n], batch_size=n)


def _time(embed: Callable[[int], object], order: dict[str, Any]) -> list[float]:
    """Seconds of each call, for as long as the order says and `least` calls in any case."""
    taken: list[float] = []
    end = time.perf_counter() + order["seconds"]
    while len(taken) < order["least"] or time.perf_counter() < end:
        start = time.perf_counter()
        embed(order["batch"])
        taken.append(time.perf_counter() - start)
    return taken


def peak_memory() -> int | None:
    """Bytes that this process held at most; None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _say(answers: TextIO, value: dict[str, Any]) -> None:
    print(json.dumps(value), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
