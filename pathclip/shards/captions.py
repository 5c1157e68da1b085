"""How the text of a pair is put to the text tower while training."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pathclip.errors import DataError


@dataclass(frozen=True)
class Captions:
    """Chooses the wording of a pair, names its organ, and sets a template around both.

    The defaults leave every text as it is. What a pair's .json does not hold changes nothing for it.

    Attributes:
        templates: each with `{text}`; one is drawn for each pair.
        paraphrases: key in the pairs' .json of a list of other texts; one of the text and these is drawn.
        organ: template with `{organ}` and `{text}` for pairs whose organ is known, such as
            "{organ}: {text}"; None does not name it.
        organ_probability: how often the organ is named where it is known.
        organ_key: key in the pairs' .json of the organ.

    Raises:
        ValueError: a template without its place for the text, or a probability outside [0, 1].
    """

    templates: Sequence[str] = ("{text}",)
    paraphrases: str | None = None
    organ: str | None = None
    organ_probability: float = 0.5
    organ_key: str = "organ"

    def __post_init__(self) -> None:
        if not self.templates:
            raise ValueError('templates is empty; ["{text}"] leaves the texts as they are')
        for template in self.templates:
            _require(template, "{text}", "templates")
        if self.organ is not None:
            _require(self.organ, "{text}", "organ")
            _require(self.organ, "{organ}", "organ")
        if not 0 <= self.organ_probability <= 1:
            raise ValueError(f"organ_probability is {self.organ_probability}; it must lie in [0, 1]")

    def __call__(
        self,
        texts: Sequence[str],
        metas: Sequence[Mapping[str, Any]],
        generator: torch.Generator,
        offset: int = 0,
        total: int | None = None,
    ) -> list[str]:
        """The texts as the text tower shall see them.

        Args:
            texts: as they stand in the shards.
            metas: the .json of each.
            generator: decides everything that is drawn.
            offset: where these begin in the global batch; the draws are made for all of it.
            total: texts in the global batch; None if it ends with these.

        Raises:
            DataError: paraphrases or organ of a pair are not what they should be.
        """
        total = offset + len(texts) if total is None else total
        draws = torch.rand(total, 3, generator=generator, dtype=torch.float64)
        rows = draws[offset : offset + len(texts)].tolist()
        return [self._put(text, meta, *row) for text, meta, row in zip(texts, metas, rows, strict=True)]

    def _put(self, text: str, meta: Mapping[str, Any], wording: float, naming: float, frame: float) -> str:
        wordings = [text, *self._others(meta)]
        put = wordings[int(wording * len(wordings))]
        organ = self._organ(meta)
        if self.organ is not None and organ and naming < self.organ_probability:
            put = _filled(self.organ, text=put, organ=organ)
        return _filled(self.templates[int(frame * len(self.templates))], text=put)

    def _others(self, meta: Mapping[str, Any]) -> list[str]:
        found = meta.get(self.paraphrases) if self.paraphrases else None
        if found is None:
            return []
        if not isinstance(found, list) or not all(isinstance(text, str) and text.strip() for text in found):
            raise _bad(meta, str(self.paraphrases), "a list of texts", "data.captions.paraphrases")
        return found

    def _organ(self, meta: Mapping[str, Any]) -> str:
        found = meta.get(self.organ_key) if self.organ is not None else None
        if found is not None and not isinstance(found, str):
            raise _bad(meta, self.organ_key, "a text", "data.captions.organ_key")
        return (found or "").strip()


def _filled(template: str, **values: str) -> str:
    """In one pass, so that braces in a text stay what they are."""
    names = "|".join(values)
    return re.sub(rf"\{{({names})\}}", lambda found: values[found[1]], template)


def _require(template: str, place: str, key: str) -> None:
    if place not in template:
        raise ValueError(f"{key}: '{template}' has no place for {place}")


def _bad(meta: Mapping[str, Any], name: str, expected: str, key: str) -> DataError:
    return DataError(
        f"pair '{meta.get('id', '?')}': '{name}' in its .json is not {expected}; name another key in {key}"
    )
