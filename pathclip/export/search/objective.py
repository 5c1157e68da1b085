"""What a recipe is judged by: whether int8 gives the answers of fp32, on samples that no range was read off.

Four losses are measured, each in [0, 1] and 0 for fp32 itself:

- answers: share of the probability that moved from one class to another, ½ Σ|p - q| of the softmax that
  `classify` gives, mean over pictures; among the class prompts where they are known, else among the captions
  of the selection set;
- recall: what R@10 of the pairs loses, the mean of text→image and image→text; a gain counts as 0;
- cosine: 1 - mean cosine similarity to the fp32 embeddings;
- worst: 1 - the 1 % quantile of it.

Fidelity is 1 minus their mean, all weighing alike. Answers and recall are what a user sees; the cosines hold
for tasks that nobody named, and the worst of them tells a recipe that breaks a few pictures and spares the
rest. Probabilities are compared and not the best classes, because among a hundred pictures with captions that
mean nearly the same chance alone turns several best ones over; how many is measured beside, as agreement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.export.calibration.samples import Samples, text_samples
from pathclip.export.gate.answers import class_vectors, found_at
from pathclip.export.graphs.session import embed
from pathclip.runtime.calibration import softmax

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How near a candidate stays to fp32.

    Attributes:
        cosine: mean cosine similarity to fp32.
        worst: its 1 % quantile.
        moved: share of the probability that moved to another answer; 0 where there is but one answer.
        recall_lost: R@10 of fp32 minus that of the candidate; negative where it gained.
        agreement: share of pictures with the same best answer; has no part in the loss.
    """

    cosine: float
    worst: float
    moved: float
    recall_lost: float
    agreement: float

    @property
    def loss(self) -> float:
        """Mean of the losses; see the module."""
        losses = (self.moved, max(self.recall_lost, 0.0), 1 - self.cosine, 1 - self.worst)
        # Rounding can put the cosine of two equal vectors a hair above 1.
        return max(sum(losses) / len(losses), 0.0)

    @property
    def value(self) -> float:
        """1 - loss."""
        return 1 - self.loss

    def as_json(self) -> dict[str, Any]:
        """Rounded figures."""
        figures = {**asdict(self), "fidelity": self.value}
        return {name: round(value, 6) for name, value in figures.items()}


@dataclass(frozen=True, slots=True)
class ClassPrompts:
    """Tokens of the prompts of some classes.

    Attributes:
        tokens: int64 [prompts, context_length].
        owners: class number of each prompt, int64 [prompts].
    """

    tokens: NDArray[np.int64]
    owners: NDArray[np.int64]


class Objective:
    """Judges an int8 tower beside the other tower in fp32, so that each is chosen for itself.

    Args:
        fp32: 'image' and 'text' → fp32 ONNX file.
        selection: pairs that no range was read off.
        logit_scale: of the model; what the softmax multiplies cosines by.
        prompts: of the classes to answer with; None takes the captions of the selection.
    """

    def __init__(
        self,
        fp32: Mapping[str, Path],
        selection: Samples,
        logit_scale: float,
        prompts: ClassPrompts | None = None,
    ) -> None:
        self.selection = selection
        self.logit_scale = logit_scale
        self.prompts = prompts
        self.among = "classes" if prompts else "captions"
        self._asked = text_samples(prompts.tokens, selection.preprocess) if prompts else None
        captions = np.array(selection.texts)
        self._same = captions[:, None] == captions[None, :]
        self._distinct = np.unique(captions, return_index=True)[1]
        self._exact = {tower: embed(fp32[tower], tower, selection) for tower in ("image", "text")}
        self._classes = self._class_vectors(fp32["text"], self._exact["text"])
        self._answers = self._probabilities(self._exact["image"], self._classes)
        self._recall = self._recall_of(self._exact["image"], self._exact["text"])

    def exact(self, tower: str) -> Rows:
        """The fp32 embeddings [n, d] of the selection."""
        return self._exact[tower]

    def measure(self, tower: str, file: Path) -> Fidelity:
        """Runs an int8 tower over the selection set and compares it with fp32.

        Args:
            tower: 'image' or 'text'.
            file: its ONNX file.
        """
        rows = embed(file, tower, self.selection)
        sides = {**self._exact, tower: rows}
        classes = self._class_vectors(file, rows) if tower == "text" else self._classes
        cosine = (self._exact[tower] * rows).sum(axis=1)
        answers = self._probabilities(sides["image"], classes)
        return Fidelity(
            cosine=float(cosine.mean()),
            worst=float(np.quantile(cosine, 0.01)),
            moved=float(np.abs(answers - self._answers).sum(axis=1).mean() / 2),
            recall_lost=self._recall - self._recall_of(sides["image"], sides["text"]),
            agreement=float((answers.argmax(axis=1) == self._answers.argmax(axis=1)).mean()),
        )

    def _class_vectors(self, text_tower: Path, captions: Rows) -> Rows:
        if self.prompts is None or self._asked is None:
            return captions[self._distinct]
        return class_vectors(embed(text_tower, "text", self._asked), self.prompts.owners)

    def _probabilities(self, images: Rows, classes: Rows) -> NDArray[np.float64]:
        return softmax(images @ classes.T, self.logit_scale)

    def _recall_of(self, images: Rows, texts: Rows) -> float:
        found = [found_at(texts, images, self._same), found_at(images, texts, self._same)]
        return float(np.mean(found))
