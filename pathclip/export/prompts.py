"""Class prompts of an export: what the gate asks with, and what the folder keeps the embeddings of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pathclip.errors import ConfigError
from pathclip.export.calibration.labelled import prompt_texts, task_classes
from pathclip.export.calibration.samples import LabelledSamples, text_samples
from pathclip.export.gate.gate import Prompts
from pathclip.export.graphs.session import embed
from pathclip.export.search.objective import ClassPrompts
from pathclip.model_folder import ModelFolder
from pathclip.runtime.calibration import read_calibrations
from pathclip.runtime.classify import TEMPLATES
from pathclip.runtime.preprocess import Preprocess
from pathclip.runtime.tokenizer import Tokenizer


def named_classes(cfg: Any, folder: ModelFolder) -> tuple[str, ...]:
    """Classes from the config; else the card's, unless a task brings its own."""
    if cfg.prompts.classes or cfg.tasks:
        return tuple(cfg.prompts.classes or ())
    return tuple((folder.card.get("prompts") or {}).get("classes") or ())


def templates(cfg: Any, folder: ModelFolder) -> tuple[str, ...]:
    """Sentences from the config, else from the card, else those of `classify`.

    Raises:
        ConfigError: a template without `{}`, by which all classes would be one.
    """
    found = tuple(cfg.prompts.templates or card_templates(folder))
    for template in found:
        if "{}" not in template:
            raise ConfigError(f"prompts.templates: '{template}' has no {{}} where the class goes")
    return found


def card_templates(folder: ModelFolder) -> tuple[str, ...]:
    """What `classify` asks with where nobody names templates."""
    return tuple((folder.card.get("prompts") or {}).get("templates") or TEMPLATES)


def gate_prompts(classes: Sequence[str], sentences: Sequence[str], tokenizer: Tokenizer) -> Prompts | None:
    """The prompts of the named classes; None if there are fewer than two."""
    if len(classes) < 2:
        return None
    texts, _ = prompt_texts({name: [name] for name in classes}, sentences)
    return Prompts(tuple(classes), tokenizer(texts))


def search_prompts(prompts: Prompts | None, labelled: LabelledSamples | None) -> ClassPrompts | None:
    """What the search asks with: the gate's prompts, else the labelled pictures' own."""
    if prompts is not None:
        return ClassPrompts(prompts.tokens, prompts.prompt_classes)
    return ClassPrompts(labelled.prompts, labelled.prompt_classes) if labelled else None


def stored_texts(cfg: Any, folder: ModelFolder, tasks: Iterable[Any]) -> list[str]:
    """Every prompt whose embedding the folder keeps, so that `classify` need not load the text tower for it.

    Those of the card's classes, of its calibrated tasks, of `prompts.classes` and of `task`.
    """
    own = card_templates(folder)
    wanted: list[tuple[Mapping[str, Sequence[str]], Sequence[str]]] = [
        (one.classes, one.templates) for one in read_calibrations(folder)
    ]
    for name in (*((folder.card.get("prompts") or {}).get("classes") or ()), *(cfg.prompts.classes or ())):
        wanted.append(({name: [name]}, (*own, *(cfg.prompts.templates or ()))))
    for task in tasks:
        classes = task_classes(task)
        wanted += [(classes, task.templates or TEMPLATES), ({name: [name] for name in classes}, own)]
    return list(dict.fromkeys(text for classes, used in wanted for text in prompt_texts(classes, used)[0]))


def embed_prompts(
    texts: Sequence[str], towers: Mapping[str, Path], tokenizer: Tokenizer, preprocess: Preprocess
) -> dict[str, dict[str, NDArray[Any]]]:
    """Precision → prompt → L2-normalised float32 [d], each by its own text tower.

    Args:
        texts: different prompts; none gives an empty mapping.
        towers: precision → ONNX file of the text tower.
        tokenizer: of the model.
        preprocess: of the model.
    """
    if not texts:
        return {}
    samples = text_samples(tokenizer(list(texts)), preprocess)
    return {
        precision: dict(zip(texts, embed(file, "text", samples), strict=True))
        for precision, file in towers.items()
    }
