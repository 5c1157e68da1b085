"""A dual encoder with its description, and its way into a model folder and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pathclip import atomic
from pathclip.errors import ConfigError, ModelFolderError, PathclipError
from pathclip.model.foreign_checks import brief, refuse_code
from pathclip.model.freeze import lock_layers, set_frozen_to_eval, unlocked_layers
from pathclip.model.modules import custom_module, open_clip_module
from pathclip.model.statistics import move_once
from pathclip.model_folder import WEIGHTS, ModelFolder, read_json, write_model_folder
from pathclip.runtime.text_cleaning import CLEANINGS
from pathclip.runtime.tokenizer import Tokenizer

CONFIG = "open_clip_config.json"
TOKENIZER = "tokenizer.json"
TEXT_CONFIG = "text/config.json"


@dataclass(slots=True)
class Towers:
    """A dual encoder with its description.

    Attributes:
        model: open_clip's `CLIP`, `CustomTextCLIP` or `CoCa`.
        model_cfg: open_clip's model config.
        preprocess_cfg: open_clip's preprocess config.
        tokenizer_json: content of `tokenizer.json`.
        context_length: tokens per text.
        text_config: the Hugging Face config of the text tower; None for open_clip's own.
        locked: tower → number of layers at its top that are trained; a tower that is not there is trained.
        source: where the starting weights came from, for the card.
        name: of the model, for cards and reports.
        padding: token that fills short texts; that of `text_config`, or 0, if None.
        text_cleaning: what happens to texts first, see `pathclip.runtime.text_cleaning`; nothing if None.
    """

    model: nn.Module
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    tokenizer_json: str
    context_length: int
    text_config: dict[str, Any] | None = None
    locked: Mapping[str, int] = field(default_factory=dict)
    source: str = "random"
    name: str = "model"
    padding: int | None = None
    text_cleaning: str | None = None

    @property
    def embed_dim(self) -> int:
        """Length of an embedding."""
        return int(self.model_cfg["embed_dim"])

    @property
    def pad_id(self) -> int:
        """Token that fills short texts, by which the text tower knows the padding."""
        if self.padding is not None:
            return self.padding
        return int((self.text_config or {}).get("pad_token_id") or 0)

    def tokenizer(self) -> Tokenizer:
        """What turns texts into rows of token ids for this model."""
        content = self.tokenizer_json.encode()
        return Tokenizer(content, self.context_length, self.pad_id, self.text_cleaning)

    def still(self) -> None:
        """What is locked goes into eval mode: no dropout, no drift of statistics. Call it after `train()`."""
        set_frozen_to_eval(self.model)

    def compile(self, **options: Any) -> None:
        """Compiles the towers in place by `torch.compile`; names of weights stay as they are."""
        model: Any = self.model
        for part in (model.visual, getattr(model, "text", None) or model.transformer):
            part.compile(**options)
        if hasattr(model, "text_decoder"):
            model.text_decoder.compile(**options)

    def save(
        self,
        path: Path | str,
        card: Mapping[str, Any] | None = None,
        weights: Mapping[str, Tensor] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> Path:
        """Writes the model folder; `card` adds training data, prompts and scores. Atomic.

        `weights` are whole ones, where those of the model itself are split over processes; `files` are
        further files with their content.
        """
        from safetensors.torch import save_file

        full = {**self.card(), **(card or {})}
        with write_model_folder(path, full) as staging:
            atomic.write_json(
                staging / CONFIG,
                {"model_cfg": _in_use(self.model_cfg), "preprocess_cfg": self.preprocess_cfg},
            )
            whole = weights or self.model.state_dict()
            # Views of one storage, as split weights are gathered, must not be written as one.
            tensors = {name: value.detach().cpu().contiguous().clone() for name, value in whole.items()}
            save_file(tensors, staging / WEIGHTS, metadata={"format": "pt"})
            atomic.write_text(staging / TOKENIZER, self.tokenizer_json)
            if self.text_config is not None:
                atomic.write_json(staging / TEXT_CONFIG, self.text_config)
            for name, content in (files or {}).items():
                (staging / name).write_bytes(content)
        return Path(path)

    def card(self) -> dict[str, Any]:
        """What the card says of the model itself."""
        cleaning = {"text_cleaning": self.text_cleaning} if self.text_cleaning else {}
        scale = self.model.logit_scale.exp().mean().item()
        bias = getattr(self.model, "logit_bias", None)
        return {
            "name": self.name,
            "embed_dim": self.embed_dim,
            "context_length": self.context_length,
            "pad_id": self.pad_id,
            **cleaning,
            "logit_scale": round(float(scale), 6),
            "logit_bias": None if bias is None else round(float(bias.mean().item()), 6),
            "preprocess": self.preprocess_cfg,
            "starting_weights": self.source,
            "licence": None,
            "prompts": {},
            "calibration": {},
            "training": {},
            "scores": [],
        }


def load_towers(folder: ModelFolder) -> Towers:
    """Builds the module of a verified folder and loads its safetensors; no hub, no pickle.

    Raises:
        ModelFolderError: no safetensors, or a config that cannot be built or that the weights do not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    described = read_json(folder.file(CONFIG))
    config = described.get("model_cfg") if isinstance(described, dict) else None
    if not isinstance(config, dict) or not isinstance(described.get("preprocess_cfg"), dict):
        raise ModelFolderError(f"{folder.file(CONFIG)}: no model_cfg and preprocess_cfg in it")
    text_config = read_json(folder.file(TEXT_CONFIG)) if folder.has(TEXT_CONFIG) else None
    _refuse_remote_names(config, text_config, folder)
    try:
        weights = load_file(folder.file(WEIGHTS))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFolderError(f"{folder.file(WEIGHTS)}: not safetensors ({brief(error)})") from error
    try:
        model = custom_module(config, text_config) if text_config else open_clip_module(config)
        model.load_state_dict(weights, strict=True)
    except PathclipError:
        raise
    except Exception as error:  # as many kinds as a config can be wrong in ways
        raise ModelFolderError(
            f"{folder.path}: {CONFIG} and {WEIGHTS} give no model: {brief(error)}"
        ) from error
    return Towers(
        model=model.eval(),
        model_cfg=config,
        preprocess_cfg=described["preprocess_cfg"],
        tokenizer_json=folder.file(TOKENIZER).read_text(encoding="utf-8"),
        context_length=int(folder.card["context_length"]),
        text_config=text_config,
        source=str(folder.card.get("starting_weights", "")),
        name=str(folder.card.get("name", "model")),
        padding=int(folder.card["pad_id"]),
        text_cleaning=folder.card.get("text_cleaning"),
    )


