"""Retrieval equals what others compute from the same embeddings, where their definitions coincide.

clip_benchmark has pictures with several captions each; here every caption is a pair of its own, so a picture
with five captions stands in the data five times. Then

- image to text is the same figure, with the picture as the group: both search all captions, and the five
  equal queries weigh what one weighs there;
- text to image is not: there every picture is in the pool once, here five times, and copies of a picture take
  five places in a row. Recall@k there is recall@5k here.

With one caption per picture, both directions are `exact_pair`. Equal similarities have no stated order there.
torchmetrics leaves relevant items of a similarity of 0 or less out of average precision; here none is.
"""

from __future__ import annotations

import numpy as np
import pytest

from pathclip.evaluate.image_text import retrieval
from pathclip.runtime.encoder import normalise

torch = pytest.importorskip("torch")
KS = [1, 5, 10, 50]


class Known:
    """A model to clip_benchmark: its embeddings are its inputs."""

    def encode_image(self, images):
        return images

    def encode_text(self, texts):
        return texts


def theirs(images, texts, captions, ks):
    """clip_benchmark's own evaluation, in batches of 16 pictures."""
    peer = pytest.importorskip("clip_benchmark.metrics.zeroshot_retrieval")
    batches = [
        (
            torch.from_numpy(images[start : start + 16]),
            [
                list(texts[captions * one : captions * (one + 1)])
                for one in range(start, min(start + 16, len(images)))
            ],
        )
        for start in range(0, len(images), 16)
    ]

    def tokenizer(listed):
        return torch.from_numpy(np.stack(listed))

    return peer.evaluate(Known(), batches, tokenizer, "cpu", amp=False, recall_k_list=ks)


def embeddings(pictures, captions, dim=16):
    rng = np.random.default_rng(0)
    images = normalise(rng.normal(size=(pictures, dim)))
    texts = normalise(np.repeat(images, captions, axis=0) + rng.normal(size=(pictures * captions, dim)))
    return images, texts


def recalls(queries, items, relevant, ks):
    rank = retrieval.ranks(queries, items, relevant)
    return [float(retrieval.recall_at(k, rank).mean()) for k in ks]


def test_with_one_caption_per_picture_both_directions_are_those_of_clip_benchmark():
    images, texts = embeddings(90, 1)
    relevant = retrieval.relevance("exact_pair", [str(n) for n in range(90)], np.arange(90))
    found = theirs(images, texts, 1, KS)
    assert recalls(texts, images, relevant, KS) == pytest.approx(
        [found[f"image_retrieval_recall@{k}"] for k in KS], abs=1e-6
    )
    assert recalls(images, texts, relevant, KS) == pytest.approx(
        [found[f"text_retrieval_recall@{k}"] for k in KS], abs=1e-6
    )


def test_with_five_captions_per_picture_image_to_text_is_that_of_clip_benchmark():
    images, texts = embeddings(30, 5)
    relevant = retrieval.relevance("same_text_or_group", [str(n) for n in range(150)], np.arange(150) // 5)
    found = theirs(images, texts, 5, [1, 5, 10])
    assert recalls(np.repeat(images, 5, axis=0), texts, relevant, [1, 5, 10]) == pytest.approx(
        [found[f"text_retrieval_recall@{k}"] for k in (1, 5, 10)], abs=1e-6
    )


def test_with_five_captions_per_picture_text_to_image_needs_five_times_the_k_of_clip_benchmark():
    images, texts = embeddings(30, 5)
    relevant = retrieval.relevance("same_text_or_group", [str(n) for n in range(150)], np.arange(150) // 5)
    found = theirs(images, texts, 5, [1, 5, 10])
    assert recalls(texts, np.repeat(images, 5, axis=0), relevant, [5, 25, 50]) == pytest.approx(
        [found[f"image_retrieval_recall@{k}"] for k in (1, 5, 10)], abs=1e-6
    )


def test_average_precision_is_that_of_torchmetrics():
    from torchmetrics.functional.retrieval import retrieval_average_precision

    images, texts = embeddings(30, 5)
    images = np.repeat(images, 5, axis=0)
    relevant = retrieval.relevance("same_text_or_group", [str(n) for n in range(150)], np.arange(150) // 5)
    mask = relevant.mask(np.arange(150))
    above_zero = images.astype(np.float64) @ texts.T.astype(np.float64) + 2
    expected = [
        float(retrieval_average_precision(torch.from_numpy(row), torch.from_numpy(counts)))
        for row, counts in zip(above_zero, mask, strict=True)
    ]
    found = retrieval.places(images, texts, [relevant])[0].average_precision
    assert found == pytest.approx(expected, abs=1e-6)
