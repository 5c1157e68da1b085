"""Training on a Ray cluster, one process per worker; the same overrides as `pathclip train`.

    python scripts/train_on_ray.py --workers 2 model=tiny data.train=shards/train out=outputs/train/on_ray
    python scripts/train_on_ray.py --address auto --workers 16 --gpu trainer=gpu data.train=s3://… out=/run

`out` must lie where every machine sees it. Workers that are lost are started again, up to `--restarts` times,
and go on from the last checkpoint, as they do when the command is given once more.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from pathclip.errors import PathclipError
from pathclip.launch import compose


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, required=True, help="processes; one per GPU with --gpu")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--cpus", type=int, default=1, help="of each worker, its loaders included")
    parser.add_argument("--address", help="of a cluster, as in 'auto'; default: this machine alone")
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("overrides", nargs="*", help="key=value, as for pathclip train; out is needed")
    given = parser.parse_args()
    out = next((word.removeprefix("out=") for word in given.overrides if word.startswith("out=")), None)
    if out is None:
        parser.error("out=…: name the run folder; every worker must see it")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A driver that `uv run` or pytest started would hand its own command on to the workers.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    overrides = [
        *(word for word in given.overrides if not word.startswith("out=")),
        f"out={Path(out).resolve()}",
    ]
    try:
        compose("train", overrides)  # a misspelt key is found before a cluster is asked for anything
    except PathclipError as error:
        print(f"train_on_ray: {error}", file=sys.stderr)
        return 1
    return run(overrides, str(Path(out).resolve()), given)


def run(overrides: list[str], out: str, given: argparse.Namespace) -> int:
    """Trains; returns the exit status."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    local = {} if given.address else {"num_cpus": given.workers * given.cpus, "include_dashboard": False}
    ray.init(address=given.address, **local)
    result = TorchTrainer(
        train_in_worker,
        train_loop_config={"overrides": overrides, "out": out},
        torch_config=TorchConfig(backend="nccl" if given.gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=given.workers, use_gpu=given.gpu, resources_per_worker={"CPU": given.cpus}
        ),
        run_config=RunConfig(
            name="ray", storage_path=out, failure_config=FailureConfig(max_failures=given.restarts)
        ),
    ).fit()
    metrics = result.metrics or {}
    if "mistake" in metrics:
        print(f"train_on_ray: {metrics['mistake']}", file=sys.stderr)
        return 1
    print(", ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items()) if "/" in name))
    return 0


def train_in_worker(settings: dict[str, Any]) -> None:
    """In every worker: looks to Lightning like a process of torchrun's, and trains."""
    import ray.train

    context = ray.train.get_context()
    local = context.get_local_world_size()
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "ray",
        "RANK": str(context.get_world_rank()),
        "LOCAL_RANK": str(context.get_local_rank()),
        "GROUP_RANK": str(context.get_node_rank()),
        "WORLD_SIZE": str(context.get_world_size()),
        "LOCAL_WORLD_SIZE": str(local),
    }
    from pathclip.train.train import train

    kept = Path(settings["out"]) / "checkpoints"
    resume = ["ckpt=last"] if any((kept / name).is_file() for name in ("last.ckpt", "previous.ckpt")) else []
    placed = [
        *("trainer.strategy=ddp", f"trainer.devices={local}"),
        f"+trainer.num_nodes={context.get_world_size() // local}",
    ]
    try:
        metrics: dict[str, Any] = train(compose("train", [*settings["overrides"], *placed, *resume])).metrics
    except PathclipError as error:  # raised on, Ray would start the workers again for the same mistake
        metrics = {"mistake": str(error)}
    ray.train.report(metrics)


if __name__ == "__main__":
    sys.exit(main())
