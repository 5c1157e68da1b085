"""This project against `open_clip_train.main` of the installed package: images per second and peak memory.

    python scripts/bench_train.py                                   # ViT-B/32, fp32, on this CPU
    python scripts/bench_train.py --device cuda --precision bf16 --compile --batch 256 --workers 8
    python scripts/bench_train.py --variants --model lite ViT-B-32  # this project's own switches

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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

SKIPPED = 2  # steps before the clock starts: first touch of memory, of files, of the optimiser's state
WORDS = ("gland", "nuclei", "stroma", "with", "and", "of", "the", "pink", "chronic", "adenocarcinoma")
DISTINCT = 128  # pictures that are made; more are copies
PARTS = ("whole", "loader", "step")
NOTHING_AUGMENTED = (
    *("data.augment.dihedral=false", "data.augment.brightness=0", "data.augment.contrast=0"),
    *("data.augment.saturation=0", "data.augment.hue=0", "data.augment.grey=0"),
)
# What open_clip_train does to a picture: RandomResizedCrop of at least nine tenths of it.
CROPPED_AS_OPEN_CLIP = (
    "data.augment.scale=[0.9,1.0]",
    "data.augment.ratio=[0.75,1.3333]",
    *NOTHING_AUGMENTED,
)
VARIANTS = {
    "fp32": (),
    "channels_last": ("channels_last=true",),
    "bf16 autocast": ("trainer.precision=bf16-mixed",),
    "compile": ("compile=true",),
    "fused AdamW": ("optim.fused=true",),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One contender in one round; travels to its process as JSON."""

    contender: str  # 'pathclip' or 'open_clip_train'
    part: str  # of PARTS
    shards: str
    model: str
    batch: int
    steps: int
    workers: int
    precision: str
    device: str
    compile: bool
    overrides: Sequence[str] = ()


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
    parser.add_argument("--variants", action="store_true", help="this project's own switches, the step alone")
    parser.add_argument("--job", help=argparse.SUPPRESS)  # one contender, in a process of its own
    given = parser.parse_args()
    if given.job:
        contend(Job(**json.loads(given.job)))
        return
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
            (show_variants if given.variants else show_contest)(job, given)


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
    kinds = {name: overrides for name, overrides in VARIANTS.items() if composes(overrides)}
    left_out = sorted(VARIANTS.keys() - kinds.keys())
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
            [sys.executable, str(Path(__file__).resolve()), "--job", json.dumps(asdict(job))],
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


# In the process of one contender.


class Clock:
    """Counts steps; after the last one writes `result.json` and ends the process, loaders and all."""

    def __init__(self, job: Job):
        self.job, self.count = job, 0
        self.wall = self.processor = 0.0

    def tick(self, *_: Any) -> None:
        """After every step."""
        self.count += 1
        if self.count in (SKIPPED, SKIPPED + self.job.steps):
            self._synchronise()
            wall, processor = time.perf_counter(), processor_seconds()
            if self.count == SKIPPED:
                self.wall, self.processor = wall, processor
            else:
                self._finish(wall - self.wall, processor - self.processor)

    def _finish(self, wall: float, processor: float) -> None:
        import torch

        images = self.job.batch * self.job.steps
        gpu = torch.cuda.max_memory_allocated() / 1e9 if self.job.device == "cuda" else 0.0
        row = {"rate": images / wall, "work": 1000 * processor / images, "gpu": gpu}
        Path("result.json").write_text(json.dumps(row))
        os._exit(0)

    def _synchronise(self) -> None:
        if self.job.device == "cuda":
            import torch

            torch.cuda.synchronize()


def processor_seconds() -> float:
    """Of this process and of its children that still run."""
    times = [one.cpu_times() for one in [psutil.Process(), *psutil.Process().children(recursive=True)]]
    return sum(time.user + time.system for time in times)


def contend(job: Job) -> None:
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    clock = Clock(job)
    if job.part != "loader":
        register_optimizer_step_post_hook(clock.tick)
    (run_pathclip if job.contender == "pathclip" else run_open_clip_train)(job, clock.tick)
    raise SystemExit("the training ended before the last step that is measured")


