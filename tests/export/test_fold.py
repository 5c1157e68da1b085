"""Batch normalisation is folded where it follows a convolution and nothing else reads between them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pathclip.export.graphs.fold import fold_batch_norms


def with_statistics(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            part.weight.data.uniform_(0.5, 2)
            part.bias.data.normal_()
    return module.eval()


def test_folding_leaves_the_numbers_and_takes_the_norm_out():
    module = with_statistics(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False),
                      nn.BatchNorm2d(4))
    )  # fmt: skip
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        exact = module(x)
        assert fold_batch_norms(module, x) == 2
        assert not any(isinstance(part, nn.BatchNorm2d) for part in module.modules())
        torch.testing.assert_close(module(x), exact, rtol=1e-5, atol=1e-5)


class ReadTwice(nn.Module):
    """The second norm reads what the first one has read; the convolution cannot hold both."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.one(y) + self.two(y)


class SharedConvolution(nn.Module):
    """One convolution before two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(self.conv(x)) + self.two(self.conv(x + 1))


def test_a_convolution_that_runs_twice_keeps_its_norms():
    module = with_statistics(SharedConvolution())
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        exact = module(x)
        assert fold_batch_norms(module, x) == 0
        torch.testing.assert_close(module(x), exact)


class ReadBesides(nn.Module):
    """What comes before the norm is added to what comes after it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.norm(y) + y


@pytest.mark.parametrize("kind", [ReadTwice, ReadBesides])
def test_a_convolution_that_something_else_reads_too_keeps_its_norm(kind):
    module = with_statistics(kind())
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        exact = module(x)
        assert fold_batch_norms(module, x) == 0
        torch.testing.assert_close(module(x), exact, rtol=1e-5, atol=1e-5)
