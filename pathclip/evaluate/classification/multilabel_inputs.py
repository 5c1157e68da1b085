"""From pictures with any number of classes and prompts to what a multi-label task measures on, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import DataError
from pathclip.evaluate.classification import zeroshot
from pathclip.evaluate.datasets import MultiLabelImages
from pathclip.evaluate.features.encode import Encoded, encode_dataset
from pathclip.evaluate.stats import group_index
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Answers, Settings
from pathclip.evaluate.validation_rows import apart_from_test, encoded_part
from pathclip.runtime.classify import class_embeddings

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MultiLabelSplit:
    """Pictures after encoding.

    Attributes:
        images: what they are.
        present: which classes each shows, bool [n, c].
        groups: group numbers int64 [n], from `stats.group_index`.
        encoded: their embeddings, colours and hashes.
    """

    images: MultiLabelImages
    present: NDArray[np.bool_]
    groups: NDArray[np.int64]
    encoded: Encoded


def presence(images: MultiLabelImages, classes: Sequence[str]) -> NDArray[np.bool_]:
    """Which classes each picture shows: bool [n, c].

    Raises:
        DataError: a picture shows a class that the task does not have; or, in the test split, a class is
            shown by no picture or by every one, so that there is nothing to tell apart.
    """
    for path, labels in zip(images.paths, images.labels, strict=True):
        if unknown := sorted(labels - {*classes}):
            raise DataError(f"{path}: its class '{unknown[0]}' is none of {', '.join(classes)}")
    n = len(images)
    present = np.array([[key in labels for key in classes] for labels in images.labels], np.bool_)
    present = present.reshape(n, len(classes))
    for key, shown in zip(classes, present.sum(axis=0), strict=True):
        if images.split == "test" and shown in (0, n):
            raise DataError(
                f"class '{key}' is shown by {'all' if shown else 'none'} of the {n} pictures to test on, so "
                "nothing can be measured; take it out of the classes or choose other rows"
            )
    return present


def encoded_split(
    images: MultiLabelImages,
    present: NDArray[np.bool_],
    subjects: Sequence[Subject],
    variants: Sequence[str],
    settings: Settings,
    description: str,
) -> MultiLabelSplit:
    """Encodes the pictures with every subject in every variant."""
    found = encode_dataset(images, subjects, variants, settings, description)
    return MultiLabelSplit(images, present, group_index(images.groups), found)


def without_tested(
    validation: MultiLabelSplit, test: MultiLabelSplit
) -> tuple[MultiLabelSplit | None, list[str]]:
    """Those validation rows that may be fitted on, None if there are none, and a remark on the others."""
    kept, remarks = apart_from_test(validation, test)
    if not len(kept):
        return None, remarks
    images, encoded = validation.images.take(kept.tolist()), encoded_part(validation.encoded, kept)
    return MultiLabelSplit(images, validation.present[kept], group_index(images.groups), encoded), remarks


def presence_answers(
    test: MultiLabelSplit, decided: NDArray[np.bool_], classes: Sequence[str], about: Mapping[str, Any]
) -> list[Answers]:
    """What an encoder decided, a sheet for each class: is it there or not?

    Args:
        test: the pictures.
        decided: bool [n, c].
        classes: names.
        about: of the answers; `class` is added.
    """
    words = np.array(["absent", "present"])
    return [
        Answers(
            {**about, "class": name},
            test.encoded.sha256,
            test.images.groups,
            tuple(words[test.present[:, number].astype(int)].tolist()),
            tuple(words[decided[:, number].astype(int)].tolist()),
        )
        for number, name in enumerate(classes)
    ]


def presence_vectors(
    subject: Subject,
    classes: Mapping[str, Sequence[str]],
    templates: Sequence[str],
    negatives: Mapping[str, Sequence[str]],
) -> Floats:
    """What embeddings are multiplied with to give scores, [c, d]: the class, less its absence if it has one.

    Raises:
        DataError: prompts that are empty or shared, wordings of absence of no class, or an embedding that is
            not a number.
    """
    vectors = zeroshot.class_vectors(subject.encoder, classes, templates).astype(np.float64)
    for key, words in negatives.items():
        if key not in classes:
            raise DataError(f"negatives: '{key}' is none of the classes {', '.join(classes)}")
        if not words:
            raise DataError(f"negatives: class '{key}' has no wording; write one or leave it out")
        zeroshot.check_prompts({key: classes[key], f"absence of {key}": words}, templates)
    if negatives:
        absence = class_embeddings(subject.encoder, negatives, templates)
        for key, vector in zip(negatives, absence, strict=True):
            if not np.isfinite(vector).all():
                raise DataError(
                    f"{subject.title}: the text embedding of the absence of '{key}' is not a number"
                )
            vectors[list(classes).index(key)] -= vector
    return vectors
