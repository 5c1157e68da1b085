"""One contender of `bench_train.py`, in a process of its own: trains until enough steps are measured.

python scripts/bench_train_contender.py JOB    # JSON of a Job; writes result.json into the current folder
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

SKIPPED = 2  # steps before the clock starts: first touch of memory, of files, of the optimiser's state
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


if __name__ == "__main__":
    contend(Job(**json.loads(sys.argv[1])))
