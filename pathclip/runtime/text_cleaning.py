"""What open_clip does to a text before it becomes tokens, without torch.

A model that learnt from cleaned texts has to be asked with cleaned ones. The card of such a model names one
of `CLEANINGS` as its `text_cleaning`; a card without it takes texts as they are.
"""

from __future__ import annotations

import html
import re
import string
from collections.abc import Callable

from pathclip.errors import ModelFolderError

# What ftfy would leave as it is: printable ASCII and white space, without an entity of HTML.
_PLAIN = re.compile(r"[\t\n\f\r\x20-\x7e]*")
_ENTITY = re.compile(r"&#?[0-9A-Za-z]{1,24};")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def cleaner(name: str | None) -> Callable[[str], str] | None:
    """The function of a card's `text_cleaning`; None where texts stay as they are.

    Args:
        name: a key of `CLEANINGS`, or None.

    Raises:
        ModelFolderError: an unknown name.
    """
    if name is None:
        return None
    if name not in CLEANINGS:
        raise ModelFolderError(f"text_cleaning: {name!r} is none of {', '.join(CLEANINGS)}")
    return CLEANINGS[name]


def mended(text: str) -> str:
    """Text with its broken Unicode mended (mojibake, curly quotes, ligatures) and entities of HTML replaced.

    By ftfy (Speer 2019), which is imported only for a text that it could change.
    """
    if not _PLAIN.fullmatch(text) or _ENTITY.search(text):
        import ftfy

        text = ftfy.fix_text(text)
    # Twice, because captions were often escaped twice.
    return html.unescape(html.unescape(text))


def whitespace(text: str) -> str:
    """Mended, every run of white space one space, none at the ends."""
    return " ".join(mended(text).split())


def lower(text: str) -> str:
    """As `whitespace`, in lower case."""
    return whitespace(text).lower()


def canonicalize(text: str) -> str:
    """As SigLIP learnt it (Zhai et al. 2023): mended, without ASCII punctuation, in lower case."""
    words = mended(text).replace("_", " ").translate(_NO_PUNCTUATION).lower()
    return " ".join(words.split())


CLEANINGS: dict[str, Callable[[str], str]] = {
    "lower": lower,
    "whitespace": whitespace,
    "canonicalize": canonicalize,
}
