"""This project against `open_clip_train.main` of the installed package: images per second and peak memory.

    python scripts/bench_train.py                                   # ViT-B/32, fp32, on this CPU
    python scripts/bench_train.py --device cuda --precision bf16 --compile --batch 256 --workers 8
    python scripts/bench_train.py --model lite ViT-B-32 --variants  # this project's own switches

The same model, shards, batch, precision and threads, in turn, each time in a fresh process; AdamW, gradients
clipped at 1, no validation, no checkpoint while it is measured. Three lines: the whole training, the loader
alone, the step alone (one batch again and again). The clock of both is torch's own hook after the optimiser's
step, so nothing of what is measured is changed. Seconds of the processor are those of the process and of its
loaders: less disturbed than the wall clock where other work runs. Memory is the largest proportional set size
of all processes of a contender together; on a GPU, also what torch took of it. Prints Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import psutil
from bench_train_contender import SKIPPED, Job

WORDS = ("gland", "nuclei", "stroma", "with", "and", "of", "the", "pink", "chronic", "adenocarcinoma")
CONTENDER = Path(__file__).resolve().with_name("bench_train_contender.py")
DISTINCT = 128  # pictures that are made; more are copies
PARTS = ("whole", "loader", "step")
VARIANTS = {
    "fp32": (),  # the first row, which the others are compared with
    "channels_last": ("channels_last=true",),
    "bf16": ("trainer.precision=bf16-mixed",),
    "both": ("channels_last=true", "trainer.precision=bf16-mixed"),
    "compile": ("compile=true",),
    "fused": ("optim.fused=true",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["ViT-B-32"], help="open_clip's name; or a conf/model")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=6, help="that are measured, in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="loader processes")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the process that trains")
    parser.add_argument("--shards", help="folder; default: made of 768x1024 JPEGs")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--channels-last", action="store_true", help="this project only: the other has none")
    parser.add_argument(
        "--override", action="append", default=[], help="of this project, as in optim.fused=true"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--variants", nargs="*", choices=VARIANTS, help="this project's own switches, the step alone; all"
    )
    given = parser.parse_args()
    own = [*given.override, *(["channels_last=true"] if given.channels_last else [])]
    with tempfile.TemporaryDirectory() as folder:
        shards = given.shards or write_pictures(Path(folder) / "shards", given)
        print(
            f"{hardware(given.device)}; {given.threads} threads, {given.workers} loader process(es), "
            f"batch {given.batch}, {given.steps} steps in each of {given.rounds} rounds\n"
        )
        for model in given.model:
            job = Job(
                "pathclip",
                "step",
                shards,
                model,
                given.batch,
                given.steps,
                given.workers,
                given.precision,
                given.device,
                given.compile,
                own,
            )
            (show_contest if given.variants is None else show_variants)(job, given)


def show_contest(job: Job, given: argparse.Namespace) -> None:
    """The table of both contenders."""
    print(f"{job.model}, {job.precision}{', compiled' if job.compile else ''}\n")
    print(
        "| | images/s: pathclip | open_clip_train | ratio (95 % interval) | ms of processor per image "
        "| ratio | peak memory |\n|---|---|---|---|---|---|---|"
    )
    for part in given.parts:
        ours, theirs = in_turn(
            [replace(job, part=part), replace(job, part=part, contender="open_clip_train", overrides=())],
            given,
        )
        print(
            f"| {part} | {rate(ours):.2f} | {rate(theirs):.2f} | {ratio(ours, theirs, 'rate')} | "
            f"{work(ours):.0f}, {work(theirs):.0f} | {ratio(theirs, ours, 'work')} | "
            f"{memory_of(ours)}, {memory_of(theirs)} |",
            flush=True,
        )
    print()


def show_variants(job: Job, given: argparse.Namespace) -> None:
    """The table of this project's own switches."""
    asked = ["fp32", *(given.variants or VARIANTS)]
    kinds = {name: changes for name, changes in VARIANTS.items() if name in asked and composes(changes)}
    left_out = sorted(set(asked) - kinds.keys())
    absent = f" (no such key: {', '.join(left_out)})" if left_out else ""
    print(f"{job.model}, the step alone{absent}\n")
    print("| | images/s | ratio to fp32 (95 % interval) | peak memory |\n|---|---|---|---|")
    jobs = [replace(job, overrides=[*job.overrides, *overrides]) for overrides in kinds.values()]
    plain, *others = in_turn(jobs, given)
    for name, rows in zip(kinds, [plain, *others], strict=True):
        print(f"| {name} | {rate(rows):.2f} | {ratio(rows, plain, 'rate')} | {memory_of(rows)} |", flush=True)
    print()


