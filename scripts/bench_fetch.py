"""Fetching pictures, compared with img2dataset on one loopback server: pace, manners, and after a kill.

python -m venv /tmp/other && /tmp/other/bin/pip install img2dataset==1.47.0   # it pins older packages
python scripts/bench_fetch.py --img2dataset /tmp/other/bin/python

Nothing leaves the machine. Without --img2dataset its columns are left out. Both programs run in processes of
their own with as many requests at a time; img2dataset keeps the bytes as they come (pace) or decodes to check
them (manners), each time what suits it best.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.curate.feed import jpeg, tissue
from tests.curate.picture_server import Answer, Asked, PictureServer

PATHCLIP = """
import json, sys, time
from pathclip.curate.fetch import FetchSettings, fetch
urls, folder, options = open(sys.argv[1]).read().split(), sys.argv[2], json.loads(sys.argv[3])
settings = FetchSettings(allow_private=True, per_host=options["at_once"], concurrency=options["at_once"],
    timeout=2.0, total_timeout=8.0, retries=3, max_bytes=10_000_000)
begun = time.monotonic()
kept = sum(one.path is not None for one in fetch(((url, url) for url in urls), folder, settings))
print(json.dumps({"kept": kept, "seconds": time.monotonic() - begun}))
"""
IMG2DATASET = """
import json, sys, time, pathlib
from img2dataset import download
options = json.loads(sys.argv[3])
begun = time.monotonic()
download(url_list=sys.argv[1], output_folder=sys.argv[2], thread_count=options["at_once"], processes_count=1,
    output_format="files", resize_mode="no", skip_reencode=True, disable_all_reencoding=options["as_is"],
    extract_exif=False, compute_hash=None, timeout=2, retries=3)
