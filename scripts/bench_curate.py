"""How curation grows with the dump: whole runs over posts, and the search for duplicates among pictures.

    python scripts/bench_curate.py --posts 10000 100000 1000000 --pictures 10000 100000 1000000

The dumps are planned like the synthetic feed, in blocks, without drawing a picture: every post goes through
reading, the rules on words, and the look for its picture, which is not there. The pictures are rows of a
ledger with random hashes, one in twenty a near-duplicate of another. Peak memory is the proportional set size
of all processes together. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

BLOCK = 10_000  # posts that are planned at a time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--posts", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--pictures", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # measured in a process of its own
    arguments = parser.parse_args()
    if arguments.one:
        pair_up(arguments.one)
        return
    print(f"{cpu()}, {arguments.workers} workers\n")
    print("| posts | dump | seconds | posts/s | peak memory |\n|---|---|---|---|---|")
    for count in arguments.posts:
        with tempfile.TemporaryDirectory() as folder:
            dump = Path(folder) / "posts.jsonl"
            write_dump(dump, count)
            command = ["curate", "source=twitter", f"source.posts={dump}", f"out={folder}/out"]
            seconds, peak = measured(
                [sys.executable, "-m", "pathclip", *command, f"workers={arguments.workers}"], allowed=(0, 1)
            )
            size = dump.stat().st_size / 1e6
            print(
                f"| {count:,} | {size:,.0f} MB | {seconds:.0f} | {count / seconds:,.0f} | {peak:.0f} MB |",
                flush=True,
            )
    print("\n| pictures | seconds | pictures/s | peak memory |\n|---|---|---|---|")
    for count in arguments.pictures:
        seconds, peak = measured([sys.executable, __file__, "--one", str(count)])
        print(f"| {count:,} | {seconds:.0f} | {count / seconds:,.0f} | {peak:.0f} MB |", flush=True)


def write_dump(path: Path, count: int) -> None:
    """A dump of the API v2 with `count` posts, a page per line."""
    from pathclip.sources.synthetic_pages import POSTS_PER_PAGE, page
    from pathclip.sources.synthetic_plan import plan_feed

    with path.open("w", encoding="utf-8") as file:
        for seed, start in enumerate(range(0, count, BLOCK)):
            plans = plan_feed(min(BLOCK, count - start), seed, 160)
            known = {plan.id: plan for plan in plans}
            for number in range(0, len(plans), POSTS_PER_PAGE):
                some = plans[number : number + POSTS_PER_PAGE]
                file.write(json.dumps(page(some, known, 160, token="")) + "\n")


def pair_up(count: int) -> None:
    """Makes pairs of `count` pictures and divides them, as curation does after it has looked at them."""
    from pathclip.curate.dedup import DedupSettings
    from pathclip.curate.divide import divide
    from pathclip.curate.ledger import Ledger
    from pathclip.curate.pairs import make_pairs
    from pathclip.curate.split import SplitSettings

    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger", "bench") as ledger:
        ledger.write(
            "insert into candidate (id, post, grp, author, moment, created_at, media, text, source, versions)"
            " values (?, ?, ?, ?, ?, ?, ?, ?, 'twitter', '')",
            (
                (
                    f"{n}_3_{n}",
                    f"{n}",
                    f"twitter:{n}",
                    "",
                    n,
                    f"2022-01-01T00:00:00.{n:07d}",
                    f"{n}",
                    f"caption {n}",
                )
                for n in range(count)
            ),
        )
        ledger.write(
            "insert into picture values (?, 0, '', '', '', ?, 224, 224, ?, '[]', null)",
            ((f"{n}", f"{n:064x}", digits) for n, digits in enumerate(_hashes(count))),
        )
        make_pairs(ledger, DedupSettings())
        divide(ledger, SplitSettings(), DedupSettings())


def _hashes(count: int) -> Iterator[str]:
    rng = np.random.default_rng(0)
    for start in range(0, count, 1000):
        hashes = rng.integers(0, 2**64, (min(1000, count - start), 8), dtype=np.uint64)
        hashes[20::20, 3] = hashes[19:-1:20, 0] ^ np.uint64(0b10110)
        yield from ("".join(f"{value:016x}" for value in row) for row in hashes.tolist())


def measured(command: list[str], allowed: tuple[int, ...] = (0,)) -> tuple[float, float]:
    """Seconds and peak memory in MB of a command and all processes that it starts."""
    started, peak = time.perf_counter(), 0.0
    with tempfile.TemporaryFile() as log:
        process = psutil.Popen(command, stdout=log, stderr=log)
        while process.poll() is None:
            peak = max(peak, memory(process))
            time.sleep(0.2)
        if process.returncode not in allowed:
            log.seek(0)
            raise SystemExit(log.read().decode(errors="replace"))
    return time.perf_counter() - started, peak


def memory(process: psutil.Process) -> float:
    total = 0
    try:
        for one in [process, *process.children(recursive=True)]:
            total += one.memory_full_info().pss
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        pass
    return total / 1e6


def cpu() -> str:
    lines = subprocess.run(["lscpu"], capture_output=True, text=True, check=False).stdout.splitlines()
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("Model name")), "unknown CPU"
    )


if __name__ == "__main__":
    main()
