"""Columns of padding are left out where that changes nothing, and only there."""

import pytest
import torch
from torch import Tensor

from pathclip.model.padding import COLUMNS, encode_text, ignores_padding, without_padding

from .each_kind import KINDS, towers_of

CUT = {
    "open_clip": True,
    "custom text": False,  # its causal mask is not cut with the text
    "resnet": True,
    "coca": False,
    "timm vit and bert": True,
    "timm efficientnet and bert": True,
}
LENGTHS = (4, 7, 9)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def texts(towers) -> Tensor:
    """Rows of several lengths, as the tokenizers make them: the closing token has the highest number."""
    rows = torch.full((len(LENGTHS), towers.context_length), towers.pad_id)
    for row, length in zip(rows, LENGTHS, strict=True):
        row[: length - 1] = torch.arange(5, 4 + length)
        row[length - 1] = 49407 if towers.text_config is None else 3
    return rows


def test_it_is_known_which_towers_ignore_padding(kind, bert):
    assert ignores_padding(towers_of(kind, bert).model) is CUT[kind]


@pytest.mark.parametrize("kind", [kind for kind, cut in CUT.items() if cut])
def test_embeddings_and_gradients_are_those_of_the_whole_rows(kind, bert):
    torch.manual_seed(0)
    towers = towers_of(kind, bert)
    model, tokens = towers.model.eval(), texts(towers)
    results = []
    for rows in (tokens, tokens[:, : max(LENGTHS)]):
        model.zero_grad()
        embedded = encode_text(model, rows)
        (embedded * torch.linspace(-1, 1, embedded.numel()).view_as(embedded)).sum().backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        results.append((embedded.detach(), gradients))
    (whole, whole_gradients), (cut, cut_gradients) = results
    torch.testing.assert_close(whole, model.encode_text(tokens).detach())
    torch.testing.assert_close(cut, whole, atol=1e-5, rtol=1e-5)
    assert cut_gradients.keys() == whole_gradients.keys()
    for name, gradient in whole_gradients.items():
        torch.testing.assert_close(cut_gradients[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_the_length_is_rounded_up_and_never_beyond_the_context():
    tokens = torch.zeros(2, 77, dtype=torch.int64)
    shapes = [without_padding(tokens, used).shape[1] for used in (1, COLUMNS, COLUMNS + 1, 70, 77)]
    assert shapes == [COLUMNS, COLUMNS, 2 * COLUMNS, 77, 77]
    assert without_padding(tokens, None) is tokens
