"""CLIP's architecture by the shapes of its tensors: OpenAI's files hold no config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pathclip.errors import ModelFolderError
from pathclip.model.foreign_checks import MOST_LAYERS, brief

_HEAD = 64  # width of a head of attention, in all of OpenAI's models
_STRIDE = 32  # of the ResNets
# Not parameters, but OpenAI's files keep them among them.
NUMBERS = ("input_resolution", "context_length", "vocab_size")
_REQUIRED = (
    "text_projection",
    "positional_embedding",
    "token_embedding.weight",
    "ln_final.weight",
    "logit_scale",
)


def looks_like_openai(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors have the names of OpenAI's `CLIP`, which open_clip's `CLIP` has too."""
    image = "visual.proj" in tensors or "visual.attnpool.positional_embedding" in tensors
    return image and all(name in tensors for name in _REQUIRED)


def is_openais_own(tensors: Mapping[str, Tensor]) -> bool:
    """Whether numbers are there that only OpenAI's own files have, and so their activation, QuickGELU."""
    return any(name in tensors for name in NUMBERS)


def openai_model_cfg(tensors: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    """open_clip's `model_cfg` of OpenAI's weights (Radford et al. 2021): ViT or ResNet, with QuickGELU.

    Args:
        tensors: by OpenAI's names; see `looks_like_openai`.
        name: of the file, for messages.

    Raises:
        ModelFolderError: shapes that fit no such model.
    """
    try:
        vision = _vit(tensors) if "visual.proj" in tensors else _resnet(tensors)
        width = tensors["ln_final.weight"].shape[0]
        return {
            "embed_dim": tensors["text_projection"].shape[1],
            "quick_gelu": True,
            "vision_cfg": vision,
            "text_cfg": {
                "context_length": tensors["positional_embedding"].shape[0],
                "vocab_size": tensors["token_embedding.weight"].shape[0],
                "width": width,
                "heads": max(1, width // _HEAD),
                "layers": _count(tensors, "transformer.resblocks."),
            },
        }
    except (KeyError, IndexError, ValueError) as error:
        raise ModelFolderError(
            f"{name}: the shapes of its tensors are not CLIP's ({brief(error)})"
        ) from error


def only_parameters(tensors: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Without what an archive holds besides the parameters: masks, and sizes as numbers."""
    own = model.state_dict()
    besides = ("attn_mask", *NUMBERS)
    return {k: v for k, v in tensors.items() if k in own or k.rpartition(".")[2] not in besides}


def _vit(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    first = tensors["visual.conv1.weight"]
    patch = first.shape[-1]
    return {
        "layers": _count(tensors, "visual.transformer.resblocks."),
        "width": first.shape[0],
        "head_width": min(_HEAD, first.shape[0]),
        "patch_size": patch,
        "image_size": patch * _side(tensors["visual.positional_embedding"]),
    }


def _resnet(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        "layers": [_count(tensors, f"visual.layer{stage}.") for stage in range(1, 5)],
        "width": tensors["visual.layer1.0.conv1.weight"].shape[0],
        "image_size": _STRIDE * _side(tensors["visual.attnpool.positional_embedding"]),
    }


def _side(positions: Tensor) -> int:
    """Places along one side of the grid; the first position is that of the class or of the mean."""
    side = round((positions.shape[0] - 1) ** 0.5)
    if side < 1 or side**2 + 1 != positions.shape[0]:
        raise ValueError(f"{positions.shape[0]} positions make no square")
    return side


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    found = {name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)}
    if not 1 <= len(found) <= MOST_LAYERS:
        raise ValueError(f"{len(found) or 'none'} begin with {prefix}")
    return len(found)
