"""The torch module of a dual encoder from its config, with random weights; no hub is asked."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pathclip.errors import ConfigError

_SPARE = 1 << 25  # numbers that no file of weights holds: masks, and what a library adds


def module_for(build: Callable[[], nn.Module], tensors: Mapping[str, Tensor]) -> nn.Module:
    """Builds a module for weights, if it is not much larger than these.

    Of a config a stranger's numbers could ask for all memory: it is built without any first.

    Raises:
        ConfigError: a module that the weights cannot fill.
    """
    with torch.device("meta"):
        planned = build()
    asked = sum(one.numel() for part in (planned.parameters(), planned.buffers()) for one in part)
    held = sum(one.numel() for one in tensors.values())
    if asked > held + _SPARE:
        raise ConfigError(f"the config asks for {asked} numbers, but the weights hold {held}")
    return build()


def open_clip_module(config: Mapping[str, Any]) -> nn.Module:
    """A dual encoder of open_clip's own parts (or a timm image tower), with random weights.

    Raises:
        ConfigError: `patch_dropout` of an image tower that has no patches to drop.
    """
    from open_clip.coca_model import CoCa
    from open_clip.model import CLIP, CustomTextCLIP

    arguments = deepcopy(dict(config))
    custom = arguments.pop("custom_text", False)
    _never_download(arguments)
    if "multimodal_cfg" in arguments:
        model: Any = CoCa(**arguments)
        decoder = model.text_decoder
        # open_clip leaves this one as the memory was.
        nn.init.normal_(decoder.text_projection, std=decoder.width**-0.5)
        return model
    with _patch_dropout_or_refusal(arguments["vision_cfg"]):
        model = (CustomTextCLIP if custom else CLIP)(**arguments)
    _approximate_gelu(model, arguments["vision_cfg"])
    return model


def custom_module(config: Mapping[str, Any], text_config: Mapping[str, Any]) -> nn.Module:
    """A dual encoder with a Hugging Face text tower, with random weights."""
    import tempfile

    from open_clip.model import CustomTextCLIP

    arguments = deepcopy(dict(config))
    arguments.pop("custom_text", None)
    # open_clip builds a Hugging Face tower from a name; a folder with its config is such a name.
    with tempfile.TemporaryDirectory(prefix="pathclip-text-") as folder:
        (Path(folder) / "config.json").write_text(json.dumps(dict(text_config)))
        arguments["text_cfg"] |= {"hf_model_name": folder, "hf_model_pretrained": False}
        _never_download(arguments)
        with _patch_dropout_or_refusal(arguments["vision_cfg"]):
            built = CustomTextCLIP(**arguments)
        _approximate_gelu(built, arguments["vision_cfg"])
        return built


@contextlib.contextmanager
def _patch_dropout_or_refusal(vision: Mapping[str, Any]) -> Iterator[None]:
    asked = vision.get("patch_dropout", 0.0)
    tower = vision.get("timm_model_name", "a ResNet")
    refusal = f"model.patch_dropout={asked}: {tower} has no patches to drop; set it to 0"
    if asked and isinstance(vision.get("layers"), Sequence):
        raise ConfigError(refusal)
    try:
        yield
    except TypeError as error:
        if "patch_drop" not in str(error):
            raise
        raise ConfigError(refusal) from None


def _approximate_gelu(model: Any, vision: Mapping[str, Any]) -> None:
    """Gives a timm trunk the GELU that `act_kwargs` names: SigLIP learnt with the approximate one.

    open_clip reads the entry too, but for towers of its own only.
    """
    if "timm_model_name" not in vision or not vision.get("act_kwargs"):
        return
    for part in model.visual.trunk.modules():
        if isinstance(part, nn.GELU):
            part.approximate = vision["act_kwargs"].get("approximate", "none")


def _never_download(arguments: dict[str, Any]) -> None:
    if "timm_model_name" in arguments["vision_cfg"]:
        arguments["vision_cfg"]["timm_model_pretrained"] = False
