"""What every loss is computed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

# What a loss needs beside the embeddings of both towers; `loss.needs` names them.
Need = Literal["logit_bias", "teacher", "decoder"]


@dataclass(slots=True)
class Features:
    """What a loss is computed from: the pairs of this process.

    Attributes:
        image: L2-normalised [n, d].
        text: L2-normalised [n, d].
        logit_scale: the factor itself (not its logarithm), a scalar.
        group: int64 [n]; equal numbers mean the same group.
        caption: int64 [n]; equal numbers mean the same text.
        logit_bias: a scalar, of models trained with the sigmoid loss.
        teacher_image: L2-normalised [n, teacher's d]; without gradient.
        teacher_text: likewise.
        teacher_scale: the teacher's factor.
        unlabelled: L2-normalised [m, d], of pictures that have no texts; None where there are none.
        teacher_unlabelled: L2-normalised [m, teacher's d] of these; without gradient.
        token_logits: [n, length, vocabulary], of models with a decoder (CoCa).
        token_labels: int64 [n, length], what the decoder should have said.
    """

    image: Tensor
    text: Tensor
    logit_scale: Tensor
    group: Tensor
    caption: Tensor
    logit_bias: Tensor | None = None
    teacher_image: Tensor | None = None
    teacher_text: Tensor | None = None
    teacher_scale: float | None = None
    unlabelled: Tensor | None = None
    teacher_unlabelled: Tensor | None = None
    token_logits: Tensor | None = None
    token_labels: Tensor | None = None
