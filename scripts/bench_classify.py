"""Measures a cold `pathclip classify`: the whole process, from its start to its end, with a warm page cache.

    .venv/bin/python scripts/bench_classify.py FOLDER [FOLDER …] [--picture FILE] [--repeats 9]
        [--labels "tumour,normal"] [--runtime onnx]

Of each model folder two calls are measured, which take turns: 'known labels', whose embeddings lie in the
folder or in the cache since an earlier call, and 'new labels', for which the text tower is loaded. Wall time,
processor time and peak memory are those of the child alone, told by `os.wait4` to a bare interpreter: a
process that is forked from a large one would begin with its peak.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from bench_preprocess import cpu, micrograph

# Runs a command and prints its wall seconds, processor seconds, peak KiB and status.
WATCH = """
import json, os, sys, time
start = time.perf_counter()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ,
                       file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
_, status, used = os.wait4(child, 0)
wall = time.perf_counter() - start
print(json.dumps([wall, used.ru_utime + used.ru_stime, used.ru_maxrss, os.waitstatus_to_exitcode(status)]))
"""
KNOWN, NEW = "known labels", "new labels"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="model folders")
    parser.add_argument("--picture", type=Path, help="without it a JPEG of 512 pixels is drawn")
    parser.add_argument("--labels", default="colon adenocarcinoma,benign colon tissue")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--runtime", default="onnx")
    arguments = parser.parse_args()

    found: dict[tuple[Path, str], list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        picture = arguments.picture or Path(scratch) / "tile.jpg"
        if arguments.picture is None:
            micrograph(0, 512).save(picture, quality=90)
        environment = {**os.environ, "PATHCLIP_CACHE": str(Path(scratch) / "cache")}
        for repeat in range(-1, arguments.repeats):  # the first round warms the page cache
            for folder in arguments.folders:
                for kind in (KNOWN, NEW):
                    labels = arguments.labels if kind == KNOWN else f"{arguments.labels},kind {repeat}"
                    command = [sys.executable, "-m", "pathclip", "classify", str(folder), str(picture)]
                    command += ["--labels", labels, "--runtime", arguments.runtime]
                    measured = watch(command, environment)
                    if repeat >= 0:
                        found.setdefault((folder, kind), []).append(measured)

    print(f"{cpu()}; n {arguments.repeats}, the calls take turns")
    print(f"{'':44}{'wall: median':>13}{'least':>8}{'most':>8}{'CPU':>8}   peak memory")
    for (folder, kind), rows in found.items():
        wall, processor, peak = np.array(rows).T
        times = f"{statistics.median(wall):11.2f} s{wall.min():8.2f}{wall.max():8.2f}"
        middle = statistics.median(processor)
        print(f"{str(folder)[-30:]:30}{kind:14}{times}{middle:8.2f}{peak.max() / 1024:10.0f} MiB")


def watch(command: list[str], environment: dict[str, str]) -> list[float]:
    """Wall seconds, processor seconds and peak KiB of a command."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", WATCH, *command],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=environment,
    )
    *measured, status = json.loads(done.stdout)
    if status:
        raise SystemExit(f"{' '.join(command)}: status {status}")
    return measured


if __name__ == "__main__":
    main()
