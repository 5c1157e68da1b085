"""Makes a caption of a post's text, and tells its language."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import ftfy
from ftfy.badness import is_bad

_URL = re.compile(r"(?:https?://|www\.|pic\.twitter\.com/|t\.co/)\S+", re.IGNORECASE)
_MENTION = re.compile(r"(?<![\w.])[@＠]\w{1,50}(?:@[\w.-]+\w)?")
_HASHTAG = re.compile(r"(?<![\w&/])[#＃](\w+)")
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,500}>")
_CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\ufeff\ud800-\udfff]"
)
_EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u231a-\u23ff\u25a0-\u25ff\U000e0020-\U000e007f"
    "\u20e3\ufe0e\ufe0f\u200d\u203c\u2049]+"
)
_SPACE = re.compile(r"\s+")
_LEFT_OVER = re.compile(r"\(\s*\)|\[\s*\]|\s+(?=[,.;:!?)])")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_UNSPACED = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]"
)  # Japanese, Chinese, Thai: no spaces between words


@dataclass(frozen=True, slots=True)
class TextCleaner:
    """Turns the text of a post into a caption.

    OpenPath removed user names, links, HTML, line breaks and special characters (Huang et al. 2023, Methods).

    Attributes:
        hashtags: 'words' strips the mark and keeps the word; 'drop' removes all; 'drop_trailing' removes
            those that close the text and keeps the others as words; 'keep' leaves them.
        emoji: keep emoji.
        max_chars: a caption is cut at the last word before this length.
    """

    hashtags: Literal["words", "drop", "drop_trailing", "keep"] = "drop_trailing"
    emoji: bool = False
    max_chars: int = 2000

    def __call__(self, text: str) -> str:
        """The caption, on one line; '' if nothing is left."""
        text = text[: 20 * self.max_chars]
        if "<" in text:
            text = _TAG.sub(" ", text)
        if "&" in text:
            text = html.unescape(text)
        if not text.isascii():
            # Mojibake is rare and its repair slow.
            text = unicodedata.normalize("NFC", ftfy.fix_encoding(text) if is_bad(text) else text)
            if not self.emoji:
                text = _EMOJI.sub(" ", text)
        text = _CONTROL.sub("", text)
        text = _MENTION.sub(" ", _URL.sub(" ", text))
        if self.hashtags != "keep" and ("#" in text or "＃" in text):
            text = self._without_marks(text)
        text = _SPACE.sub(" ", _LEFT_OVER.sub("", text)).strip(" ,;:|-–—·•/")
        if len(text) > self.max_chars:
            text = text[: self.max_chars].rpartition(" ")[0] or text[: self.max_chars]
        return text

    def _without_marks(self, text: str) -> str:
        if self.hashtags == "drop":
            return _HASHTAG.sub(" ", text)
        if self.hashtags == "drop_trailing":
            end = text.rstrip()
            while match := re.search(r"(?<![\w&/])[#＃]\w+[\s.,;|]*$", end):
                end = end[: match.start()].rstrip()
            text = end
        return _HASHTAG.sub(r"\1", text)


def without_links(text: str) -> str:
    """The text without links, in which a question mark asks nothing."""
    return _URL.sub(" ", text)


def count_words(text: str) -> int:
    """Words with at least one letter; in scripts without spaces two letters count as a word."""
    words = len(_WORD.findall(text))
    return words if text.isascii() else max(words, len(_UNSPACED.findall(text)) // 2)


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
