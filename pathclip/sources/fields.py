"""From the values of a dump to the fields of a post: whatever type a value has, nothing here fails."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

MAX_URL = 4096
# Of a picture that is named without: of several files the first counts, as packages hold thumbnails as .gif
# beside their .jpg.
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif")
MAX_COUNT = 2**53
# Longer names are cut: the file systems in use allow 255 bytes.
MAX_NAME = 160
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.-]{1,253}(?::\d{1,5})?(?:/[^\s\x00-\x1f\ud800-\udfff]*)?")
_SURROGATE = re.compile("[\ud800-\udfff]")


def well_formed(text: str) -> str:
    """The text with lone surrogates, which no file can hold, replaced by U+FFFD; pairs become one letter."""
    if text.isascii() or _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def pseudonym(platform: str, author: str) -> str:
    """A hash that stands for an author. It hides the name from readers; it is no anonymisation."""
    return hashlib.blake2b(f"{platform}:{author}".encode(errors="replace"), digest_size=8).hexdigest()


def parse_time(value: Any) -> datetime | None:
    """A time in UTC from ISO 8601; None where there is none or it is malformed. Without zone: UTC."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def from_unix(microseconds: Any) -> datetime | None:
    """A time in UTC from microseconds since 1970; None where that is no moment."""
    if type(microseconds) is not int:
        return None
    try:
        return datetime.fromtimestamp(microseconds / 1e6, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def a_dict(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under a key; an empty one where there is none."""
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def a_list(content: Mapping[str, Any], key: str) -> list[Any]:
    """The list under a key; an empty one where there is none."""
    value = content.get(key)
    return value if isinstance(value, list) else []


def dicts(content: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The objects in the list under a key."""
    return [entry for entry in a_list(content, key) if isinstance(entry, dict)]


def a_text(content: Mapping[str, Any], key: str) -> str | None:
    """The text under a key, well-formed; None where there is none or it is empty."""
    value = content.get(key)
    return well_formed(value) if isinstance(value, str) and value else None


def a_url(content: Mapping[str, Any], key: str) -> str | None:
    """The web address under a key; None where there is none, or one that no client would ask for."""
    value = content.get(key)
    if isinstance(value, str) and len(value) <= MAX_URL and _PLAIN_URL.fullmatch(value):
        return value
    return None


def a_count(content: Mapping[str, Any], key: str) -> int | None:
    """The count under a key; None where there is none. A bool is none."""
    value = content.get(key)
    return value if type(value) is int and 0 <= value < MAX_COUNT else None


def counts(content: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, int]:
    """The counts of a post by our names.

    Args:
        content: with the platform's own names.
        names: the platform's name → ours.
    """
    found = {ours: a_count(content, theirs) for theirs, ours in names.items()}
    return {name: count for name, count in found.items() if count is not None}


def distinct(texts: Any) -> tuple[str, ...]:
    """The texts among the values, well-formed, each once and in their order."""
    return tuple(dict.fromkeys(well_formed(text) for text in texts if isinstance(text, str) and text))


def safe_name(name: str) -> str:
    """A name that leaves no folder: letters, digits, '.', '_', '-'; a hash keeps changed names apart.

    Media keys become file names; on the platforms they have no other signs.
    """
    plain = _UNSAFE.sub("-", name)
    if plain == name and 0 < len(name) <= MAX_NAME and not name.startswith("."):
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"{plain.strip('.-')[:MAX_NAME]}-{digest}"
