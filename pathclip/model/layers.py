"""The layers of each tower, from the input to the projection: what is locked, and how far the rate decays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from pathclip.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Layers:
    """The parameters of one tower, layer by layer.

    Attributes:
        names: of parameters, per layer, from the input (embeddings or stem) to the projection. Each of the
            tower's parameters stands in exactly one layer.
        projection_is_apart: the projection was added to a trunk that came without (timm, Hugging Face): it
            is trained even where the tower is locked, as in open_clip.
    """

    names: tuple[tuple[str, ...], ...]
    projection_is_apart: bool

    @property
    def lockable(self) -> tuple[tuple[str, ...], ...]:
        """The layers that `lock` counts."""
        return self.names[:-1] if self.projection_is_apart else self.names


def tower_layers(model: Any) -> dict[str, Layers]:
    """Layers of the towers 'image', 'text' and, of CoCa, 'decoder'.

    Embeddings (a ResNet's stem) are one layer, each block is one (each of a ResNet's four stages, each group
    of timm's `group_matcher`), norms and poolers after the last block belong to it, and the projection is
    the last. Logit scale and bias belong to no tower.

    Args:
        model: open_clip's `CLIP`, `CustomTextCLIP` or `CoCa`.

    Raises:
        ConfigError: a timm trunk that does not say what its layers are.
    """
    names = [name for name, _ in model.named_parameters() if name not in ("logit_scale", "logit_bias")]
    decoder = [name for name in names if name.startswith("text_decoder.")]
    image = [name for name in names if name.startswith("visual.")]
    text = [name for name in names if name not in {*image, *decoder}]
    towers = {"image": _image(model.visual, image), "text": _text(model, text)}
    if decoder:
        towers["decoder"] = _layers(
            decoder,
            blocks=[
                (f"text_decoder.resblocks.{i}.", f"text_decoder.cross_attn.{i}.")
                for i in range(len(model.text_decoder.resblocks))
            ],
            projection=("text_decoder.text_projection",),
        )
    return towers


def _image(visual: Any, names: list[str]) -> Layers:
    if hasattr(visual, "trunk"):
        return _timm(visual, names)
    if hasattr(visual, "layer4"):
        return _layers(
            names,
            inputs=("visual.conv", "visual.bn"),
            blocks=[(f"visual.layer{i}.",) for i in range(1, 5)],
            projection=("visual.attnpool.",),
        )
    return _layers(
        names,
        inputs=(
            *("visual.conv1.", "visual.class_embedding", "visual.positional_embedding"),
            "visual.ln_pre.",
        ),
        blocks=[(f"visual.transformer.resblocks.{i}.",) for i in range(len(visual.transformer.resblocks))],
        projection=("visual.proj",),
    )


def _timm(visual: Any, names: list[str]) -> Layers:
    from timm.models import group_parameters

    if not hasattr(visual.trunk, "group_matcher"):
        raise ConfigError(
            f"model.image: timm does not say what the layers of {type(visual.trunk).__name__} are; "
            "neither model.lock with a number nor layer_decay can be used with it"
        )
    groups = group_parameters(visual.trunk, visual.trunk.group_matcher())
    layers = [tuple(f"visual.trunk.{name}" for name in groups[number]) for number in sorted(groups)]
    head = tuple(name for name in names if name.startswith("visual.head."))
    return Layers((*layers, head), projection_is_apart=True)


def _text(model: Any, names: list[str]) -> Layers:
    tower = getattr(model, "text", None)
    prefix = "" if tower is None else "text."
    if tower is not None and hasattr(tower, "proj"):
        return _hugging_face(tower.transformer, names)
    transformer = (model if tower is None else tower).transformer
    return _layers(
        names,
        inputs=tuple(prefix + name for name in ("token_embedding.", "positional_embedding", "cls_emb")),
        blocks=[(f"{prefix}transformer.resblocks.{i}.",) for i in range(len(transformer.resblocks))],
        projection=(f"{prefix}text_projection",),
    )


def _hugging_face(transformer: Any, names: list[str]) -> Layers:
    stack, length = hugging_face_blocks(transformer)
    first = min(names.index(name) for name in names if name.startswith(f"text.transformer.{stack}.0."))
    before = tuple(name for name in names[:first] if name.startswith("text.transformer."))
    return _layers(
        names,
        inputs=before,
        blocks=[(f"text.transformer.{stack}.{i}.",) for i in range(length)],
        projection=("text.proj.",),
        projection_is_apart=True,
    )


def hugging_face_blocks(transformer: nn.Module) -> tuple[str, int]:
    """Name and length of the list of blocks in a Hugging Face model: 'encoder.layer' of BERT.

    Raises:
        ConfigError: it has none.
    """
    for name, module in transformer.named_modules():
        if isinstance(module, nn.ModuleList) and len(module):
            return name, len(module)
    raise ConfigError(f"model.text: {type(transformer).__name__} has no list of layers that could be counted")


def _layers(
    names: list[str],
    blocks: list[tuple[str, ...]],
    projection: tuple[str, ...],
    inputs: tuple[str, ...] = (),
    projection_is_apart: bool = False,
) -> Layers:
    """Sorts names by their beginnings; what matches nothing comes after the last block and belongs to it."""
    beginnings = [inputs, *blocks, projection]
    layers: list[list[str]] = [[] for _ in beginnings]
    for name in names:
        fitting = [number for number, starts in enumerate(beginnings) if name.startswith(starts)]
        layers[fitting[0] if fitting else -2].append(name)
    filled = [tuple(layer) for layer in layers[:-1] if layer]
    if layers[-1] or projection_is_apart:
        filled.append(tuple(layers[-1]))
    return Layers(tuple(filled), projection_is_apart)
