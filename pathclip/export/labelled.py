"""Labelled pictures for the gate: an evaluation task's, else the held-out pairs whose shards name a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from pathclip.errors import ConfigError, DataError
from pathclip.evaluate.classification.zeroshot import check_prompts
from pathclip.evaluate.classification.zeroshot_task import ZeroShot, class_numbers
from pathclip.evaluate.datasets import LabelledImages
from pathclip.export.samples import LabelledSamples, Samples
from pathclip.progress import track
from pathclip.runtime.classify import TEMPLATES, fill
from pathclip.runtime.preprocess import Preprocess, open_image
from pathclip.runtime.tokenizer import Tokenizer


def labelled_by_task(
    name: str, task: object, limit: int, calibration: Samples, tokenizer: Tokenizer
) -> LabelledSamples:
    """The validation pictures of a zero-shot task, else those it tests on, without those of the calibration.

    Args:
        name: of the task.
        task: as `task=…` builds it.
        limit: pictures at most, the classes in turn.
        calibration: pairs that recipes are fitted and chosen on.
        tokenizer: of the model.

    Raises:
        ConfigError: another kind of task.
        DataError: pictures or prompts that the task would refuse.
    """
    if not isinstance(task, ZeroShot):
        raise ConfigError(
            f"task: '{name}' is no zero-shot task, which is what an export measures accuracy on; name "
            "another, as in task=lc25000"
        )
    images = task.dataset.validation or task.dataset.test
    classes = task_classes(task)
    check_prompts(classes, task.templates or TEMPLATES)
    images = images.first(limit)
    try:
        numbers = class_numbers(images, list(classes))
    except DataError as error:
        raise DataError(f"task {name}: {error}") from None
    pixels = _pixels(images, calibration.preprocess, name)
    known = {one.tobytes() for one in calibration.pixels}
    kept = [number for number, one in enumerate(pixels) if one.tobytes() not in known]
    if not kept:
        raise DataError(f"task {name}: all its pictures are among the calibration pairs; name another")
    prompts, owners = prompt_texts(classes, task.templates or TEMPLATES)
    return LabelledSamples(
        pixels[kept],
        numbers[kept],
        tuple(images.groups[i] or images.paths[i] for i in kept),
        tuple(classes),
        tokenizer(prompts),
        np.array(owners, np.int64),
        calibration.preprocess,
        f"task {name}, {images.split} pictures",
    )


def labelled_by_pairs(
    held_out: Samples, classes: Sequence[str], templates: Sequence[str], tokenizer: Tokenizer
) -> LabelledSamples | None:
    """The held-out pairs whose shards name their class; None unless there are two classes that all have some.

    Args:
        held_out: pairs with `labels`.
        classes: names to be told apart; none takes every label there is.
        templates: sentences with `{}` for the class.
        tokenizer: of the model.
    """
    found = Counter(label for label in held_out.labels if label)
    names = tuple(classes) or tuple(sorted(found))
    if len(names) < 2 or any(name not in found for name in names):
        return None
    kept = [number for number, label in enumerate(held_out.labels) if label in names]
    prompts, owners = prompt_texts({name: [name] for name in names}, templates)
    part = held_out.take(kept)
    return LabelledSamples(
        part.pixels,
        np.array([names.index(label) for label in part.labels], np.int64),
        part.groups,
        names,
        tokenizer(prompts),
        np.array(owners, np.int64),
        part.preprocess,
        "held-out pairs",
    )


def task_classes(task: ZeroShot) -> dict[str, list[str]]:
    """Class → its wordings; the task's own, else the names in its data."""
    if task.classes:
        return {name: list(words) or [name] for name, words in task.classes.items()}
    return {label: [label] for label in sorted(set(task.dataset.test.labels))}


def prompt_texts(
    classes: Mapping[str, Sequence[str]], templates: Sequence[str]
) -> tuple[list[str], list[int]]:
    """All prompts, one class after another, and the class number of each.

    >>> prompt_texts({"a": ["x", "y"], "b": ["z"]}, ["{}."])
    (['x.', 'y.', 'z.'], [0, 0, 1])
    """
    prompts, owners = [], []
    for number, words in enumerate(classes.values()):
        for word in words:
            prompts += [fill(template, word) for template in templates]
            owners += [number] * len(templates)
    return prompts, owners


def _pixels(images: LabelledImages, preprocess: Preprocess, name: str) -> np.ndarray:
    contents = track(images.contents(range(len(images))), f"Reading pictures of {name}", len(images))
    found = []
    for path, content in zip(images.paths, contents, strict=True):
        try:
            found.append(preprocess.pixels(open_image(content)))
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
    return np.stack(found)
