import math

import pytest
import torch
from open_clip import ClipLoss as OpenClipLoss
from torch.nn import functional

from pathclip.model.losses import ClipLoss, MultiPositiveLoss

SCALE = torch.tensor(10.0)


def features(n=6, d=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(2, n, d, generator=generator), dim=-1)


def ids(*numbers):
    return torch.tensor(numbers)


def test_clip_loss_equals_that_of_open_clip():
    image, text = features()
    ours = ClipLoss()(image, text, SCALE, ids(*range(6)), ids(*range(6)))
    assert ours.item() == pytest.approx(OpenClipLoss()(image, text, SCALE).item(), abs=1e-6)


def test_multi_positive_equals_clip_where_every_pair_is_alone():
    image, text = features()
    alone = ids(*range(6))
    ours = MultiPositiveLoss()(image, text, SCALE, alone, alone)
    assert ours.item() == pytest.approx(ClipLoss()(image, text, SCALE, alone, alone).item(), abs=1e-6)


def test_clip_has_a_floor_of_log_m_where_multi_positive_reaches_zero():
    # Two posts of three pictures each, perfectly embedded: one direction per post.
    directions = torch.eye(2).repeat_interleave(3, dim=0)
    group = ids(0, 0, 0, 1, 1, 1)
    sharp = torch.tensor(100.0)
    assert ClipLoss()(directions, directions, sharp, group, group).item() == pytest.approx(
        math.log(3), abs=1e-5
    )
    assert MultiPositiveLoss()(directions, directions, sharp, group, group).item() == pytest.approx(
        0, abs=1e-5
    )


@pytest.mark.parametrize(("positives", "zero"), [("group_and_text", False), ("group", True), ("text", False)])
def test_what_counts_as_positive_is_what_the_option_says(positives, zero):
    # One group, two texts, all embedded alike within the group.
    directions = torch.eye(2).repeat_interleave(2, dim=0)
    group, caption = ids(0, 0, 1, 1), ids(0, 1, 2, 3)
    loss = MultiPositiveLoss(positives)(directions, directions, torch.tensor(100.0), group, caption)
    assert (loss.item() < 1e-4) is zero


def test_gradients_reach_both_towers():
    image, text = features()
    image.requires_grad_(), text.requires_grad_()
    image, text = image.clone(), text.clone()
    image.retain_grad(), text.retain_grad()
    MultiPositiveLoss()(image, text, SCALE, ids(*range(6)), ids(*range(6))).backward()
    assert image.grad.abs().sum() > 0 and text.grad.abs().sum() > 0


def _on_two_ranks(rank, file, kind, result):
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    loss = {"clip": ClipLoss, "multi_positive": MultiPositiveLoss}[kind]()
    image, text, group, caption = _batch()
    own = slice(4 * rank, 4 * rank + 4)
    weight = torch.eye(8, requires_grad=True)
    arguments = (text[own], SCALE, group[own], caption[own])
    value = loss(functional.normalize(image[own] @ weight, dim=-1), *arguments)
    value.backward()
    # What DistributedDataParallel does with gradients: the mean over the ranks.
    torch.distributed.all_reduce(weight.grad)
    with torch.no_grad():
        alone = loss.eval()(image[own], *arguments)
    if rank == 0:
        torch.save((value.detach(), weight.grad / 2, alone), result)
    torch.distributed.destroy_process_group()


def _batch():
    image, text = features(8)
    return image, text, ids(0, 0, 1, 1, 0, 2, 3, 3), ids(0, 0, 1, 2, 0, 3, 4, 4)


@pytest.mark.parametrize("kind", ["clip", "multi_positive"])
def test_two_ranks_have_the_loss_and_gradient_of_the_whole_batch_and_validate_alone(kind, tmp_path):
    context = torch.multiprocessing.get_context("spawn")
    ranks = [
        context.Process(target=_on_two_ranks, args=(rank, tmp_path / "meet", kind, tmp_path / "result"))
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        assert process.exitcode == 0
    value, gradient, alone = torch.load(tmp_path / "result")

    loss = {"clip": ClipLoss, "multi_positive": MultiPositiveLoss}[kind]()
    image, text, group, caption = _batch()
    weight = torch.eye(8, requires_grad=True)
    whole = loss(functional.normalize(image @ weight, dim=-1), text, SCALE, group, caption)
    whole.backward()
    torch.testing.assert_close(value, whole.detach(), atol=1e-6, rtol=0)
    torch.testing.assert_close(gradient, weight.grad, atol=1e-6, rtol=0)
    half = loss(image[:4], text[:4], SCALE, group[:4], caption[:4])
    torch.testing.assert_close(alone, half, atol=1e-6, rtol=0)
