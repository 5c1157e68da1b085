"""Zero-shot classification: a picture's nearest class descriptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathclip.errors import DataError
from pathclip.runtime.calibration import Answer, Calibrated, softmax
from pathclip.runtime.cores import available_cores
from pathclip.runtime.encoder import Encoder, normalise
from pathclip.runtime.images import Batch, read_batches
from pathclip.runtime.prompt_store import prompt_embeddings
from pathclip.types import Label

if TYPE_CHECKING:
    from pathclip.runtime.prompt_cache import PromptCache

# Used where the model's card has none; wordings that captions of histopathology use.
TEMPLATES = (
    "an H&E image of {}.",
    "histopathology of {}.",
    "a histopathology slide showing {}.",
    "a photomicrograph of {}.",
    "{}, H&E stain.",
    "{}.",
)
Labels = Sequence[str] | Mapping[str, Sequence[str]]
Pictures = Sequence[Image.Image] | Sequence[str] | Sequence[Path] | NDArray[np.uint8]
BATCH = 16


def class_embeddings(
    encoder: Encoder, labels: Labels, templates: Sequence[str], cache: PromptCache | None = None
) -> NDArray[np.float32]:
    """One vector per class by prompt ensembling (Radford et al. 2021, arXiv:2103.00020, section 3.1.4).

    Args:
        encoder: whose text tower is used, unless its folder or the cache has the embeddings of all prompts.
        labels: class names, or class name → wordings of it; all wordings weigh the same.
        templates: sentences with `{}` where the class goes.
        cache: where embeddings of prompts are kept between calls; None for nowhere.

    Returns:
        float32 [classes, d]: the mean of the normalised embeddings of templates x wordings, normalised
        again; in the order of `labels`.

    Raises:
        DataError: fewer than one class, a class given twice or without words, a template without `{}`.
    """
    wordings = label_wordings(labels)
    _check_templates(templates)
    prompts = [[fill(t, word) for word in words for t in templates] for words in wordings.values()]
    vectors = prompt_embeddings(encoder, [prompt for group in prompts for prompt in group], cache)
    ends = np.cumsum([len(group) for group in prompts])
    return normalise(np.stack([part.mean(axis=0) for part in np.split(vectors, ends[:-1])]))


def classify(
    encoder: Encoder,
    images: Pictures,
    labels: Labels,
    templates: Sequence[str] | None = None,
    embeddings: NDArray[np.float32] | None = None,
) -> list[list[Label]]:
    """Classifies pictures by the similarity to descriptions of the classes.

    Args:
        encoder: a model with its towers.
        images: files, opened pictures, or uint8 [n, h, w, 3].
        labels: as in `class_embeddings`.
        templates: as in `class_embeddings`; None takes the model's own, see `own_templates`.
        embeddings: [classes, d] from an earlier `class_embeddings` of the same labels; the text tower
            is then not needed.

    Returns:
        Per picture all classes, the most probable first. Probabilities are the softmax of
        `logit_scale * cosine similarity`: they compare the given classes with each other and are no
        probability that the picture shows any of them.

    Raises:
        DataError: as `class_embeddings`, a file cannot be read, or `embeddings` does not fit the labels.
    """
    names = list(label_wordings(labels))
    if templates is None:
        templates = own_templates(encoder)
    similarities = _similarities(encoder, images, labels, templates, embeddings)
    return [rank_labels(names, row, encoder.logit_scale) for row in similarities]


def classify_calibrated(
    encoder: Encoder,
    images: Pictures,
    calibrated: Calibrated,
    embeddings: NDArray[np.float32] | None = None,
) -> list[Answer]:
    """Classifies pictures into the classes of a calibrated task, by its wordings and templates.

    Args:
        encoder: the model that was calibrated, in the same precision.
        images: files, opened pictures, or uint8 [n, h, w, 3].
        calibrated: from `pathclip.runtime.calibration.of_task`.
        embeddings: [classes, d] from an earlier `class_embeddings` of its classes and templates.

    Returns:
        Per picture all classes with calibrated probabilities, the conformal set, and whether it is none
        of the classes. All hold for pictures like those fitted on.

    Raises:
        DataError: as `classify`.
    """
    similarities = _similarities(encoder, images, calibrated.classes, calibrated.templates, embeddings)
    return [calibrated.answer(row) for row in similarities]


def encode_pictures(encoder: Encoder, images: Pictures) -> NDArray[np.float32]:
    """Embeddings of files, opened pictures, or uint8 [n, h, w, 3]: L2-normalised float32 [n, d].

    Files are decoded in threads beside the encoder, a bounded number ahead.

    Raises:
        DataError: a file cannot be read, which is named; or one picture stands where a list is due.
    """
    if isinstance(images, str | Path | Image.Image):
        raise DataError('images: a list is needed, also for one picture: ["tile.jpg"]')
    if isinstance(images, np.ndarray) or not len(images) or not isinstance(images[0], str | Path):
        return encoder.encode_images(cast(Sequence[Image.Image], images))
    paths = [Path(path) for path in cast(Sequence[str | Path], images)]
    workers = min(available_cores(), len(paths))
    batches = read_batches(paths, encoder.preprocess, BATCH, workers)
    return np.concatenate([encoder.encode_images(_all_read(batch)) for batch in batches])


def _all_read(batch: Batch[Path]) -> NDArray[np.uint8]:
    for _, error in batch.failed:
        raise error
    return batch.pixels


def own_templates(encoder: Encoder) -> tuple[str, ...]:
    """The templates that the model's card names, or else `TEMPLATES`."""
    # Whoever tries out an encoder of their own need not have a folder.
    folder = getattr(encoder, "folder", None)
    named = (folder.card.get("prompts") or {}).get("templates") if folder else None
    return tuple(named or TEMPLATES)


