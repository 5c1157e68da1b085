import pytest
import torch
from open_clip.model import CLIP
from torch import nn
from torch.nn import functional

from pathclip.model.losses import ClipLoss, Features
from pathclip.model.statistics import move_once
from pathclip.train.micro_batches import in_micro_batches

SIZE, LENGTH, N = 16, 8, 12


def clip(patch_dropout=0.0):
    torch.manual_seed(0)
    vision = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 4, "image_size": SIZE}
    text = {"layers": 2, "width": 32, "heads": 2, "context_length": LENGTH, "vocab_size": 50}
    return CLIP(16, {**vision, "patch_dropout": patch_dropout}, text).train()


def batch():
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(N, 3, SIZE, SIZE, generator=generator)
    return pixels, torch.randint(1, 50, (N, LENGTH), generator=generator)


def gradients(model, size, seed=7):
    """Of the loss of the whole batch, its pairs `size` at a time through the towers."""
    model.zero_grad()
    torch.manual_seed(seed)

    def encode(pixels, tokens):
        image, text = model.encode_image(pixels), model.encode_text(tokens)
        return functional.normalize(image, dim=-1), functional.normalize(text, dim=-1)

    image, text = in_micro_batches(encode, batch(), size)
    alone = torch.arange(N)
    loss = ClipLoss()(Features(image, text, model.logit_scale.exp(), alone, alone))["contrastive"]
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("size", [1, 4, 5])
def test_loss_and_gradient_in_parts_are_those_of_the_whole_batch(size):
    model = clip()
    loss, whole = gradients(model, None)
    again, parts = gradients(model, size)
    assert again.item() == pytest.approx(loss.item(), abs=1e-6)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, atol=1e-5, rtol=0, msg=name)


def test_the_mean_of_the_gradients_of_the_parts_would_be_another_one():
    """What ordinary accumulation does: so that the test above cannot pass by being blind."""
    model = clip()
    _, whole = gradients(model, None)
    model.zero_grad()
    for pixels, tokens in zip(*(tensor.split(4) for tensor in batch()), strict=True):
        image, text = model.encode_image(pixels, normalize=True), model.encode_text(tokens, normalize=True)
        alone = torch.arange(4)
        loss = ClipLoss()(Features(image, text, model.logit_scale.exp(), alone, alone))["contrastive"]
        (loss / 3).backward()
    difference = max((p.grad - whole[name]).abs().max().item() for name, p in model.named_parameters())
    assert difference > 1e-3


def test_the_second_pass_drops_the_same_patches_as_the_first():
    """With other patches the gradient would not be one of the loss that was computed."""
    model = clip(patch_dropout=0.5)
    loss, gradient = gradients(model, 4)
    step = 1e-3 * gradient["visual.conv1.weight"]
    with torch.no_grad():
        model.visual.conv1.weight -= step
    lower, _ = gradients(model, 4)
    expected = -(step * gradient["visual.conv1.weight"]).sum()
    assert (lower - loss).item() == pytest.approx(expected.item(), rel=0.05)


def test_running_statistics_move_once_for_each_part():
    norm = nn.BatchNorm1d(4)
    reference = nn.BatchNorm1d(4)
    rows = torch.randn(8, 4, requires_grad=True)
    move_once(norm)
    move_once(norm)
    (out,) = in_micro_batches(lambda x: (norm(x),), (rows,), 4)
    out.square().sum().backward()
    for part in rows.split(4):
        reference(part)
    assert torch.equal(norm.running_mean, reference.running_mean)
    assert torch.equal(norm.running_var, reference.running_var)
    assert norm.num_batches_tracked == reference.num_batches_tracked == 2 and norm.momentum == 0.1


def test_activations_of_one_part_are_held_not_those_of_all():
    """Bytes that autograd keeps while the towers run."""

    def held(size):
        kept = []
        model = clip()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            in_micro_batches(lambda p, t: (model.encode_image(p),), batch(), size)
        return sum(kept)

    assert held(2) < 0.3 * held(None)


def test_without_gradients_parts_give_the_same_features():
    model = clip().eval()
    with torch.no_grad():
        (whole,) = in_micro_batches(lambda p, t: (model.encode_image(p),), batch(), None)
        (parts,) = in_micro_batches(lambda p, t: (model.encode_image(p),), batch(), 5)
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)
