"""Losses of dual encoders, one module each.

A loss takes the `Features` of this process's pairs and gives its terms by name; their sum is the loss. In
training under DDP it gathers the other ranks' embeddings, so that the mean over the ranks is the loss of the
whole batch. In eval mode nothing is gathered: every rank then sees all validation pairs, and a gathered batch
would hold each of them once per rank, as negatives of themselves.

Every loss has a term 'contrastive'; `chance_level(group, caption)` is that term where embeddings tell
nothing, and `needs` names what it takes beside them: 'logit_bias', 'teacher', 'decoder'.
"""

from pathclip.model.losses.coca import CoCaLoss
from pathclip.model.losses.distillation import DistillLoss
from pathclip.model.losses.features import Features, Need
from pathclip.model.losses.gather import gather
from pathclip.model.losses.positives import Positives
from pathclip.model.losses.sigmoid import SigLipLoss
from pathclip.model.losses.softmax import ClipLoss, MultiPositiveLoss

__all__ = [
    "ClipLoss",
    "CoCaLoss",
    "DistillLoss",
    "Features",
    "MultiPositiveLoss",
    "Need",
    "Positives",
    "SigLipLoss",
    "gather",
]
