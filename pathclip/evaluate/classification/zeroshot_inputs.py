"""From labelled pictures and prompts to a `Measured` zero-shot task: checked, then encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import DataError
from pathclip.evaluate import profile, stats
from pathclip.evaluate.classification import zeroshot
from pathclip.evaluate.datasets import LabelledData, LabelledImages
from pathclip.evaluate.features.encode import data_hash, encode_dataset
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Measured, Settings, Split

Numbers = NDArray[np.int64]


def measured_task(
    name: str,
    data: LabelledData,
    classes: Mapping[str, Sequence[str]],
    templates: Sequence[str],
    variants: Sequence[str],
    subjects: Sequence[Subject],
    settings: Settings,
) -> Measured:
    """Checks classes and prompts, then encodes the splits: each by whom something asks of it.

    The training rows are encoded by the subjects if a measure learns from them, and else give colours alone;
    the validation rows are read if there is any measure.

    Raises:
        DataError: a class without example, an example without class, prompts that are empty or shared, a
            picture that cannot be read, embeddings that are not numbers.
    """
    validation = data.validation if settings.measures else None
    try:
        truth, learnt, fitted = (
            class_numbers(part, list(classes)) if part else None
            for part in (data.test, data.train, validation)
        )
        vectors = {one.key: prompt_vectors(one, classes, templates, settings) for one in subjects}
    except DataError as error:
        raise DataError(f"task {name}: {error}") from None

    def encode(
        images: LabelledImages | None, numbers: Numbers | None, by: Sequence[Subject], what: str
    ) -> Split | None:
        if not images or numbers is None:
            return None
        found = encode_dataset(images, by, variants, settings, f"{name}: {what}")
        return Split(images, numbers, stats.group_index(images.groups), found)

    tested = encode(data.test, truth, subjects, "test pictures")
    if tested is None:
        raise DataError(f"task {name}: there is no picture to test on")
    learns = any(measure.learns for measure in settings.measures.values())
    context = {
        "task": name,
        "data_hash": data_hash(tested.encoded.sha256, data.test.labels, data.test.groups),
        "groups": int(tested.groups.max()) + 1,
        "grouped": any(data.test.groups),
        "resamples": settings.resamples,
        "seed": settings.seed,
        "code_version": settings.code_version,
        "prompts": {
            "templates": list(templates),
            "classes": {key: list(row) for key, row in classes.items()},
        },
    }
    return Measured(
        name,
        subjects,
        settings,
        classes,
        templates,
        variants,
        vectors,
        tested,
        encode(data.train, learnt, subjects if learns else [], "training pictures" if learns else "colours"),
        encode(validation, fitted, subjects, "validation pictures"),
        context,
    )


def prompt_vectors(
    subject: Subject, classes: Mapping[str, Sequence[str]], templates: Sequence[str], settings: Settings
) -> NDArray[np.float32]:
    """`zeroshot.class_vectors`, its time counted as the encoder's."""
    with profile.measured(settings.profile, "encoder", f"{subject.key}, prompts"):
        return zeroshot.class_vectors(subject.encoder, classes, templates)


def limited(data: LabelledData, limit: int | None) -> LabelledData:
    """At most `limit` pictures of each split, the classes in turn."""
    train, validation = (part.first(limit) if part else None for part in (data.train, data.validation))
    return LabelledData(data.test.first(limit), train, validation)


def class_numbers(images: LabelledImages, classes: Sequence[str]) -> Numbers:
    """The class of each picture as a number: int64 [n].

    Raises:
        DataError: a picture of no class of the task, or (in the test split) a class without picture.
    """
    position = {name: number for number, name in enumerate(classes)}
    for path, label in zip(images.paths, images.labels, strict=True):
        if label not in position:
            raise DataError(f"{path}: its class '{label}' is none of {', '.join(classes)}")
    missing = [name for name in classes if name not in images.labels]
    if missing and images.split == "test":
        raise DataError(
            f"class '{missing[0]}' has no example among the {len(images)} pictures to test on; "
            "take it out of the classes or choose other rows"
        )
    return np.array([position[label] for label in images.labels], np.int64)
