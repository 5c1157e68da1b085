"""A training of seconds, and what it leaves."""

import torch
from safetensors.torch import load_file

from pathclip.launch import compose


def config(shards, out, *overrides):
    """A tiny model on the tiny shards: 5 steps an epoch, a checkpoint every 3."""
    return compose(
        "train",
        [
            "model=tiny",
            f"data.train={shards / 'train'}",
            f"data.val={shards / 'val'}",
            "data.batch_size=8",
            "data.workers=0",
            "callbacks.checkpoints.every_n_steps=3",
            f"out={out}",
            *overrides,
        ],
    )


def same_weights(first, second):
    """Whether two model folders hold the same numbers, bit for bit."""
    a, b = (load_file(folder / "open_clip_model.safetensors") for folder in (first, second))
    return all(torch.equal(a[name], b[name]) for name in a)
