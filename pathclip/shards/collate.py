"""From raw samples to a `Batch`: decoded, augmented, tokenised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from pathclip.errors import ConfigError, DataError
from pathclip.runtime.preprocess import Preprocess
from pathclip.runtime.tokenizer import Tokenizer
from pathclip.shards.captions import Captions
from pathclip.shards.decode import EncodedPicture, decode
from pathclip.shards.reader import IMAGE_SUFFIXES
from pathclip.shards.samples import Raw, group_number, read_meta, text_number
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
        names = ("pixels", "tokens", "group", "caption", "teacher_tokens")
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
    """

    preprocess: Preprocess
    tokenizer: Tokenizer
    augment: Augment | None
    captions: Captions | None = None
    teacher_tokenizer: Tokenizer | None = None

    def __call__(
        self,
        samples: Sequence[Raw],
        position: Position,
        seed: int,
        offset: int = 0,
        total: int | None = None,
    ) -> Batch:
        """Every random draw comes from `seed`, so that the batch does not depend on who makes it.

        Args:
            samples: of this process.
            position: of the batch in the stream.
            seed: of the global batch, the same in every process.
            offset: where in the global batch these samples begin; draws are made for all of it, so that
                a pair looks the same however many processes share the batch.
            total: samples in the global batch; None if it ends with these.
        """
        total = offset + len(samples) if total is None else total
        generator = torch.Generator().manual_seed(seed)
        texts = [_text(s) for s in samples]
        metas = [read_meta(_shard(s), s["__key__"], s.get("json", b"")) for s in samples]
        pixels = self._pixels(samples, generator, offset, total)
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
        )

    def _pixels(self, samples: Sequence[Raw], generator: torch.Generator, offset: int, total: int) -> Tensor:
        if not self.augment:
            return torch.from_numpy(self.preprocess.batch([decode(_image(s), s["__key__"]) for s in samples]))
        height, width = self.preprocess.size
        if height != width:
            raise ConfigError(
                f"data.augment: makes square pictures only, and the model takes {height} x {width}; "
                "set it to null"
            )
        pictures = [EncodedPicture(_image(s), s["__key__"]) for s in samples]
        return normalise(
            self.augment(pictures, height, generator, offset, total),
            self.preprocess.mean,
            self.preprocess.std,
        )


def _image(sample: Raw) -> bytes:
    for suffix in IMAGE_SUFFIXES:
        if suffix in sample:
            return sample[suffix]
    raise _bad(sample, "no image in it")


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
