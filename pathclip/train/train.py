"""`train(cfg)`: from a config to a model folder, top to bottom."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from pathclip import atomic
from pathclip.config import build, check_values, output_folder
from pathclip.errors import ConfigError, PathclipError
from pathclip.model.towers import Towers
from pathclip.runtime.preprocess import Preprocess
from pathclip.runtime.tokenizer import Tokenizer
from pathclip.shards.reader import shard_sizes
from pathclip.train.allocator import keep_freed_memory
from pathclip.train.callbacks import LAST, check_checkpoint, find_checkpoint, record_run
from pathclip.train.task import ContrastiveTask

CURATED_WITH = "curated_with.json"
VALUES = {
    "seed": int,
    "ckpt": str | None,
    "limit": int | None,
    "save_untrained": bool,
    "licence": str | None,
    "prompts": list[str],
    "curate": list[str] | None,
}


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run leaves: its folder, the model folder in it, and the last value of every metric."""

    out: Path
    model: Path
    metrics: dict[str, float]


def train(cfg: Any) -> TrainResult:
    """Trains a dual encoder as the config says and writes it as a model folder.

    Args:
        cfg: as `pathclip.launch.compose("train", overrides)` gives it.

    Raises:
        PathclipError: a wrong value, folder or weights file; a loss that is no number.
    """
    check_values(cfg, VALUES, at_least={"seed": 0, "limit": 1})
    out = str(output_folder(cfg))
    checkpoint = find_checkpoint(cfg.ckpt, out)
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision("high")
    keep_freed_memory()
    torch.utils.deterministic.fill_uninitialized_memory = False  # it costs a pass over every new tensor
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its greetings hide what matters
    # Lightning looks for the position in the loader; ours is kept by the data module, with the checkpoint.
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*Total length of .* across ranks is zero.*")  # no data.val
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # locked towers

    # What may be wrong in the config is found before any long work.
    loss, optimizer, schedule = (build(cfg[key], key) for key in ("loss", "optim", "schedule"))
    towers: Towers = build(cfg.model, "model")
    data = build(
        {**cfg.data, **_shard_folders(cfg, out)},
        "data",
        preprocess=Preprocess.from_card(towers.preprocess_cfg),
        tokenizer=Tokenizer(towers.tokenizer_json.encode(), towers.context_length, pad_id=0),
        seed=cfg.seed,
        limit=cfg.limit,
    )
    data.stream()  # too few pairs for one batch: say so before the long work
    task = ContrastiveTask(towers, loss, optimizer, schedule)
    if cfg.save_untrained:
        towers.save(Path(out) / "untrained", {"name": f"{towers.name}, untrained", "prompts": _prompts(cfg)})

    if checkpoint:
        check_checkpoint(checkpoint, task)

    record_run(cfg, out, data.describe())
    try:
        trainer = build(
            cfg.trainer,
            "trainer",
            default_root_dir=out,
            callbacks=list(build(cfg.callbacks, "callbacks").values()),
            logger=list(build(cfg.logger, "logger").values()),
        )
    except MisconfigurationException as error:  # no such accelerator here, say
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from None
    try:
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except FloatingPointError as error:
        raise PathclipError(str(error)) from None
    except SystemExit:  # what Lightning makes of an interrupt
        if (Path(out) / "checkpoints" / LAST).is_file():
            print(f"ckpt=last out={out} goes on from the last checkpoint", file=sys.stderr)
        raise KeyboardInterrupt from None
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}

    model = Path(out) / "model"
    if trainer.is_global_zero:
        training = {
            **data.describe(),
            "steps": trainer.global_step,
            "epochs": trainer.current_epoch,
            "seed": cfg.seed,
        }
        towers.save(model, {"training": training, "prompts": _prompts(cfg), "licence": cfg.licence})
        print(f"model folder: {model}")
    return TrainResult(Path(out), model, metrics)


def _shard_folders(cfg: Any, out: str) -> dict[str, str | None]:
    """The folders of `data`, or those that `curate` makes in the run folder, once.

    Raises:
        ConfigError: neither is given, or the shards there were curated with other overrides.
    """
    if cfg.data.train is not None:
        return {}
    if not cfg.curate:
        raise ConfigError(
            "data.train: name a folder of shards, as `pathclip curate … out=shards` writes them"
        )
    shards, overrides = Path(out) / "shards", [str(override) for override in cfg.curate]
    record = shards / CURATED_WITH
    if not record.is_file():
        _curate_once(shards, overrides)
        atomic.write_json(record, overrides)
    elif json.loads(record.read_text(encoding="utf-8")) != overrides:
        raise ConfigError(f"{shards}: curated with other overrides than `curate` says now; name another out")
    val = shards / "val"
    return {"train": str(shards / "train"), "val": str(val) if _holds_pairs(val) else None}


def _curate_once(shards: Path, overrides: list[str]) -> None:
    from pathclip.curate.curate import curate
    from pathclip.launch import compose

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "data.train: processes that start together cannot curate together; run `pathclip curate "
            f"{' '.join(overrides)} out=shards` first"
        )
    curate(compose("curate", [*overrides, f"out={shards}"]))


def _holds_pairs(folder: Path) -> bool:
    return (folder / "sizes.json").is_file() and bool(shard_sizes(folder))


def _prompts(cfg: Any) -> dict[str, Any]:
    return {"templates": list(cfg.prompts)}
