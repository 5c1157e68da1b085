"""Memory and speed of retrieval on random unit vectors in files, measured in a process of its own.

    python scripts/bench_retrieval.py --n 1000000 --dim 512 --queries 4096

All n items are searched for the first `--queries` of n queries; the time for all n is extrapolated. Texts are
shared as in a real feed: the most frequent one by `--skew` of all pairs, others by a few. Two files of n
vectors are written, block by block, into a temporary folder, and deleted. Peak memory is that of the measured
process alone, its libraries and mapped pages included: below 2 GB for a million pairs. It is that of the
search; the scores with their intervals, the answers kept for comparison and the report come on top. Needs
Linux, which tells a process's peak in /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BLOCK = 20_000  # vectors that are drawn at a time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=4096)
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--definition", choices=("exact_pair", "same_text_or_group"), nargs="*")
    parser.add_argument("--skew", type=float, default=0.002)
    parser.add_argument("--folder", help="where the files go for the time of the run; default: temporary")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # folder; the call in a process of its own
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for seed, name in enumerate(("queries", "items")):
            write_vectors(Path(folder) / f"{name}.npy", arguments.n, arguments.dim, arguments.dtype, seed)
        size = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e9
        command = [sys.executable, __file__, *sys.argv[1:], "--measure", folder]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(run.stderr)
    found = json.loads(run.stdout)
    pairs = arguments.queries * arguments.n
    whole = found["seconds"] * arguments.n / arguments.queries
    print(f"{arguments.n:,} pairs, {arguments.dim} x {arguments.dtype}, {size:.2f} GB in two files")
    print(f"{arguments.queries:,} queries, definitions: {', '.join(found['definitions'])}")
    print(f"relevant items of a query: up to {found['positives']:,}")
    print(f"seconds: {found['seconds']:.1f}, {pairs / found['seconds'] / 1e6:.0f} million pairs/s")
    print(f"of processor time: {found['processor']:.1f}, {found['processor'] / pairs * 1e9:.0f} ns per pair")
    print(f"extrapolated to all {arguments.n:,} queries: {whole / 3600:.2f} hours per direction")
    print(f"peak memory: {found['peak_gb']:.2f} GB, before the search {found['before_gb']:.2f} GB")
    for name, figures in found["figures"].items():
        print(f"{name}: {', '.join(f'{key} {value:.3g}' for key, value in figures.items())}")


def write_vectors(path: Path, n: int, dim: int, dtype: str, seed: int) -> None:
    """Random unit vectors; those of equal row in both files have something in common."""
    file = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(n, dim))
    for start in range(0, n, BLOCK):
        rows = min(BLOCK, n - start)
        common = np.random.default_rng([2, start]).standard_normal((rows, dim), np.float32)
        block = common + 3 * np.random.default_rng([seed, start]).standard_normal((rows, dim), np.float32)
        file[start : start + rows] = block / np.linalg.norm(block, axis=1, keepdims=True)
    file.flush()


def measure(arguments: argparse.Namespace) -> None:
    from pathclip.evaluate.image_text.retrieval import DEFINITIONS, Relevance, places, recall_at

    folder = Path(arguments.measure)
    queries, items = (
        np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("queries", "items")
    )
    n = arguments.n
    texts = np.arange(n) // 3
    texts[np.random.default_rng(0).random(n) < arguments.skew] = n
    groups = np.arange(n) // 5
    definitions = arguments.definition or list(DEFINITIONS)
    relevant = [Relevance(definition, texts, groups) for definition in definitions]
    before, start, processor = peak(), time.perf_counter(), time.process_time()
    found = places(queries[: arguments.queries], items, relevant)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    figures = {
        definition: {
            "R@10": float(recall_at(10, one.rank).mean()),
            "median rank": float(np.median(one.rank)),
            "mAP": float(one.average_precision.mean()),
        }
        for definition, one in zip(definitions, found, strict=True)
    }
    positives = max(int(one.positives()[: arguments.queries].max()) for one in relevant)
    result = {"seconds": seconds, "processor": processor, "before_gb": before, "peak_gb": peak()}
    print(json.dumps({**result, "figures": figures, "definitions": definitions, "positives": positives}))


def peak() -> float:
    """GB that this process had in memory at most: not that of the one that started it, as getrusage has."""
    lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9


if __name__ == "__main__":
    main()