def prepare(
    towers: Towers,
    lock: Sequence[str] | Mapping[str, int] | None = None,
    lock_norms: bool = True,
    logit_scale: float | None = None,
    logit_bias: float | None = None,
) -> Towers:
    """Sets what a training starts with: logit scale and bias, and which layers are locked.

    Args:
        towers: changed in place.
        lock: towers, or tower → number of layers at its top that are trained; see `freeze.lock_layers`.
        lock_norms: lock the norms of those layers too.
        logit_scale: the factor itself; as it is if None.
        logit_bias: as it is if None, which in most models is none at all.

    Raises:
        ConfigError: a scale that is not above 0, an unknown tower, or too many layers.
    """
    model: Any = towers.model
    if logit_scale is not None:
        if not 0 < logit_scale < math.inf:
            raise ConfigError(f"model.logit_scale: a factor above 0 is needed, not {logit_scale}")
        model.logit_scale.data.fill_(math.log(logit_scale))
    if logit_bias is not None:
        model.logit_bias = nn.Parameter(torch.full_like(model.logit_scale.data, logit_bias))
        # By this entry the model is built with a bias when it is loaded again, by open_clip too.
        towers.model_cfg["init_logit_bias"] = logit_bias
    towers.locked = unlocked_layers(lock)
    lock_layers(model, towers.locked, norms=lock_norms)
    return towers


def checkpoint_gradients(towers: Towers) -> None:
    """Towers keep the activations of every block's input only and compute the rest again on the way back.

    A tower that is locked as a whole keeps none anyway and is left as it is.

    Raises:
        ConfigError: a tower whose architecture cannot do so; names it.
    """
    model: Any = towers.model
    own_text = model if not hasattr(model, "text") else model.text
    parts = {
        "image": (model.visual, lambda: _checkpoint_image(model.visual)),
        "text": (own_text.transformer, lambda: _checkpoint_text(own_text.transformer)),
    }
    if hasattr(model, "text_decoder"):
        parts["decoder"] = (model.text_decoder, lambda: _checkpoint_text(model.text_decoder))
    for tower, (module, switch_on) in parts.items():
        if not any(parameter.requires_grad for parameter in module.parameters()):
            continue
        try:
            switch_on()
        # Without it, a timm trunk asserts, a Hugging Face one raises ValueError, open_clip's ResNet has no
        # such attribute.
        except (AttributeError, AssertionError, ValueError) as error:
            raise ConfigError(
                f"grad_checkpointing: the {tower} tower of {towers.name} cannot compute its blocks again "
                "on the way back; use micro_batch to save memory, or another tower"
            ) from error
        move_once(module)


def _checkpoint_image(visual: Any) -> None:
    if hasattr(visual, "trunk"):
        visual.trunk.set_grad_checkpointing(True)
    else:
        visual.transformer.grad_checkpointing = True  # open_clip's ResNet has none


def _checkpoint_text(transformer: Any) -> None:
    if hasattr(transformer, "gradient_checkpointing_enable"):
        transformer.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    else:
        transformer.grad_checkpointing = True


def _in_use(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without what only training does."""
    vision = {key: value for key, value in config["vision_cfg"].items() if key != "patch_dropout"}
    return {**config, "vision_cfg": vision}


def _refuse_remote_names(config: Mapping[str, Any], text_config: Any, folder: ModelFolder) -> None:
    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    # open_clip hands these on to a tokenizer of transformers, but for the name of a cleaning.
    options = text.get("tokenizer_kwargs", {})
    known = options in [{}, *({"clean": name} for name in CLEANINGS)]
    if ":" in str(vision.get("timm_model_name", "")) or not known:
        raise ModelFolderError(
            f"{folder.path / CONFIG}: refers to code or weights outside the folder; refused"
        )
    if "hf_model_name" in text and text_config is None:
        raise ModelFolderError(f"{folder.path}: a Hugging Face text tower needs {TEXT_CONFIG} in the folder")
    refuse_code(folder.path / CONFIG, config)
    if text_config is not None:
        refuse_foreign_code(text_config, folder.path / TEXT_CONFIG)


def refuse_foreign_code(text_config: Any, file: Path) -> None:
    """Refuses a Hugging Face config of a tower that open_clip does not know, or that asks for foreign code.

    Raises:
        ModelFolderError: names the file.
    """
    from open_clip.hf_configs import arch_dict

    kind = text_config.get("model_type") if isinstance(text_config, dict) else None
    if not isinstance(kind, str) or kind not in arch_dict:
        raise ModelFolderError(
            f"{file}: model_type {kind!r} is none of open_clip's ({', '.join(arch_dict)}); refused"
        )
    refuse_code(file, text_config)
