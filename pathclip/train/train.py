"""`train(cfg)`: from a config to a model folder, top to bottom."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_only

from pathclip.config import build, check_values, output_folder
from pathclip.errors import ConfigError, PathclipError
from pathclip.model.teacher import Teacher
from pathclip.model.towers import Towers, checkpoint_gradients
from pathclip.model_folder import TRAINING_PICTURES, open_model_folder
from pathclip.runtime.preprocess import Preprocess
from pathclip.shards.collate import Batch
from pathclip.shards.order import find_sources
from pathclip.train.allocator import keep_freed_memory
from pathclip.train.callbacks import Ema
from pathclip.train.checkpoints import (
    BEST,
    FOLDER,
    LAST,
    PREVIOUS,
    AtomicCheckpointIO,
    check_checkpoint,
    find_checkpoint,
)
from pathclip.train.metric_names import require_known
from pathclip.train.precision import with_precision
from pathclip.train.rehearsal import rehearse
from pathclip.train.run_folder import record_run
from pathclip.train.sharded import ShardedTask, SplitWeights, of_model, whole_weights
from pathclip.train.shards import shard_folders
from pathclip.train.task import ContrastiveTask
from pathclip.train.training_pictures import (
    pictures_of_shards,
    pictures_without_texts,
    read_training_pictures,
)

VALUES = {
    "seed": int,
    "ckpt": str | None,
    "limit": int | None,
    "save_untrained": bool,
    "licence": str | None,
    "prompts": list[str],
    "curate": list[str] | None,
    "teacher": str | None,
    "micro_batch": int | None,
    "layer_decay": float | dict[str, float],
    "grad_checkpointing": bool,
    "compile": bool,
    "channels_last": bool,
    "sweep_metric": str,
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
        PathclipError: a wrong value, folder or weights file; a run that cannot fit; a loss that is no number.
    """
    check_values(cfg, VALUES, at_least={"seed": 0, "limit": 1, "micro_batch": 1})
    out = output_folder(cfg)
    checkpoint = find_checkpoint(cfg.ckpt, str(out), _remote(cfg))
    _prepare_process(cfg.seed)

    # What may be wrong in the config is found before any long work.
    loss, optimizer, schedule = (build(cfg[key], key) for key in ("loss", "optim", "schedule"))
    towers: Towers = build(cfg.model, "model")
    preprocess = Preprocess.from_card(towers.preprocess_cfg)
    teacher = Teacher(cfg.teacher, preprocess) if cfg.teacher else None
    data = build(
        {**cfg.data, **shard_folders(cfg, str(out))},
        "data",
        preprocess=preprocess,
        tokenizer=towers.tokenizer(),
        teacher_tokenizer=teacher.tokenizer if teacher else None,
        teacher_size=teacher.size if teacher else None,
        seed=cfg.seed,
        limit=cfg.limit,
        resume=cfg.resume,
    )
    _check_validation(cfg, data)
    _meet_teacher(loss, towers, teacher, data)
    if "decoder" in loss.needs and not hasattr(towers.model, "text_decoder"):
        raise ConfigError(f"loss=coca: {towers.name} has no decoder; take model=coca or model=coca_tiny")
    if cfg.schedule.get("warmup", 0) < 0:
        raise ConfigError(f"schedule.warmup={cfg.schedule.get('warmup')}: 0 is the least")
    _freeze_unneeded(towers, loss)
    if cfg.grad_checkpointing:
        checkpoint_gradients(towers)
    trainer = _trainer(cfg, str(out))
    average = any(isinstance(callback, Ema) for callback in trainer.callbacks)
    kind = ContrastiveTask
    if isinstance(trainer.strategy, SplitWeights):
        kind = ShardedTask
        if average:
            raise ConfigError("callbacks.ema.decay: weights that are split (trainer=fsdp) cannot be averaged")
    task = kind(
        towers,
        loss,
        optimizer,
        schedule,
        seed=cfg.seed,
        layer_decay=cfg.layer_decay,
        micro_batch=cfg.micro_batch,
        channels_last=cfg.channels_last,
        prompts=list(cfg.prompts),
        teacher=teacher,
    )
    data.stream(world=trainer.world_size)  # too few pairs for one batch: say so before the long work
    if checkpoint:
        data.trainer = trainer  # it asks for the number of processes
        step = check_checkpoint(checkpoint, task, average, data)
        if rank_zero_only.rank == 0:
            print(f"goes on at step {step}, from {checkpoint}", file=sys.stderr)
    _rehearse(trainer, task, data, average, teacher)
    if cfg.compile:
        towers.compile()

    if rank_zero_only.rank == 0:
        if cfg.save_untrained and not checkpoint:
            towers.save(out / "untrained", {"name": f"{towers.name}, untrained", **_prompts(cfg)})
        changes = record_run(cfg, out, data.describe(), goes_on=checkpoint is not None)
        if changes:
            print(f"not as the run began: {', '.join(changes)}", file=sys.stderr)
    _fit(trainer, task, data, checkpoint, out)

    weights = whole_weights(trainer)  # every process takes part
    if trainer.is_global_zero:
        training = {
            **data.describe(),
            "steps": trainer.global_step,
            "epochs": trainer.current_epoch,
            "seed": cfg.seed,
        }
        files, training["pictures"] = _training_pictures(cfg, data)
        card = {"training": training, **_prompts(cfg), "licence": cfg.licence}
        towers.save(out / "model", card, weights, files)
        print(f"model folder: {out / 'model'}")
        _save_best(towers, out, card, files)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return TrainResult(out, out / "model", metrics)


