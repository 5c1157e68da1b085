"""Which number format a run computes in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def with_precision(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer's arguments with `precision: auto` replaced by bf16 where it is in hardware, else fp32.

    CPUs stay at fp32: bf16 on one that has it (AMX) brought 6 % to lite and 26 % to ViT-B/32, and a recipe
    would compute other numbers on another CPU; see docs/performance.md.
    """
    arguments = dict(trainer)
    if arguments.get("precision") == "auto":
        on_gpu = arguments.get("accelerator") in ("gpu", "cuda") and torch.cuda.is_available()
        arguments["precision"] = (
            "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
        )
    return arguments
