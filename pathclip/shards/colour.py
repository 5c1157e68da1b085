"""Augmentation of colour on whole batches: brightness, contrast, saturation, hue, greyscale."""

from __future__ import annotations

import torch
from torch import Tensor

# ITU-R BT.601, as in Pillow.
_LUMA = (0.299, 0.587, 0.114)


def luma(batch: Tensor) -> Tensor:
    """[n, h, w] of RGB [n, 3, h, w]."""
    red, green, blue = batch.unbind(1)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


def adjust(batch: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Changes brightness, then contrast about the mean luma, then saturation, in place.

    The three together are affine, and so done at once: with L the luma, each channel x becomes p·x + q·L + r.
    Values are clamped at the end only: what brightness drives beyond white, lower contrast brings back.

    Args:
        batch: RGB [n, 3, h, w] in [0, 1].
        brightness: factor of each picture, [n]; 1 leaves it as it is.
        contrast: likewise.
        saturation: likewise; 0 is greyscale.

    Returns:
        The same tensor, within [0, 1].
    """
    grey = luma(batch)
    # Row by row and then in double: the sum must not depend on the number of threads.
    mean = (grey.sum(-1).double().sum(-1) / grey[0].numel()).float()
    gain = brightness * contrast
    share = (gain * saturation)[:, None, None, None]
    of_luma = (gain * (1 - saturation))[:, None, None]
    rest = (brightness * (1 - contrast) * mean)[:, None, None]
    return batch.mul_(share).add_(grey.mul_(of_luma).add_(rest)[:, None]).clamp_(0, 1)


def shift_hue(batch: Tensor, shift: Tensor) -> Tensor:
    """Turns the hue, in place, with HSV's value and saturation kept (Smith, SIGGRAPH 1978).

    Hue is an angle about the grey axis, and a channel falls from its highest value to its lowest as the hue
    goes from a sixth to a third of the circle away from the channel's own. All in units of the chroma, so
    that nothing is divided, and by minima and maxima, because selecting by condition is slow.

    Args:
        batch: RGB [n, 3, h, w] in [0, 1].
        shift: [n], as a share of the circle.

    Returns:
        The same tensor.
    """
    red, green, blue = batch.unbind(1)
    more, less = torch.maximum(green, blue), torch.minimum(green, blue)
    # How far from red, 0 to 3 chromas: the first term while red leads, the others as it falls behind.
    from_red = more - less
    from_red += (more - red).relu_()
    from_red.add_((less - red).relu_(), alpha=2)
    hue = torch.copysign(from_red, green - blue)
    low = torch.minimum(less, red, out=less)
    chroma = torch.maximum(more, red, out=more).sub_(low)
    twice, base = chroma * 2, low.sub_(chroma)
    for sixths, channel in ((0, red), (2, green), (4, blue)):
        turn = ((shift * 6 - sixths + 3) % 6 - 3)[:, None, None]
        # |…| − 3 chromas, and its absolute value, fold the circle: 3 at the channel's own hue, 0 opposite.
        torch.addcmul(hue, chroma, turn, out=channel).abs_().sub_(chroma, alpha=3).abs_()
        channel.clamp_(chroma, twice).add_(base)
    return batch