def rank_labels(names: Sequence[str], similarities: NDArray[np.float32], logit_scale: float) -> list[Label]:
    """Similarities [classes] of one picture to its labels, the most probable first."""
    (probabilities,) = softmax(similarities[None], logit_scale)
    order = np.argsort(-probabilities, kind="stable")
    return [Label(names[i], float(probabilities[i]), float(similarities[i])) for i in order]


def fill(template: str, label: str) -> str:
    """The template with the label at `{}`; unlike `str.format` it evaluates nothing."""
    return template.replace("{}", label)


def label_wordings(labels: Labels) -> dict[str, list[str]]:
    """Class name → its wordings, checked.

    Raises:
        DataError: no class, an empty one, or one given twice.
    """
    if isinstance(labels, str):
        raise DataError('labels: a list is needed: ["tumour", "normal"]')
    if isinstance(labels, Mapping):
        # A bare text would be taken for a list of its letters.
        listed = {name: [words] if isinstance(words, str) else list(words) for name, words in labels.items()}
        wordings = {name: words or [name] for name, words in listed.items()}
    else:
        wordings = {name: [name] for name in labels}
        if len(wordings) < len(labels):
            raise DataError(f"labels: each class once, please: {', '.join(labels)}")
    if not wordings:
        raise DataError("labels: no class given")
    if any(not word.strip() for words in wordings.values() for word in words):
        raise DataError("labels: an empty wording")
    return wordings


def _similarities(
    encoder: Encoder,
    images: Pictures,
    labels: Labels,
    templates: Sequence[str],
    embeddings: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """Cosine similarities [n, classes] of pictures to the descriptions of the classes."""
    if embeddings is None:
        embeddings = class_embeddings(encoder, labels, templates)
    if embeddings.shape != (len(labels), encoder.dim):
        raise DataError(
            f"class embeddings {list(embeddings.shape)} for {len(labels)} labels of dimension {encoder.dim}"
        )
    similarities: NDArray[np.float32] = encode_pictures(encoder, images) @ embeddings.T
    return similarities


def _check_templates(templates: Sequence[str]) -> None:
    if isinstance(templates, str):
        raise DataError('templates: a list is needed: ["an H&E image of {}"]')
    if not templates:
        raise DataError("templates: none given")
    for template in templates:
        if "{}" not in template:
            raise DataError(f"templates: '{template}' has no {{}} where the label goes")