def in_turn(jobs: Sequence[Job], given: argparse.Namespace) -> list[list[dict[str, float]]]:
    """Measures jobs A B A B …; the rows of each."""
    rows: list[list[dict[str, float]]] = [[] for _ in jobs]
    for number in range(given.rounds):
        order = range(len(jobs)) if number % 2 == 0 else reversed(range(len(jobs)))
        for index in order:
            rows[index].append(measured(jobs[index], given.threads))
    return rows


def measured(job: Job, threads: int) -> dict[str, float]:
    """Runs a job in a process of its own and watches its memory.

    Raises:
        SystemExit: it failed; with what it wrote.
    """
    environment = {
        **os.environ,
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)),
        **dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"), "1"),
    }
    peak = 0.0
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        process = psutil.Popen(
            [sys.executable, str(CONTENDER), json.dumps(asdict(job))],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        while process.poll() is None:
            peak = max(peak, memory(process))
            time.sleep(0.2)
        with contextlib.suppress(ProcessLookupError):  # loaders outlive the process that started them
            os.killpg(process.pid, signal.SIGKILL)
        result = Path(folder) / "result.json"
        if not result.is_file():
            log.seek(0)
            raise SystemExit(f"{job}\n{log.read().decode(errors='replace')[-3000:]}")
        return {**json.loads(result.read_text()), "peak": peak}


def memory(process: psutil.Process) -> float:
    """Proportional set size of a process and its children, GB."""
    try:
        return sum(one.memory_full_info().pss for one in [process, *process.children(recursive=True)]) / 1e9
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0


# Tables.


def rate(rows: list[dict[str, float]]) -> float:
    return float(np.median([row["rate"] for row in rows]))


def work(rows: list[dict[str, float]]) -> float:
    return float(np.median([row["work"] for row in rows]))


def memory_of(rows: list[dict[str, float]]) -> str:
    gpu = max(row["gpu"] for row in rows)
    return f"{max(row['peak'] for row in rows):.1f} GB" + (f" + GPU {gpu:.1f} GB" if gpu else "")


def ratio(over: list[dict[str, float]], under: list[dict[str, float]], what: str) -> str:
    """Geometric mean over rounds of the ratio of `what`, with a bootstrap interval over rounds."""
    logs = np.log([a[what] / b[what] for a, b in zip(over, under, strict=True)])
    means = np.random.default_rng(0).choice(logs, (10_000, len(logs))).mean(axis=1)
    low, high = np.exp(np.quantile(means, [0.025, 0.975]))
    return f"{np.exp(logs.mean()):.2f} ({low:.2f}–{high:.2f})"


def composes(overrides: Sequence[str]) -> bool:
    from pathclip.errors import ConfigError
    from pathclip.launch import compose

    try:
        compose("train", list(overrides))
    except ConfigError:
        return False
    return True


def write_pictures(folder: Path, given: argparse.Namespace) -> str:
    """Shards of JPEGs of 768x1024 with structure at every scale, about 200 KB each.

    Captions are as long as those of posts: half of them have 17 words or fewer (OpenPath, Huang et al. 2023).

    Of many pictures some have the same bytes, which saves making them and changes no time.
    """
    from PIL import Image

    from pathclip.shards.writer import Sample, write_shards

    rng = np.random.default_rng(0)
    count = max(8 * given.workers, given.batch * (given.steps + SKIPPED + 2 + 2 * given.workers))

    def pictures() -> Iterator[bytes]:
        for _ in range(min(count, DISTINCT)):
            picture = np.zeros((768, 1024, 3), np.float32)
            for edge in (4, 16, 64, 256):
                noise = rng.normal(0, 24, (3 * edge // 4, edge, 3)).clip(-60, 60) + 60
                layer = Image.fromarray(noise.astype(np.uint8)).resize((1024, 768), Image.Resampling.BICUBIC)
                picture += np.asarray(layer, np.float32) - 60
            buffer = io.BytesIO()
            Image.fromarray((picture + 140).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
            yield buffer.getvalue()

    jpegs = list(pictures())

    def samples() -> Iterator[Sample]:
        for index in range(count):
            words = int(np.clip(rng.lognormal(np.log(17), 0.5), 3, 60))
            caption = " ".join(rng.choice(WORDS, words))
            yield Sample(f"p{index:06d}", jpegs[index % len(jpegs)], caption, {"group": f"p{index}"})

    write_shards(folder, samples(), samples_per_shard=-(-count // max(4, 2 * given.workers)))
    return str(folder)


def hardware(device: str) -> str:
    from pathclip.runtime.cpu import cpu

    if device == "cpu":
        return f"{cpu().name}, {os.cpu_count()} cores"
    import torch

    return f"{torch.cuda.get_device_name()}, {cpu().name}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
