"""From raw samples to a `Batch`: decoded, augmented, tokenised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pathclip.errors import ConfigError, DataError
from pathclip.runtime.preprocess import Preprocess
from pathclip.runtime.tokenizer import Tokenizer
from pathclip.shards.captions import Captions
from pathclip.shards.decode import Encoded, EncodedPicture, decode
from pathclip.shards.samples import Raw, group_number, image_of, read_meta, text_number
from pathclip.shards.stream import Position, derived_seed
from pathclip.shards.transforms import Augment, normalise


@dataclass(slots=True)
class Batch:
    """What one training step gets.

    Attributes:
        pixels: normalised, float32 [n, 3, h, w].
        tokens: int64 [n, context_length].
        group: int64 [n]; equal numbers are pairs that belong together.
        caption: int64 [n]; equal numbers are equal texts, as they stand in the shards.
        position: of this batch in the stream.
        texts: the texts that became tokens.
        labels: class names of the shards, '' where a pair has none; for validation only.
        teacher_tokens: int64 [n, length] by the teacher's tokenizer; None without a teacher.
        columns: of `tokens` that hold more than padding.
        unlabelled: normalised pictures without texts, float32 [m, 3, h, w]; None where there are none.
        large: the pictures, and behind them those without texts, as a teacher of larger ones sees them:
            float32 [n + m, 3, its h, its w], normalised likewise; None where it sees no larger ones.
    """

    pixels: Tensor
    tokens: Tensor
    group: Tensor
    caption: Tensor
    position: Position
    texts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    teacher_tokens: Tensor | None = None
    columns: int | None = None
    unlabelled: Tensor | None = None
    large: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def pin_memory(self) -> Batch:
        """The batch in memory that a GPU can read by itself; torch's loader calls this."""
        return replace(self, **{name: tensor.pin_memory() for name, tensor in self._tensors().items()})

    def to(self, device: torch.device | str, **kwargs: Any) -> Batch:
        """The batch on another device; Lightning calls this. Nobody waits for a GPU to have it."""
        kwargs.setdefault("non_blocking", torch.device(device).type == "cuda")
        return replace(
            self, **{name: tensor.to(device, **kwargs) for name, tensor in self._tensors().items()}
        )

    def _tensors(self) -> dict[str, Tensor]:
        names = ("pixels", "tokens", "group", "caption", "teacher_tokens", "unlabelled", "large")
        return {name: tensor for name in names if (tensor := getattr(self, name)) is not None}


