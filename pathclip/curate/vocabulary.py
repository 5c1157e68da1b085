"""Hashtags and disease terms, read from `data/` or from a file of the user's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pathclip.config import data_dir, nearest
from pathclip.errors import ConfigError, DataError


def read_hashtags(lists: Iterable[str], file: str = "hashtags.yaml") -> frozenset[str]:
    """The hashtags of the named lists, in lower case.

    Args:
        lists: names of lists in the file, such as 'openpath' and 'wider'.
        file: a YAML mapping of list name to hashtags; a path, or a name in `data/`.

    Raises:
        ConfigError: a list that the file does not hold.
        DataError: no such file, or not such a mapping.
    """
    known = _read_yaml(file)
    found: set[str] = set()
    for name in lists:
        if name not in known:
            raise ConfigError(f"rules.hashtags: '{name}' is no list of {file}.{nearest(name, known)}")
        found.update(str(tag).lstrip("#").lower() for tag in known[name])
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class DiseaseTerms:
    """Finds the first disease or finding that a text names."""

    pattern: re.Pattern[str]
    not_diseases: frozenset[str]

    def find(self, text: str) -> str | None:
        """The term as it stands in the text, or None."""
        for match in self.pattern.finditer(text):
            if match.group().lower() not in self.not_diseases:
                return match.group()
        return None


def read_disease_terms(file: str = "disease_terms.yaml") -> DiseaseTerms:
    """Compiles a vocabulary with the keys 'endings', 'terms' and 'not_diseases'.

    Raises:
        DataError: no such file, or a key is missing.
    """
    known = _read_yaml(file)
    for key in ("endings", "terms", "not_diseases"):
        if not isinstance(known.get(key), list):
            raise DataError(f"{file}: a list '{key}' is needed")
    terms = "|".join(re.escape(str(term)) for term in sorted(known["terms"], key=len, reverse=True))
    endings = "|".join(re.escape(str(ending)) for ending in known["endings"])
    pattern = re.compile(rf"\b(?:(?:{terms})(?:s|'s|’s)?|[a-z]{{2,}}(?:{endings}))\b", re.IGNORECASE)
    return DiseaseTerms(pattern, frozenset(str(word).lower() for word in known["not_diseases"]))


def _read_yaml(file: str) -> Mapping[str, Any]:
    path = Path(file) if Path(file).is_file() else data_dir() / file
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{file}: no such file, neither here nor in {data_dir()}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not YAML ({error})") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a mapping of names to lists")
    return content
