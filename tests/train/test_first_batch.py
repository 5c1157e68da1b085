import json

import pytest
import torch
from PIL import Image

from pathclip.config import build
from pathclip.launch import compose
from pathclip.runtime.tokenizer import Tokenizer
from pathclip.shards.collate import Batch
from pathclip.shards.stream import Position
from pathclip.train.first_batch import check_batch, draw_batch
from pathclip.train.train import train
from tests import tiny_shards


@pytest.fixture(scope="module")
def towers():
    return build(compose("train", ["model=tiny", "out=unused"]).model)


def batch(towers, texts, pixels=None, group=None):
    n = len(texts)
    tokenizer = Tokenizer(towers.tokenizer_json.encode(), towers.context_length, pad_id=0)
    return Batch(
        pixels=torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        if pixels is None
        else pixels,
        tokens=torch.from_numpy(tokenizer(texts)),
        group=torch.arange(n) if group is None else torch.tensor(group),
        caption=torch.tensor([texts.index(text) for text in texts]),
        position=Position(),
        texts=texts,
    )


def check(towers, texts, **given):
    made = batch(towers, texts, **given)
    return check_batch(made, towers, made.group, made.caption, 1.0)


def displayed(towers, values):
    """Normalised pixels [n, 3, 32, 32] of pictures of one value in [0, 1] each."""
    mean, std = (torch.tensor(towers.preprocess_cfg[key])[None, :, None, None] for key in ("mean", "std"))
    return (torch.tensor(values)[:, None, None, None].expand(-1, 3, 32, 32) - mean) / std


def test_captions_beyond_the_context_length_are_counted(towers):
    # Start and end count too: 30 words are 32 tokens and fit exactly, 31 do not.
    found = check(towers, ["gland " * 30, "gland " * 31, "a gland", "two glands"])
    assert found.cut == 0.25 and found.longest == 33 and found.context_length == 32


def test_repeated_captions_and_groups_and_empty_captions_are_counted(towers):
    found = check(towers, ["a", "a", "", "b"], group=[1, 1, 1, 2])
    assert (found.duplicate_captions, found.repeated_groups, found.empty_captions) == (0.25, 0.5, 1)


def test_black_pictures_are_warned_of(towers):
    found = check(towers, ["a", "b", "c", "d"], pixels=displayed(towers, [0.0, 0.0, 0.0, 0.0]))
    assert found.flat_pictures == 4
    assert "4 of 4 pictures are of one colour" in found.warnings(4)[0]


def test_pixels_that_were_not_normalised_are_warned_of(towers):
    found = check(towers, ["a", "b"], pixels=torch.rand(2, 3, 32, 32))
    assert any("not been normalised" in warning for warning in found.warnings(2))


def test_pixels_of_another_models_normalisation_are_warned_of(towers):
    found = check(towers, ["a", "b"], pixels=torch.rand(2, 3, 32, 32) * 10 - 5)
    assert any("another mean and deviation" in warning for warning in found.warnings(2))


def test_ordinary_pictures_are_not_warned_of(towers):
    mean, std = (torch.tensor(towers.preprocess_cfg[key])[None, :, None, None] for key in ("mean", "std"))
    pixels = (torch.rand(4, 3, 32, 32) - mean) / std
    assert check(towers, ["a", "b", "c", "d"], pixels=pixels).warnings(4) == []


def test_the_sheet_shows_the_pictures_as_they_were_before_normalisation(towers):
    sheet = draw_batch(batch(towers, ["white", "black"], pixels=displayed(towers, [1.0, 0.0])), towers)
    colours = {colour for _, colour in sheet.getcolors(100_000)}
    assert {(255, 255, 255), (0, 0, 0)} <= colours
    middle = sheet.getpixel((16 + 128, 70 + 128)), sheet.getpixel((16 + 256 + 16 + 128, 70 + 128))
    assert middle == ((255, 255, 255), (0, 0, 0))


@pytest.mark.parametrize(("words", "red"), [(30, False), (33, True)])
def test_what_the_model_does_not_read_is_red(towers, words, red):
    made = batch(towers, ["gland " * words, "a"])
    sheet = draw_batch(made, towers)
    sheet = sheet.crop((0, 72 + 256, 16 + 256, sheet.height))
    is_red = any(r > 180 and g < 60 and b < 60 for _, (r, g, b) in sheet.getcolors(1_000_000))
    assert is_red == red


@pytest.mark.parametrize(
    "text", ["核分裂象" * 40, "ورم خبيث", "🔬🧫 \u200b\ufeff", "", " \n\t", "a" * 500, "İıŞş\x00\x07"]
)
def test_no_caption_breaks_the_sheet(towers, text):
    assert draw_batch(batch(towers, [text]), towers).width > 256


def test_a_run_leaves_sheet_and_numbers_with_the_loss_before_the_first_step(tmp_path, capsys):
    tiny_shards.write(tmp_path / "train", n=40)
    cfg = compose(
        "train",
        [
            *("model=tiny", "++callbacks.first_batch._target_=pathclip.train.first_batch.FirstBatch"),
            *(f"data.train={tmp_path / 'train'}", "data.batch_size=8", "data.workers=0"),
            *(f"out={tmp_path / 'run'}", "trainer.max_steps=2"),
        ],
    )
    result = train(cfg)
    numbers = json.loads((result.out / "first_batch.json").read_text())
    assert numbers["pairs"] == 8 and numbers["loss"] > 0 and 0 < numbers["chance"] <= 2.08
    assert Image.open(result.out / "first_batch.png").width > 1000
    assert "first batch: 8 pairs" in capsys.readouterr().err
    (result.out / "first_batch.png").unlink()
    cfg.ckpt, cfg.trainer.max_steps = "last", 3
    train(cfg)
    assert not (result.out / "first_batch.png").exists()  # a run that goes on is not looked at again