def _prepare_process(seed: int) -> None:
    lightning.seed_everything(seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision("high")
    keep_freed_memory()
    torch.utils.deterministic.fill_uninitialized_memory = False  # it costs a pass over every new tensor
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its greetings hide what matters
    # Lightning looks for the position in the loader; ours is kept by the data module, with the checkpoint.
    for message in (
        ".*your dataloader is not resumable.*",
        ".*exists and is not empty.*",
        ".*LeafSpec.*",
        ".*Total length of .* across ranks is zero.*",  # no data.val
        ".*in eval mode at the start of training.*",  # locked towers
        ".*nn.functional.all_gather is deprecated.*",  # what replaces it has no gradient for every backend
    ):
        warnings.filterwarnings("ignore", message=message)


def _trainer(cfg: Any, out: str) -> lightning.Trainer:
    if cfg.trainer.get("sync_batchnorm"):
        # torch's conversion makes of timm's BatchNormAct2d a norm without its activation.
        raise ConfigError(
            "trainer.sync_batchnorm: BatchNorm sees the pairs of its own process here; use a tower without it"
        )
    try:
        return build(
            with_precision(cfg.trainer),
            "trainer",
            default_root_dir=out,
            callbacks=[c for c in build(cfg.callbacks, "callbacks").values() if c is not None],
            logger=list(build(cfg.logger, "logger").values()),
            plugins=[AtomicCheckpointIO()],
        )
    except MisconfigurationException as error:  # no such accelerator here, say
        hint = "; trainer=cpu trains without" if cfg.trainer.get("accelerator") == "gpu" else ""
        raise ConfigError(f"trainer: {' '.join(str(error).split())}{hint}") from None


def _check_validation(cfg: Any, data: Any) -> None:
    """Refuses figures of pairs that are trained on, and a metric without any pairs."""
    described = data.describe()
    val, val_hash = described["val"], described["val_hash"]
    if val in described["shards"] or (val_hash and val_hash in described["data_hash"]):
        raise ConfigError(
            f"data.val={val}: the same pairs as data.train; its figures would be of pairs trained on"
        )
    beside = described.get("unlabelled", {"folders": [], "data_hash": []})
    if val in beside["folders"] or (val_hash and val_hash in beside["data_hash"]):
        raise ConfigError(f"data.val={val}: its pictures stand in data.unlabelled, which is trained on")
    for name in ("checkpoints", "early_stopping"):
        monitor = (cfg.callbacks.get(name) or {}).get("monitor")
        if monitor and val is None:
            raise ConfigError(
                f"callbacks.{name}.monitor={monitor}: there are no validation pairs; name data.val"
            )
        if monitor:
            require_known(f"callbacks.{name}.monitor", monitor)


def _meet_teacher(loss: Any, towers: Towers, teacher: Teacher | None, data: Any) -> None:
    """Refuses a student without a teacher and pictures that no loss looks at; fits their embeddings."""
    if "teacher" not in loss.needs:
        if data.unlabelled:
            raise ConfigError("data.unlabelled: only loss=distill learns from pictures without texts")
        return
    if teacher is None:
        raise ConfigError("loss=distill: there is no teacher; name its model folder by teacher=…")
    loss.match_lengths(int(towers.model_cfg["embed_dim"]), teacher.dim)


def _freeze_unneeded(towers: Towers, loss: Any) -> None:
    """What a loss does not use gets no gradient, and processes would wait for one."""
    for need, part in (("logit_bias", "logit_bias"), ("decoder", "text_decoder")):
        unused = getattr(towers.model, part, None)
        if need not in loss.needs and unused is not None:
            unused.requires_grad_(False)


def _rehearse(
    trainer: lightning.Trainer, task: ContrastiveTask, data: Any, average: bool, teacher: Teacher | None
) -> None:
    """A step before the run, in its precision: a wrong shape or too little memory is told now."""
    device = trainer.strategy.root_device
    half = "16" in str(trainer.precision)

    def step(batch: Batch) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return task.loss_of(batch)

    rehearse(
        task,
        step,
        data.batch_size // trainer.world_size,
        task.micro_batch,
        world=trainer.world_size,
        processes_here=trainer.num_devices if device.type == "cpu" else 1,
        ema=average,
        batches_held=2 if device.type == "cuda" else 2 + 2 * data.workers,
        # How much of split weights a process holds is not known before they are split.
        free=sys.maxsize if isinstance(task, ShardedTask) else None,
        device=device,
        teacher_tokenizer=teacher.tokenizer if teacher else None,
        unlabelled_per_pair=data.unlabelled.per_batch / data.batch_size if data.unlabelled else 0.0,
    )


def _fit(trainer: Any, task: ContrastiveTask, data: Any, checkpoint: str | None, out: Path) -> None:
    try:
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except FloatingPointError as error:
        raise PathclipError(str(error)) from None
    except RuntimeError as error:
        if "Early stopping conditioned on metric" not in str(error):
            raise
        raise ConfigError(
            "callbacks.early_stopping.monitor: the validation gave no such figure, as without labels or with "
            "fewer pairs than its rank"
        ) from None
    except SystemExit:  # what Lightning makes of an interrupt
        if any((out / FOLDER / name).is_file() for name in (LAST, PREVIOUS)):
            print(f"ckpt=last out={out} goes on from the last checkpoint", file=sys.stderr)
        raise KeyboardInterrupt from None


def _training_pictures(cfg: Any, data: Any) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The file of hashes of all pictures trained on, and what the card says of it.

    After a long training no fault of this may cost the model: then there is no such file.
    """
    try:
        sizes: dict[str, int] = {}
        for source in find_sources(data.train_folders, cfg.limit):
            sizes |= source.sizes
        seen = pictures_of_shards(sizes)
        if data.unlabelled:
            seen = seen.joined(pictures_without_texts(data.unlabelled.folders))
        earlier = "none"
        if path := cfg.model.get("path"):  # a model folder that this training began with
            before = read_training_pictures(open_model_folder(str(path), verify=False))
            earlier = f"those of {path} are among them" if before else f"those of {path} are not known"
            seen = seen.joined(before) if before else seen
    except (PathclipError, OSError) as error:
        print(f"the card will not say which pictures were trained on: {error}", file=sys.stderr)
        return {}, {"missing": str(error)}
    counts = {"different": len(seen), "perceptual_hashes": seen.perceptual_known}
    return {TRAINING_PICTURES: seen.to_bytes()}, {**counts, "of_earlier_training": earlier}


def _save_best(towers: Towers, out: Path, card: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """The best state as a model folder of its own, where there is one."""
    file = out / FOLDER / BEST
    if not file.is_file():
        return
    state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    training = {**card["training"], "steps": int(state["global_step"]), "epochs": int(state["epoch"])}
    towers.save(out / "best", {**card, "training": training}, of_model(state["state_dict"]), files)
    chosen = next(
        (kept for kept in state["callbacks"].values() if "monitor" in kept and "best" in kept), None
    )
    why = f" ({chosen['monitor']} {chosen['best']:.4g} at step {training['steps']})" if chosen else ""
    print(f"the best of the run: {out / 'best'}{why}")


def _remote(cfg: Any) -> str | None:
    checkpoints = cfg.callbacks.get("checkpoints") if cfg.callbacks else None
    return checkpoints.get("remote") if checkpoints else None


def _prompts(cfg: Any) -> dict[str, Any]:
    return {"prompts": {"templates": list(cfg.prompts)}}
