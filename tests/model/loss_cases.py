"""Every loss on a batch of eight pairs, in one process or two; apart, so that a rank starts quickly."""

from __future__ import annotations

import torch
from torch.nn import functional

from pathclip.model.losses import (
    ClipLoss,
    CoCaLoss,
    DistillLoss,
    Features,
    MultiPositiveLoss,
    SigLipLoss,
)

SCALE = torch.tensor(10.0)
BIAS = torch.tensor(-10.0)


def embeddings(n=6, d=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(2, n, d, generator=generator), dim=-1)


def ids(*numbers):
    return torch.tensor(numbers)


def words():
    """Logits over 11 tokens and labels of 8 captions, of which the later are longer; 0 is the padding."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(1, 11, (8, 5), generator=generator)
    labels[:4, 2:] = 0
    return torch.randn(8, 5, 11, generator=generator), labels


GROUP, CAPTION = ids(0, 0, 1, 1, 0, 2, 3, 3), ids(0, 0, 1, 2, 0, 3, 4, 4)

# Every loss, with each choice of who computes which rows.
LOSSES = {
    **{
        f"{name}, local_loss={local}": kind(local_loss=local, **options)
        for local in (True, False)
        for name, kind, options in (
            ("clip", ClipLoss, {}),
            ("clip, hard negatives", ClipLoss, {"hard_negative_beta": 0.5}),
            ("multi-positive", MultiPositiveLoss, {}),
            ("multi-positive, hard negatives", MultiPositiveLoss, {"hard_negative_beta": 0.5}),
            ("distillation", DistillLoss, {"feature_weight": 2.0}),
        )
    },
    "sigmoid": SigLipLoss(),
    "sigmoid, several positives": SigLipLoss("group_and_text"),
    "distillation and several positives": DistillLoss(MultiPositiveLoss()),
    "coca": CoCaLoss(),
    "coca, local_loss=False": CoCaLoss(ClipLoss(local_loss=False)),
}
WITHOUT_GRADIENTS = {
    f"local_loss={local}": ClipLoss(local_loss=local, gather_with_grad=False) for local in (True, False)
}


class Towers:
    """Two linear towers, a scale and a bias: what gradients are taken of."""

    def __init__(self):
        self.image, self.text = torch.eye(8), torch.eye(8)
        self.scale, self.bias, self.words = SCALE.clone(), BIAS.clone(), torch.ones(11)
        for weight in self.weights():
            weight.requires_grad_()

    def weights(self):
        return [self.image, self.text, self.scale, self.bias, self.words]

    def features(self, rows):
        image, text = embeddings(8)
        teacher = embeddings(8, seed=1)
        logits, labels = words()
        return Features(
            image=functional.normalize(image[rows] @ self.image, dim=-1),
            text=functional.normalize(text[rows] @ self.text, dim=-1),
            logit_scale=self.scale,
            group=GROUP[rows],
            caption=CAPTION[rows],
            logit_bias=self.bias,
            teacher_image=teacher[0][rows],
            teacher_text=teacher[1][rows],
            teacher_scale=20.0,
            unlabelled=functional.normalize(embeddings(8, seed=3)[0][rows] @ self.image, dim=-1),
            teacher_unlabelled=embeddings(8, seed=4)[0][rows],
            token_logits=logits[rows] * self.words,
            token_labels=labels[rows],
        )


def loss_and_gradients(loss, rows):
    towers = Towers()
    found = sum(loss(towers.features(rows)).values())
    found.backward()
    zeros = [torch.zeros_like(w) if w.grad is None else w.grad for w in towers.weights()]
    return [found.detach(), *zeros]


def on_two_ranks(folder):
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    own, results = slice(4 * rank, 4 * rank + 4), {}
    for name, loss in {**LOSSES, **WITHOUT_GRADIENTS}.items():
        found = loss_and_gradients(loss.train(), own)
        for tensor in found:
            torch.distributed.all_reduce(tensor)  # with the division: what DDP does with gradients
        with torch.no_grad():
            alone = sum(loss.eval()(Towers().features(own)).values())
        results[name] = ([tensor / 2 for tensor in found], alone)
    if rank == 0:
        torch.save(results, folder / "results")
    torch.distributed.destroy_process_group()