kept = sum(1 for path in pathlib.Path(sys.argv[2]).rglob("*.jpg"))
print("\\n" + json.dumps({"kept": kept, "seconds": time.monotonic() - begun}))
"""
LARGE = 60_000_000  # bytes of the large file: bounded, as one of the two reads all of it


@dataclass(frozen=True)
class Run:
    """What one process did: pictures kept, seconds of its own clock, processor seconds with its start."""

    kept: int
    seconds: float
    processor: float


def pictures() -> list[bytes]:
    """Sixteen pictures of about 30 KB."""
    return [jpeg(tissue(seed, 300), 80) for seed in range(16)]


def command(tool: str, python: Mapping[str, str], urls: Path, folder: Path, options: Any) -> list[str]:
    code = {"pathclip": PATHCLIP, "img2dataset": IMG2DATASET}[tool]
    return [python[tool], "-c", code, str(urls), str(folder), json.dumps(options)]


def run(arguments: list[str], limit: float = 180) -> Run:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=limit, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(f"{arguments[0]} failed:\n{done.stderr[-2000:]}")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    last = json.loads(done.stdout.strip().splitlines()[-1])
    return Run(last["kept"], last["seconds"], processor)


def table(header: list[str], rows: list[list[str]]) -> None:
    for row in [header, ["---"] * len(header), *rows]:
        print("| " + " | ".join(row) + " |", flush=True)
    print()


def pace(python: Mapping[str, str], count: int, repeats: int, at_once: int) -> None:
    """Pictures per second between the first request and the last answer, as the server saw it."""
    bodies = pictures()
    rows = []
    for wait in (0.0, 0.05):
        rates: dict[str, list[float]] = {tool: [] for tool in python}
        processor: dict[str, list[float]] = {tool: [] for tool in python}
        for _ in range(repeats):
            for tool in python:
                ended: list[float] = []

                def answer(asked: Asked, wait: float = wait, ended: list[float] = ended) -> Answer:
                    ended.append(time.monotonic())
                    return Answer(bodies[asked.number % len(bodies)], wait=wait)

                with tempfile.TemporaryDirectory() as folder, PictureServer({"/a.jpg": answer}) as server:
                    urls = Path(folder) / "urls.txt"
                    urls.write_text("\n".join(server.url(f"/a.jpg?{n}") for n in range(count)))
                    options = {"at_once": at_once, "as_is": True}
                    seen = run(command(tool, python, urls, Path(folder) / "out", options))
                assert seen.kept == count, (tool, seen)
                rates[tool].append(count / (ended[-1] + wait - ended[0]))
                processor[tool].append(1000 * seen.processor / count)
        for tool in python:
            low, high = min(rates[tool]), max(rates[tool])
            rows.append(
                [
                    f"{1000 * wait:.0f} ms",
                    tool,
                    f"{statistics.median(rates[tool]):.0f} ({low:.0f} to {high:.0f})",
                    f"{statistics.median(processor[tool]):.1f}",
                ]
            )
    size = sum(map(len, bodies)) / len(bodies) / 1000
    print(
        f"{count} pictures of {size:.0f} KB, {at_once} at a time, median (range) of {repeats} runs in turn:\n"
    )
    table(["server waits", "", "pictures/s", "processor ms per picture, with the start"], rows)


def cases() -> dict[str, Any]:
    """What a server may do → its answer."""
    picture = pictures()[0]
    since: dict[str, float] = {}

    def busy(asked: Asked) -> Answer:
        begun = since.setdefault(asked.path, time.monotonic())
        ready = asked.number > 1 and time.monotonic() - begun >= 1
        return Answer(picture) if ready else Answer(b"", 503, {"Retry-After": "1"})

    def failing(asked: Asked) -> Answer:
        return Answer(picture) if asked.number == 3 else Answer(b"", 500)

    def robots(value: str) -> Answer:
        return Answer(picture, headers={"X-Robots-Tag": value})

    return {
        "a fine picture": Answer(picture),
        "500 twice, then fine": failing,
        "503 for 1 s with Retry-After: 1": busy,
        "404": Answer(b"", 404),
        "silence in the middle": Answer(picture[:9000], length=len(picture), stall=20),
        "a byte every 0.2 s for 20 s": Answer(picture[:100], length=len(picture), trickle=0.2),
        "half of the body": Answer(picture[:9000], length=len(picture), stall=0.01),
        "a file of 60 MB (cap: 10 MB)": Answer(picture + bytes(LARGE)),
        "HTML as image/jpeg": Answer(b"<!DOCTYPE html><html><body>log in</body></html>"),
        "X-Robots-Tag: noai": robots("noai"),
        "X-Robots-Tag: max-snippet: 0, noai": robots("max-snippet: 0, noai"),
        "X-Robots-Tag: otherbot: noai": robots("otherbot: noai"),
        "tdm-reservation: 1": Answer(picture, headers={"tdm-reservation": "1"}),
    }


def manners(python: Mapping[str, str]) -> None:
    rows = []
    for name in cases():
        row = [name]
        for tool in python:
            with (
                tempfile.TemporaryDirectory() as folder,
                PictureServer({"/a.jpg": cases()[name]}) as server,
            ):
                urls = Path(folder) / "urls.txt"
                urls.write_text(server.url("/a.jpg"))
                options = {"at_once": 4, "as_is": False}
                seen = run(command(tool, python, urls, Path(folder) / "out", options))
                row += [
                    "kept" if seen.kept else "left out",
                    str(server.requests["/a.jpg"]),
                    f"{server.sent_bytes / 1e6:.1f}",
                    f"{seen.seconds:.1f}",
                ]
        rows.append(row)
    header = ["server"]
    for tool in python:
        header += [tool, "requests", "MB sent", "s"]
    print("One picture each; timeout 2 s, 3 retries, pathclip's total timeout 8 s:\n")
    table(header, rows)


def after_a_kill(python: Mapping[str, str], count: int, at_once: int) -> None:
    """Kills a run half-way and counts what the next one asks for."""
    bodies = pictures()
    rows = []
    for tool in python:
        answered = Answer(bodies[0], wait=0.02)
        with tempfile.TemporaryDirectory() as folder, PictureServer({"/a.jpg": answered}) as server:
            urls = Path(folder) / "urls.txt"
            urls.write_text("\n".join(server.url(f"/a.jpg?{n}") for n in range(count)))
            arguments = command(tool, python, urls, Path(folder) / "out", {"at_once": at_once, "as_is": True})
            # A session of its own, so that its helpers end with it and nobody else does.
            with subprocess.Popen(
                arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
            ) as killed:
                while server.requests.total() < count // 2 and killed.poll() is None:
                    time.sleep(0.01)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(killed.pid, signal.SIGKILL)
            before = server.requests.total()
            seen = run(arguments)
            rows.append([tool, str(before), str(server.requests.total() - before), str(seen.kept)])
    print(f"Killed (SIGKILL) half-way through {count} pictures, then run again:\n")
    table(["", "requests before", "requests of the next run", "pictures in the end"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--img2dataset", metavar="PYTHON", help="of an environment that has img2dataset")
    parser.add_argument("--count", type=int, default=2000, help="pictures of the measurement of pace")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=32, help="requests at a time")
    chosen = parser.parse_args()
    python = {"pathclip": sys.executable}
    versions = []
    if chosen.img2dataset and Path(chosen.img2dataset).is_file():
        python["img2dataset"] = chosen.img2dataset
        asked = "import importlib.metadata as m; print(m.version('img2dataset'))"
        found = subprocess.run([chosen.img2dataset, "-c", asked], capture_output=True, text=True, check=True)
        versions = [f"img2dataset {found.stdout.strip()}"]
    from pathclip.runtime.cpu import cpu

    print(", ".join([cpu().name, f"{os.cpu_count()} cores", *versions]) + "\n", flush=True)
    pace(python, chosen.count, chosen.repeats, chosen.at_once)
    manners(python)
    after_a_kill(python, chosen.count, chosen.at_once)


if __name__ == "__main__":
    main()
