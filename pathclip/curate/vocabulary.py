"""Hashtags and disease terms, read from `data/` or from a file of the user's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pathclip import atomic
from pathclip.config import data_dir, nearest
from pathclip.curate.wordings import plain
from pathclip.errors import ConfigError, DataError

_WORD = re.compile(r"[^\W_]+")
# Chapter of words that name a finding without saying which: 'lesion', 'inflammation'.
UNSPECIFIC = "unspecific"


def read_hashtags(lists: Iterable[str], file: str = "hashtags.yaml") -> frozenset[str]:
    """The hashtags of the named lists, in lower case.

    Args:
        lists: names of lists in the file, such as 'openpath' and 'wider'.
        file: a YAML mapping of list name to hashtags; a path, or a name in `data/`.

    Raises:
        ConfigError: a list that the file does not hold.
        DataError: no such file, or not such a mapping.
    """
    known = read_yaml(file)
    found: set[str] = set()
    for name in lists:
        if name not in known:
            raise ConfigError(f"rules.hashtags: '{name}' is no list of {file}.{nearest(name, known)}")
        found.update(str(tag).lstrip("#").lower() for tag in known[name])
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class DiseaseTerms:
    """Finds the first disease or finding that a text names.

    Every word costs one look into a table and one into the endings, whatever the size of the vocabulary.

    Attributes:
        words: terms of one word.
        phrases: first word of a longer term → the words that follow it, longest first.
        endings: a word of at least `least_letters` that ends so names a disease …
        not_diseases: … unless it stands here.
        cased: abbreviations that count only as written here, because they are words too ('GIST', 'NET').
        unspecific: the words among `words` that say no more than that something is there.
        least_letters: of a word that is told by its ending.
        shouted_words: a longer text all in capitals is shouted, and `cased` not asked.
    """

    words: frozenset[str]
    phrases: Mapping[str, tuple[tuple[str, ...], ...]]
    endings: tuple[str, ...]
    not_diseases: frozenset[str]
    cased: frozenset[str] = frozenset()
    unspecific: frozenset[str] = field(default=frozenset())
    least_letters: int = 5
    shouted_words: int = 3

    def find(self, text: str, specific: bool = False) -> str | None:
        """The term as it stands in the text, or None.

        Args:
            text: any.
            specific: pass over unspecific words.
        """
        folded = plain(text)
        words = _WORD.findall(folded)
        for place, word in enumerate(words):
            if self._is_word(word, specific):
                return word
            for rest in self.phrases.get(word, ()):
                following = words[place + 1 : place + 1 + len(rest)]
                if self._follows(rest, following):
                    return " ".join((word, *following))
        shouted = text.isupper() and len(words) > self.shouted_words  # there capitals tell nothing
        if self.cased and not shouted:
            return next((word for word in _WORD.findall(text) if word in self.cased), None)
        return None

    def find_specific(self, text: str) -> str | None:
        """The first term that says which disease."""
        return self.find(text, specific=True)

    def _is_word(self, word: str, specific: bool) -> bool:
        if word in self.not_diseases:
            return False
        if word in self.words or (word[-1] == "s" and self._is_plural(word)):
            return not (specific and (word in self.unspecific or word[:-1] in self.unspecific))
        return len(word) >= self.least_letters and word.endswith(self.endings)

    def _is_plural(self, word: str) -> bool:
        if word.endswith("ies") and f"{word[:-3]}y" in self.words:
            return True
        return word[:-1] in self.words or (word.endswith("es") and word[:-2] in self.words)

    @staticmethod
    def _follows(rest: tuple[str, ...], words: list[str]) -> bool:
        if len(words) < len(rest) or words[:-1] != list(rest[:-1]):
            return False
        return words[-1] == rest[-1] or words[-1] in (f"{rest[-1]}s", f"{rest[-1]}es")


def read_disease_terms(file: str = "disease_terms.yaml") -> DiseaseTerms:
    """Reads a vocabulary.

    Keys: 'endings', 'not_diseases', 'terms' (a list, or a mapping of chapters to lists), and if need be
    'abbreviations', 'abbreviations_cased', 'least_letters' and 'shouted_words'.

    Raises:
        DataError: no such file, or a key is missing.
    """
    known = read_yaml(file)
    for key in ("endings", "not_diseases"):
        if not isinstance(known.get(key), list):
            raise DataError(f"{file}: a list '{key}' is needed")
    terms = known.get("terms")
    chapters = {"": terms} if isinstance(terms, list) else terms
    if not isinstance(chapters, dict) or not all(isinstance(part, list) for part in chapters.values()):
        raise DataError(f"{file}: 'terms' must be a list, or chapters that are lists")
    words: set[str] = set()
    phrases: dict[str, set[tuple[str, ...]]] = {}
    for term in (term for part in chapters.values() for term in part):
        first, *rest = _WORD.findall(plain(str(term).replace("'s", ""))) or [""]
        # The s of "Crohn's" stands as a word of its own in a text.
        for longer in (tuple(rest), ("s", *rest)) if "'s" in str(term) else (tuple(rest),):
            if longer:
                phrases.setdefault(first, set()).add(longer)
            elif first:
                words.add(first)
    words.update(plain(str(word)) for word in known.get("abbreviations") or ())
    return DiseaseTerms(
        frozenset(words),
        {
            first: tuple(sorted(rests, key=lambda rest: (-len(rest), rest)))
            for first, rests in phrases.items()
        },
        tuple(plain(str(ending)) for ending in known["endings"]),
        frozenset(plain(str(word)) for word in known["not_diseases"]),
        frozenset(str(word) for word in known.get("abbreviations_cased") or ()),
        frozenset(plain(str(word)) for word in chapters.get(UNSPECIFIC, ())),
        int(known.get("least_letters", 5)),
        int(known.get("shouted_words", 3)),
    )


def file_hashes(settings: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of the vocabularies that settings name, by the name of the setting."""
    named = {key: _path(value) for key, value in settings.items() if isinstance(value, str)}
    return {
        key: atomic.sha256_file(path)
        for key, path in named.items()
        if path.suffix in (".yaml", ".yml") and path.is_file()
    }


def read_yaml(file: str) -> Mapping[str, Any]:
    """A mapping from a YAML file; a path, or a name in `data/`.

    Raises:
        DataError: no such file, not YAML, or no mapping.
    """
    path = _path(file)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{file}: no such file, neither here nor in {data_dir()}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not YAML ({error})") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a mapping of names to lists")
    return content


def _path(file: str) -> Path:
    """A file of the user's, or one of that name in `data/`."""
    return Path(file) if Path(file).is_file() else data_dir() / file