def run_pathclip(job: Job, tick: Callable[[], None]) -> None:
    import lightning

    from pathclip.launch import compose
    from pathclip.shards.stream import StreamLoader
    from pathclip.train.train import train

    whole = StreamLoader.__iter__

    def one_batch_again_and_again(self: StreamLoader) -> Iterator[Any]:
        batch = next(iter(whole(self)))
        while True:
            yield batch

    def only_load(_: Any, __: Any, datamodule: Any, **___: Any) -> None:
        while True:
            for _batch in datamodule.train_dataloader():
                tick()

    if job.part == "step":
        StreamLoader.__iter__ = one_batch_again_and_again  # type: ignore[method-assign]
    if job.part == "loader":
        lightning.Trainer.fit = only_load  # type: ignore[method-assign]
    train(compose("train", ours(job)))


def ours(job: Job) -> list[str]:
    """The overrides that say what `theirs` says."""
    precision = {"fp32": "32-true", "bf16": "bf16-mixed"}[job.precision]
    model = {"ViT-B-32": ["model=vit_b_32"]}.get(job.model)
    if model is None:
        named = (Path(__file__).parents[1] / "conf" / "model" / f"{job.model}.yaml").is_file()
        model = [f"model={job.model}"] if named else ["model=vit_b_32", f"model.name={job.model}"]
    return [
        *model,
        *(f"data.train={job.shards}", "out=run", "loss=clip", f"data.batch_size={job.batch}"),
        *(f"data.workers={job.workers if job.part != 'step' else 0}", *CROPPED_AS_OPEN_CLIP),
        *("optim.lr=1e-5", "optim.weight_decay=0.1", "optim.betas=[0.9,0.98]", "optim.eps=1e-6"),
        *("trainer.max_epochs=1000", "callbacks.checkpoints.every_minutes=600"),
        *((f"trainer={'gpu' if job.device == 'cuda' else 'cpu'}"), "trainer.devices=1"),
        f"trainer.precision={precision}",
        *(["compile=true"] if job.compile else []),
        *job.overrides,
    ]


def run_open_clip_train(job: Job, tick: Callable[[], None]) -> None:
    import open_clip_train.data
    import open_clip_train.main as main

    # open_clip 3.3 does not know the mark that webdataset 1 sets at a shard's end: a KeyError, 'fname'.
    open_clip_train.data.tar_file_expander = partial(open_clip_train.data.tar_file_expander, eof_value=None)
    get_data = main.get_data

    class Repeated:
        def __init__(self, loader: Any):
            self.num_batches, self.num_samples = loader.num_batches, loader.num_samples
            self.batch = next(iter(loader))

        def __iter__(self) -> Iterator[Any]:
            while True:
                yield self.batch

    def repeating_data(*arguments: Any, **named: Any) -> Any:
        data = get_data(*arguments, **named)
        data["train"].dataloader = Repeated(data["train"].dataloader)
        return data

    def only_load(_: Any, data: Any, *__: Any, **___: Any) -> None:
        data["train"].set_epoch(0)
        for _batch in data["train"].dataloader:
            tick()

    if job.part == "step":
        main.get_data = repeating_data
    if job.part == "loader":
        main.train_one_epoch = only_load
    main.main(theirs(job))


def theirs(job: Job) -> list[str]:
    tars = sorted(str(path.resolve()) for path in Path(job.shards).glob("*.tar"))
    pattern = f"{Path(tars[0]).parent}/{{{','.join(Path(tar).stem for tar in tars)}}}.tar"
    return [
        *("--dataset-type", "webdataset", "--train-data", pattern),
        *("--train-num-samples", str(job.batch * (job.steps + SKIPPED + job.workers))),
        *("--model", job.model, "--batch-size", str(job.batch)),
        *("--workers", str(job.workers if job.part != "step" else 0)),
        *("--precision", {"fp32": "fp32", "bf16": "amp_bf16"}[job.precision], "--device", job.device),
        *("--lr", "1e-5", "--wd", "0.1", "--beta1", "0.9", "--beta2", "0.98", "--eps", "1e-6"),
        *("--warmup", "0", "--epochs", "1", "--grad-clip-norm", "1.0", "--log-every-n-steps", "1"),
        *("--logs", "logs", "--save-frequency", "0"),
        *(["--torchcompile"] if job.compile else []),
    ]


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
    from pathclip.export.gate import cpu_name

    if device == "cpu":
        return f"{cpu_name()}, {os.cpu_count()} cores"
    import torch

    return f"{torch.cuda.get_device_name()}, {cpu_name()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
