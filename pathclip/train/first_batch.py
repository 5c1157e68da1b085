"""A look at the first batch: do the captions match the pictures, and what is cut or repeated?"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pathclip import atomic
from pathclip.model.losses import gather
from pathclip.model.towers import Towers
from pathclip.shards.collate import Batch
from pathclip.train.diagnosis import contrastive_loss

PICTURE, NUMBERS = "first_batch.png", "first_batch.json"
_PICTURES, _COLUMNS, _EDGE, _GAP = 16, 4, 256, 16
_FONT_SIZE, _LINE, _LINES = 14, 19, 7
_INK, _RED, _PAPER = (20, 20, 20), (200, 0, 0), (234, 234, 238)  # slides are white
_FLAT = 2 / 255  # deviation of the pixels of a picture of one colour
_OUTSIDE = 0.02  # by which un-normalised pixels may lie outside [0, 1]


@dataclass(frozen=True, slots=True)
class BatchCheck:
    """What a first batch is like. Shares lie in [0, 1].

    Attributes:
        pairs: of the global batch.
        cut: share of captions that are longer than the context length, special tokens included.
        context_length: tokens.
        longest: tokens of the longest caption, uncut.
        duplicate_captions: share of pairs whose caption stands in the global batch before.
        repeated_groups: share of pairs whose group stands in the global batch before.
        empty_captions: how many captions give no token but the special ones.
        flat_pictures: how many pictures are of one colour.
        pixel_mean: of the normalised pixels.
        pixel_deviation: likewise.
        smallest: likewise.
        largest: likewise.
        darkest: of the un-normalised pixels, which should lie in [0, 1].
        lightest: likewise.
        chance: the loss of embeddings that tell nothing.
        loss: contrastive, of the first step, before the weights change; None until then.
    """

    pairs: int
    cut: float
    context_length: int
    longest: int
    duplicate_captions: float
    repeated_groups: float
    empty_captions: int
    flat_pictures: int
    pixel_mean: float
    pixel_deviation: float
    smallest: float
    largest: float
    darkest: float
    lightest: float
    chance: float
    loss: float | None = None

    def warnings(self, pictures: int) -> list[str]:
        """What looks wrong, a sentence each; `pictures` is how many this process holds."""
        found = []
        if self.flat_pictures > 0.1 * pictures:
            found.append(
                f"{self.flat_pictures} of {pictures} pictures are of one colour: blank, or not decoded"
            )
        if self.darkest < -_OUTSIDE or self.lightest > 1 + _OUTSIDE:
            found.append(
                f"pixels lie in [{self.darkest:.2f}, {self.lightest:.2f}] instead of [0, 1]: "
                "normalised with another mean and deviation than the model's"
            )
        elif self.smallest >= 0 and self.largest <= 1 and self.flat_pictures < pictures:
            found.append("all pixels lie in [0, 1], as if they had not been normalised")
        if self.empty_captions:
            found.append(f"empty captions: {self.empty_captions}")
        if self.duplicate_captions > 0.5:
            found.append(
                "more than half of the captions stand in the batch more than once: loss=clip takes their "
                "pairs for negatives of each other; loss=multi_positive or data.groups=apart does not"
            )
        return found

    def sentence(self) -> str:
        """The figures in one line."""
        return (
            f"first batch: {self.pairs} pairs, {self.cut:.0%} of captions cut at {self.context_length} "
            f"tokens (longest {self.longest}), {self.duplicate_captions:.0%} duplicate captions, "
            f"{self.repeated_groups:.0%} of a group that repeats, {self.empty_captions} empty; "
            f"pixels {self.pixel_mean:+.2f} ± {self.pixel_deviation:.2f}; chance level {self.chance:.3g}"
        )


class FirstBatch(Callback):
    """Shows the first batch of a new run before it is trained on.

    Writes `first_batch.png`, up to 16 pictures as the model sees them with their captions, what is cut
    at the context length in red, and `first_batch.json` in the run folder; says in a line on stderr what a
    `BatchCheck` holds, and in a line each what looks wrong. A run that goes on is not looked at again.
    """

    def __init__(self) -> None:
        self._check: BatchCheck | None = None

    def on_train_batch_start(self, trainer: Any, task: Any, batch: Batch, index: int) -> None:
        """Looks, in the first process; the others send the numbers of their groups and captions."""
        if trainer.global_step or index or trainer.current_epoch:
            return
        group, caption = gather(batch.group), gather(batch.caption)
        if not trainer.is_global_zero:
            return
        chance = float(task.loss.chance_level(group, caption))
        self._check = check_batch(batch, task.towers, group, caption, chance)
        out = Path(trainer.default_root_dir)
        atomic.write_bytes(out / PICTURE, _png(draw_batch(batch, task.towers)))
        self._write(out)
        print(f"{self._check.sentence()}. Look at {out / PICTURE}", file=sys.stderr)
        for warning in self._check.warnings(len(batch)):
            print(f"first batch: {warning}", file=sys.stderr)

    def on_train_batch_end(self, trainer: Any, task: Any, *_: Any) -> None:
        """Adds the loss that the first step began with."""
        if self._check is None:
            return
        loss = contrastive_loss(trainer)
        if loss is not None:
            self._check = replace(self._check, loss=float(loss))
            self._write(Path(trainer.default_root_dir))
        self._check = None

    def _write(self, out: Path) -> None:
        assert self._check is not None
        atomic.write_json(out / NUMBERS, asdict(self._check))


def check_batch(batch: Batch, towers: Towers, group: Tensor, caption: Tensor, chance: float) -> BatchCheck:
    """Counts and measures a batch as the model gets it.

    Args:
        batch: of this process.
        towers: the model's tokenizer, context length, mean and deviation.
        group: int64, of the global batch.
        caption: likewise.
        chance: loss of embeddings that tell nothing.
    """
    lengths, own = _token_counts(batch.texts, towers)
    shown = unnormalised(batch.pixels, towers)
    # By colour: a black picture's normalised channels differ from each other.
    flat = shown.std(dim=(2, 3)).amax(dim=1) < _FLAT
    return BatchCheck(
        pairs=len(group),
        cut=sum(length > towers.context_length for length in lengths) / max(len(lengths), 1),
        context_length=towers.context_length,
        longest=max(lengths, default=0),
        duplicate_captions=1 - len(caption.unique()) / len(caption),
        repeated_groups=1 - len(group.unique()) / len(group),
        empty_captions=sum(count == 0 for count in own),
        flat_pictures=int(flat.sum()),
        pixel_mean=float(batch.pixels.float().mean()),
        pixel_deviation=float(batch.pixels.float().std(dim=(0, 2, 3)).mean()),
        smallest=float(batch.pixels.min()),
        largest=float(batch.pixels.max()),
        darkest=float(shown.min()),
        lightest=float(shown.max()),
        chance=chance,
    )


def draw_batch(batch: Batch, towers: Towers) -> Image.Image:
    """A sheet of up to 16 pictures as the model sees them, the caption under each, what is cut in red."""
    count = min(_PICTURES, len(batch))
    columns = min(_COLUMNS, count)
    font = _font()
    kept = _kept_characters(batch.texts[:count], towers)
    captions = [_laid_out(text, cut, font) for text, cut in zip(batch.texts[:count], kept, strict=True)]
    rows = [range(start, min(start + columns, count)) for start in range(0, count, columns)]
    heights = [_EDGE + _GAP * 2 + _LINE * max(captions[place][-1].line + 1 for place in row) for row in rows]
    sheet = Image.new(
        "RGB", (max(columns, 2) * (_EDGE + _GAP) + _GAP, 2 * _GAP + 2 * _LINE + sum(heights)), _PAPER
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), f"{count} of {len(batch)} pairs, as the model sees them.", _INK, font)
    draw.text((_GAP, _GAP + _LINE), f"Red: beyond the {towers.context_length} tokens it reads.", _RED, font)
    shown = unnormalised(batch.pixels[:count], towers).clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
    top = 2 * _GAP + 2 * _LINE
    for row, height in zip(rows, heights, strict=True):
        for column, place in enumerate(row):
            left = _GAP + column * (_EDGE + _GAP)
            sheet.paste(_fitted(shown[place].permute(1, 2, 0).numpy()), (left, top))
            for word in captions[place]:
                corner = (left + word.x, top + _EDGE + _GAP // 2 + word.line * _LINE)
                draw.text(corner, word.text, _RED if word.red else _INK, font)
        top += height
    return sheet


def _fitted(pixels: Any) -> Image.Image:
    """A picture enlarged or reduced to the edge of a tile; a coarse one shows its pixels."""
    picture = Image.fromarray(pixels)
    factor = _EDGE / max(picture.size)
    how = Image.Resampling.NEAREST if factor >= 3 else Image.Resampling.LANCZOS
    return picture.resize((round(picture.width * factor), round(picture.height * factor)), how)


def unnormalised(pixels: Tensor, towers: Towers) -> Tensor:
    """Normalised pixels [n, 3, h, w] back to [0, 1]."""
    mean, std = (
        torch.tensor(towers.preprocess_cfg[key], device=pixels.device)[None, :, None, None]
        for key in ("mean", "std")
    )
    return pixels.float() * std + mean


def _untruncated(towers: Towers) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(towers.tokenizer_json)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _token_counts(texts: Sequence[str], towers: Towers) -> tuple[list[int], list[int]]:
    """Tokens of each text, uncut: with the special ones, as the context length counts them, and without."""
    tokenizer = _untruncated(towers)
    own = [len(row.ids) for row in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    special = tokenizer.num_special_tokens_to_add(False)
    return [count + special for count in own], own


def _kept_characters(texts: Sequence[str], towers: Towers) -> list[int]:
    """How many characters of each text the model gets to read."""
    tokenizer = _untruncated(towers)
    room = towers.context_length - tokenizer.num_special_tokens_to_add(False)
    rows = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [
        len(text) if len(row.ids) <= room else row.offsets[room][0]
        for text, row in zip(texts, rows, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    x: float
    line: int
    red: bool


def _font() -> Any:
    # Pillow's own font has no letters beyond English; matplotlib brings one that has many.
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), _FONT_SIZE)


def _laid_out(text: str, kept: int, font: Any) -> list[_Word]:
    """Wraps by words; those that begin beyond `kept` characters are red. Too long a text ends in '…'."""
    words: list[_Word] = []
    line, used, start = 0, 0.0, 0
    for piece in _pieces(text, font):
        place = text.index(piece, start)
        start = place + len(piece)
        if used and used + font.getlength(piece) > _EDGE:
            line, used = line + 1, 0.0
        if line == _LINES:
            words.append(_Word("…", 0.0, line, kept < len(text)))
            break
        words.append(_Word(piece, used, line, place >= kept))
        used += font.getlength(piece + " ")
    return words or [_Word("(empty)", 0.0, 0, True)]


def _pieces(text: str, font: Any) -> list[str]:
    """Words, each cut so that it fits a line: Chinese, for one, has no spaces."""
    pieces = []
    for word in text.split():
        while word:
            fits = len(word)
            while fits > 1 and font.getlength(word[:fits]) > _EDGE:
                fits -= 1
            pieces.append(word[:fits])
            word = word[fits:]
    return pieces


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
