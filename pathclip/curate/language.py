"""Tells the language of a caption.

Detectors learn from letters, and a caption such as 'Struma ovarii' has those of Latin. So cheaper hints
go first: small words such as 'the' or 'mit', and the platform's guess. What they leave open the detector
decides. py3langid was chosen over lingua 2.1: on the captions of `tests/curate/test_language.py` it erred
less often about whether they are English, at a tenth of the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pathclip.curate.vocabulary import read_yaml
from pathclip.errors import DataError

_LETTERS_BEYOND_LATIN = re.compile(
    "[\u0370-\u1dff\u2c00-\ua6ff\ua900-\uabff\uac00-\ud7af\uf900-\ufdff\ufe70-\ufefc]"
)


@dataclass(frozen=True)
class LanguageDetector:
    """Tells which of a handful of languages a caption is in (py3langid, Lui & Baldwin 2012).

    Attributes:
        languages: ISO 639-1 codes to choose among. A short list errs less on short, Latin-rich captions
            than the detector's 97.
    """

    languages: Sequence[str] = field(default=("en",))

    @cached_property
    def _identifier(self) -> object:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        identifier.set_languages(list(self.languages))
        return identifier

    def __call__(self, text: str) -> dict[str, float]:
        """Language → probability, summing to 1; the most probable first."""
        return {name: float(share) for name, share in self._identifier.rank(text)}  # type: ignore[attr-defined]

    def best(self, text: str) -> tuple[str, float]:
        """The most probable language and its probability; quicker than asking for all."""
        name, share = self._identifier.classify(text)  # type: ignore[attr-defined]
        return name, float(share)


@dataclass(frozen=True)
class FunctionWords:
    """Small words by language.

    Attributes:
        languages: word → the languages in which it stands.
    """

    languages: Mapping[str, tuple[str, ...]]

    @cached_property
    def _all(self) -> frozenset[str]:
        return frozenset(self.languages)

    def count(self, words: Iterable[str]) -> dict[str, int]:
        """Language → how many of its words occur, each counted once.

        Args:
            words: in lower case.
        """
        counts: dict[str, int] = {}
        for word in self._all.intersection(words):
            for name in self.languages[word]:
                counts[name] = counts.get(name, 0) + 1
        return counts


def read_function_words(file: str = "function_words.yaml") -> FunctionWords:
    """Reads a mapping of language to words.

    Raises:
        DataError: no such file, or not such a mapping.
    """
    held: dict[str, list[str]] = {}
    for name, words in read_yaml(file).items():
        if not isinstance(words, list):
            raise DataError(f"{file}: '{name}' needs a list of words")
        for word in dict.fromkeys(str(word).lower() for word in words):
            held.setdefault(word, []).append(str(name))
    return FunctionWords({word: tuple(names) for word, names in held.items()})


def beyond_latin(text: str) -> bool:
    """Whether most letters are of another script than Latin; a Greek letter in 'β-catenin' is no script."""
    return not text.isascii() and 2 * len(_LETTERS_BEYOND_LATIN.findall(text)) > len(text) - text.count(" ")
