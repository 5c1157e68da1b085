"""Augmentation of stains: how much haematoxylin, eosin and DAB a section took up."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

# Optical density of each stain in red, green and blue: Ruifrok & Johnston, Quantification of
# histochemical staining by color deconvolution, Anal Quant Cytol Histol 23:291–299, 2001.
STAINS = ("haematoxylin", "eosin", "DAB")
DENSITIES = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
# Black has no finite density: intensities 0–255 are taken as 1–256, which can be undone exactly.
_LEVELS = 256


@dataclass(frozen=True)
class StainJitter:
    """Makes each stain of a picture stronger or weaker: amount · a + b, a and b drawn for each stain.

    Colour deconvolution after Ruifrok & Johnston 2001, jitter after Tellez et al., Whole-slide mitosis
    detection in H&E breast histology using PHH3 as a reference to train distilled stain-invariant
    convolutional networks, IEEE Trans Med Imaging 37:2126–2136, 2018.

    Args:
        alpha: a is drawn from [1 - alpha, 1 + alpha].
        beta: b is drawn from [-beta, beta], in optical density (decadic); above 0 it tints the empty
            background too.
    """

    alpha: float = 0.2
    beta: float = 0.02

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is {self.alpha}; it must lie in [0, 1]")
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta is {self.beta}; it must lie in [0, 1]")

    def __call__(self, batch: Tensor, draw: Tensor) -> Tensor:
        """Changes the stains of RGB [n, 3, h, w] in [0, 1] in place, by `draw` [n, 6] in [0, 1)."""
        signed = draw * 2 - 1
        return change_stains(batch, 1 + self.alpha * signed[:, :3], self.beta * signed[:, 3:])


def change_stains(batch: Tensor, factor: Tensor, added: Tensor) -> Tensor:
    """Changes the amount of each stain, in place.

    The amounts are linear in optical density, so that separating, changing and joining the stains is a
    single matrix per picture.

    Args:
        batch: RGB [n, 3, h, w] in [0, 1].
        factor: [n, 3] in the order of `STAINS`.
        added: [n, 3], decadic optical density.

    Returns:
        The same tensor, within [0, 1].
    """
    joined = torch.tensor(DENSITIES, dtype=torch.float64)
    separated = torch.linalg.inv(joined)
    mixing = (separated * factor.double()[:, None, :] @ joined).float()
    offset = (added.double() @ joined).float() * -log(10)
    logs = batch.mul_((_LEVELS - 1) / _LEVELS).add_(1 / _LEVELS).log_()
    red, green, blue = logs.clone().unbind(1)
    for channel in range(3):
        weights = mixing[:, :, channel, None, None]
        # Not a matrix product: its rounding may depend on the number of threads.
        torch.addcmul(offset[:, channel, None, None], red, weights[:, 0], out=logs[:, channel])
        logs[:, channel].addcmul_(green, weights[:, 1]).addcmul_(blue, weights[:, 2])
    return logs.exp_().sub_(1 / _LEVELS).mul_(_LEVELS / (_LEVELS - 1)).clamp_(0, 1)


def stain_amounts(batch: Tensor) -> Tensor:
    """Amount of each stain, [n, 3, h, w] in the order of `STAINS`, of RGB [n, 3, h, w] in [0, 1].

    The unit is the optical density (decadic) that the stain's row in `DENSITIES` gives.
    """
    density = -torch.log10((batch * (_LEVELS - 1) + 1) / _LEVELS)
    return torch.einsum("nchw,cs->nshw", density, torch.linalg.inv(torch.tensor(DENSITIES)))
