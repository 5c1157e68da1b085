"""Fetches a model from the Hugging Face hub: the files that are read, and no others."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathclip.errors import ModelFolderError, PathclipError
from pathclip.model import foreign_open_clip, foreign_transformers
from pathclip.model.foreign_checks import HUB_ID, MAX_WEIGHTS, brief
from pathclip.model_folder import MAX_JSON_BYTES, read_json

_PREFIX = "hf-hub:"
# Configs, tokenizers, and the card, which tells the licence.
_SMALL = (
    *(foreign_open_clip.OPEN_CLIP, foreign_transformers.TRANSFORMERS, foreign_open_clip.TEXT_CONFIG),
    *("preprocessor_config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "special_tokens_map.json", "added_tokens.json"),
    *(foreign_transformers.SENTENCEPIECE, "README.md"),
)


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model that was fetched.

    Attributes:
        path: folder with its files.
        revision: the commit that they are of.
    """

    path: Path
    revision: str


def hub_id(source: str) -> str | None:
    """'org/name' of a source that is written as one, with or without 'hf-hub:'; None otherwise."""
    name = source.removeprefix(_PREFIX)
    return name if HUB_ID.fullmatch(name) else None


@contextlib.contextmanager
def fetched(repository: str, revision: str | None = None) -> Iterator[HubModel]:
    """Fetches a model into the hub client's cache and yields a folder of links to its files.

    Weights are fetched as safetensors; as a pickle of tensors only where there are none. The config of a text
    tower that a config of open_clip only names is fetched too.

    Args:
        repository: 'org/name'.
        revision: branch, tag or commit; the main branch if None.

    Raises:
        ModelFolderError: no such model or revision, no leave to read it, no weights in it, or no network.
    """
    from huggingface_hub import HfApi

    endpoint = os.environ.get("HF_ENDPOINT")
    with _one_line(repository):
        api = HfApi(endpoint=endpoint)
        info = api.model_info(repository, revision=revision, files_metadata=True)
    sizes = {one.rfilename: one.size or 0 for one in info.siblings or []}
    small = [name for name in _SMALL if name in sizes]
    for name in small:
        _refuse_large(f"{repository}: {name}", sizes[name])
    names = [*small, *_weights(repository, sizes)]
    commit = str(info.sha)
    with tempfile.TemporaryDirectory(prefix="pathclip-hub-") as staging:
        folder = Path(staging)
        with _one_line(repository):
            _link(folder, _download(repository, commit, names, endpoint), names)
            _text_config(folder, endpoint)
        yield HubModel(folder, commit)


def _weights(repository: str, sizes: dict[str, int]) -> list[str]:
    if foreign_open_clip.OPEN_CLIP in sizes:
        known: tuple[str, ...] = (*foreign_open_clip.WEIGHTS, *foreign_open_clip.PICKLES)
    else:
        known = (*foreign_transformers.WEIGHTS, *foreign_transformers.PICKLES)
    for name in known:
        if name in sizes:
            found = [name]
        elif f"{name}.index.json" in sizes:
            stem, suffix = name.rsplit(".", 1)
            parts = [one for one in sizes if re.fullmatch(rf"{re.escape(stem)}-\d+-of-\d+\.{suffix}", one)]
            found = [f"{name}.index.json", *sorted(parts)]
        else:
            continue
        if sum(sizes[one] for one in found) > MAX_WEIGHTS:
            raise ModelFolderError(
                f"{repository}: its weights are larger than {MAX_WEIGHTS >> 30} GiB, refused"
            )
        return found
    raise ModelFolderError(f"{repository}: no weights in it; expected one of {', '.join(known)}")


def _refuse_large(name: str, size: int) -> None:
    if size > MAX_JSON_BYTES:
        raise ModelFolderError(f"{name} is larger than {MAX_JSON_BYTES >> 20} MiB, refused")


def _download(repository: str, commit: str, names: Sequence[str], endpoint: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    arguments: dict[str, Any] = {"revision": commit, "endpoint": endpoint, "cache_dir": _cache()}
    return Path(snapshot_download(repository, allow_patterns=list(names), **arguments))


def _cache() -> str | None:
    """The client's own choice if None."""
    return os.environ.get("HF_HUB_CACHE")


def _link(folder: Path, snapshot: Path, names: Sequence[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to((snapshot / name).resolve())


def _text_config(folder: Path, endpoint: str | None) -> None:
    """The config of a text tower that lies in a repository of its own: JSON, and nothing else of it."""
    file = folder / foreign_open_clip.OPEN_CLIP
    target = folder / foreign_open_clip.TEXT_CONFIG
    if not file.is_file() or target.is_file():
        return
    config = read_json(file)
    text = config.get("model_cfg", {}).get("text_cfg", {}) if isinstance(config, dict) else {}
    name = text.get("hf_model_name") if isinstance(text, dict) else None
    if not isinstance(name, str) or not HUB_ID.fullmatch(name):
        return
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    told = get_hf_file_metadata(hf_hub_url(name, "config.json", endpoint=endpoint), endpoint=endpoint)
    _refuse_large(f"{name}: config.json", told.size or 0)
    found = Path(hf_hub_download(name, "config.json", endpoint=endpoint, cache_dir=_cache()))
    target.parent.mkdir(exist_ok=True)
    target.symlink_to(found.resolve())


@contextlib.contextmanager
def _one_line(repository: str) -> Iterator[None]:
    """Turns what the hub's client raises into one line with the way out."""
    from huggingface_hub import errors

    try:
        yield
    except PathclipError:
        raise
    except errors.GatedRepoError as error:
        raise ModelFolderError(
            f"{repository}: the hub asks for leave to read it; ask there, then: hf auth login"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelFolderError(f"{repository}: the hub has no such --revision of it") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelFolderError(
            f"{repository}: neither a file nor a folder here, and the hub has no such model (or hides it: "
            "hf auth login)"
        ) from error
    except Exception as error:  # the client raises those of its transport, too
        reason = brief(error, 150)
        raise ModelFolderError(
            f"{repository}: neither a file nor a folder here, and the hub cannot be reached ({reason}); "
            f"where there is a network: hf download {repository} --local-dir {repository.split('/')[-1]}"
        ) from error