@dataclass
class Collate:
    """Makes a `Batch` from raw samples: decodes, augments (or not), chooses the text, tokenises.

    Attributes:
        preprocess: of the model.
        tokenizer: of the model.
        augment: None for the evaluation transform.
        captions: how a sample's text is put; None leaves it as it is.
        teacher_tokenizer: of a teacher to distil from.
        teacher_size: (height, width) of its pictures. Where they are larger, pictures are cut and recoloured
            in its size and shrunk for the student, so that the teacher sees what it was trained to see.
    """

    preprocess: Preprocess
    tokenizer: Tokenizer
    augment: Augment | None
    captions: Captions | None = None
    teacher_tokenizer: Tokenizer | None = None
    teacher_size: tuple[int, int] | None = None

    def __call__(
        self,
        samples: Sequence[Raw],
        position: Position,
        seed: int,
        offset: int = 0,
        total: int | None = None,
        unlabelled: Sequence[Encoded] = (),
    ) -> Batch:
        """Every random draw comes from `seed`, so that the batch does not depend on who makes it.

        Args:
            samples: of this process.
            position: of the batch in the stream.
            seed: of the global batch, the same in every process.
            offset: where in the global batch these samples begin; draws are made for all of it, so that
                a pair looks the same however many processes share the batch.
            total: samples in the global batch; None if it ends with these.
            unlabelled: pictures of this process that have no texts, as many for each sample in every process.
        """
        total = offset + len(samples) if total is None else total
        generator = torch.Generator().manual_seed(seed)
        texts = [_text(s) for s in samples]
        metas = [read_meta(_shard(s), s["__key__"], s.get("json", b"")) for s in samples]
        pictures = [Encoded(image_of(s), s["__key__"]) for s in samples]
        pixels, large = self._pixels(pictures, generator, offset, total)
        beside, large_beside = self._unlabelled(
            unlabelled, seed, offset // len(samples), total // len(samples)
        )
        if large is not None and large_beside is not None:
            large = torch.cat([large, large_beside])
        put = texts
        if self.captions:
            # Draws of their own: what happens to the pictures does not change the texts.
            generator = torch.Generator().manual_seed(derived_seed(seed, "captions"))
            put = self.captions(texts, metas, generator, offset, total)
        tokens = self.tokenizer(put)
        return Batch(
            pixels=pixels,
            tokens=torch.from_numpy(tokens),
            group=torch.tensor(
                [group_number(meta, s["__key__"]) for meta, s in zip(metas, samples, strict=True)]
            ),
            caption=torch.tensor([text_number(text) for text in texts]),
            position=position,
            texts=put,
            labels=[str(meta.get("label") or "") for meta in metas],
            teacher_tokens=torch.from_numpy(self.teacher_tokenizer(put)) if self.teacher_tokenizer else None,
            columns=int((tokens != self.tokenizer.pad_id).any(axis=0).nonzero()[0].max(initial=0)) + 1,
            unlabelled=beside,
            large=large,
        )

    def _unlabelled(
        self, pictures: Sequence[Encoded], seed: int, rank: int, world: int
    ) -> tuple[Tensor | None, Tensor | None]:
        if not pictures:
            return None, None
        # Draws of their own: what stands beside the pairs does not change them.
        generator = torch.Generator().manual_seed(derived_seed(seed, "unlabelled"))
        return self._pixels(pictures, generator, rank * len(pictures), world * len(pictures))

    def _pixels(
        self, pictures: Sequence[Encoded], generator: torch.Generator, offset: int, total: int
    ) -> tuple[Tensor, Tensor | None]:
        """Normalised for the model, [n, 3, h, w]; and in the teacher's size where that is larger."""
        size = self._teachers_larger() or self.preprocess.size
        if not self.augment:
            preprocess = replace(self.preprocess, size=size)
            pixels = torch.from_numpy(preprocess.batch([decode(*one, preprocess) for one in pictures]))
        else:
            height, width = size
            if height != width:
                raise ConfigError(
                    f"data.augment: makes square pictures only, and the model takes {height} x {width}; "
                    "set it to null"
                )
            lazy = [EncodedPicture(*picture) for picture in pictures]
            pixels = normalise(
                self.augment(lazy, height, generator, offset, total),
                self.preprocess.mean,
                self.preprocess.std,
            )
        if size == self.preprocess.size:
            return pixels, None
        return shrunk(pixels, self.preprocess), pixels

    def _teachers_larger(self) -> tuple[int, int] | None:
        """The size of the teacher's pictures, if they are larger and of the same form."""
        own, theirs = self.preprocess.size, self.teacher_size
        cut_to_size = self.augment is not None and self.augment.resize is not None
        if theirs is None or cut_to_size or theirs[0] <= own[0] or theirs[0] * own[1] != theirs[1] * own[0]:
            return None
        return theirs


def shrunk(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Normalised pictures in the model's size, antialiased as Pillow does it, within what 8 bits hold."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    small = functional.interpolate(
        pixels, preprocess.size, mode="bicubic", antialias=True, align_corners=False
    )
    return small.clamp_((0 - mean) / std, (1 - mean) / std)


def _text(sample: Raw) -> str:
    try:
        return sample["txt"].decode("utf-8")
    except KeyError:
        raise _bad(sample, "no .txt in it") from None
    except UnicodeDecodeError:
        raise _bad(sample, "its text is not UTF-8") from None


def _bad(sample: Raw, what: str) -> DataError:
    return DataError(f"{_shard(sample)}: sample '{sample['__key__']}': {what}")


def _shard(sample: Raw) -> str:
    return str(sample.get("__url__", "shards"))
