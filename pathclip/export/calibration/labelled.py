"""Labelled pictures for the gate: an evaluation task's, else the held-out pairs whose shards name a class."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathclip.curate.images import perceptual_hashes
from pathclip.errors import ConfigError, DataError
from pathclip.evaluate.classification.zeroshot import check_prompts
from pathclip.evaluate.classification.zeroshot_task import ZeroShot, class_numbers
from pathclip.evaluate.datasets import LabelledImages
from pathclip.evaluate.leaks import FLAT, LEAST_BITS, find_leak
from pathclip.export.calibration.samples import LabelledSamples, Samples
from pathclip.progress import track
from pathclip.runtime.classify import TEMPLATES, fill
from pathclip.runtime.preprocess import Preprocess, open_image
from pathclip.runtime.tokenizer import Tokenizer
from pathclip.train.training_pictures import from_hashes

TEST_PICTURES = "test pictures of the task, not validation"


def labelled_by_task(
    name: str, task: object, limit: int, fitted: Sequence[Samples], tokenizer: Tokenizer
) -> LabelledSamples:
    """The validation pictures of a zero-shot task, else those it tests on, without what was calibrated on.

    Left out are pictures of a group that was, and those that are, or nearly are, one that was, in any flip or
    rotation, as the tower sees them; see `pathclip.evaluate.leaks`.

    Args:
        name: of the task.
        task: as `task=…` builds it.
        limit: pictures at most, the classes in turn.
        fitted: sets of pairs that ranges are read off and recipes chosen on; at least one.
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
    pixels = _pixels(images, fitted[0].preprocess, name)
    groups = {group for part in fitted for group in part.groups if group}
    seen = _seen(pixels, np.concatenate([part.pixels for part in fitted]))
    kept = [i for i, group in enumerate(images.groups) if not seen[i] and group not in groups]
    if not kept:
        raise DataError(
            f"task {name}: all its pictures, or their groups, are among the calibration pairs; name another"
        )
    prompts, owners = prompt_texts(classes, task.templates or TEMPLATES)
    return LabelledSamples(
        pixels[kept],
        numbers[kept],
        tuple(images.groups[i] or images.paths[i] for i in kept),
        tuple(classes),
        tokenizer(prompts),
        np.array(owners, np.int64),
        fitted[0].preprocess,
        f"task {name}, validation pictures" if task.dataset.validation else f"task {name}, {TEST_PICTURES}",
    )


def labelled_by_pairs(
    held_out: Samples,
    classes: Sequence[str],
    templates: Sequence[str],
    tokenizer: Tokenizer,
    source: str = "held-out pairs",
) -> LabelledSamples | None:
    """The held-out pairs whose shards name their class; None unless there are two classes that all have some.

    Args:
        held_out: pairs with `labels`.
        classes: names to be told apart; none takes every label there is.
        templates: sentences with `{}` for the class.
        tokenizer: of the model.
        source: of the pairs, for people.
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
        source,
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


def _seen(pixels: NDArray[np.uint8], known: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which pictures [n, h, w, 3] are, or nearly are, one of the known [m, h, w, 3]: bool [n]."""
    hashes = np.array([perceptual_hashes(Image.fromarray(one)) for one in pixels], np.uint64)
    theirs = [perceptual_hashes(Image.fromarray(one))[0] for one in known]
    telling = np.bitwise_count(hashes[:, 0]) >= LEAST_BITS
    telling &= pixels.std(axis=(1, 2)).mean(axis=1) >= FLAT  # a blank tile is near to any other
    return find_leak(from_hashes(_digests(known), theirs), _digests(pixels), hashes, telling).mask


def _digests(pixels: NDArray[np.uint8]) -> list[str]:
    return [hashlib.sha256(one.tobytes()).hexdigest() for one in pixels]


def _pixels(images: LabelledImages, preprocess: Preprocess, name: str) -> np.ndarray:
    contents = track(images.contents(range(len(images))), f"Reading pictures of {name}", len(images))
    found = []
    for path, content in zip(images.paths, contents, strict=True):
        try:
            found.append(preprocess.pixels(open_image(content)))
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
    return np.stack(found)
