"""Makes a caption of a post's text.

OpenPath removed user names, links, HTML, line breaks and special characters (Huang et al. 2023, Methods).
What a pathologist wrote stays as written: 'CD20+', 'Ki-67 <5%', 't(9;22)', 'µm', 'HER2 3+'. Every step looks
first whether there is anything to do, and none takes more than linear time.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import ftfy
from ftfy.badness import is_bad

_HOSTS = (
    r"bit\.ly|buff\.ly|ow\.ly|goo\.gl|tinyurl\.com|lnkd\.in|dlvr\.it|youtu\.be|fb\.me|doi\.org|t\.co|"
    r"pic\.twitter\.com|pic\.x\.com"
)
_URL = re.compile(r"[hH][tT][tT][pP][sS]?://\S*")
_BARE_URL = re.compile(rf"(?:www\.|(?<![\w.@])(?:{_HOSTS})/)\S+", re.IGNORECASE)
_MAYBE_BARE = re.compile(r"\.(?:ly|gl|com|in|it|be|me|org|co)/")
# Names of Mastodon hold a second @, those of Bluesky are host names.
_DOMAINS = "social|com|net|org|edu|gov|app|dev|xyz|info|io|me|co|uk|de|fr|es|it|nl|eu|us|ca"
_MENTION = re.compile(
    rf"[@＠](?<![\w.].)\w{{1,50}}(?:@[\w.-]{{1,100}}\w|(?:[.-][a-z0-9]{{1,63}}){{0,9}}\.(?:{_DOMAINS})\b)?"
)
_REPEATED = re.compile(r"\s{0,9}(?:RT|MT|QT)\s{1,9}[@＠]\w{1,50}(?:@[\w.-]{1,100}\w)?\s{0,9}:?")
_CREDIT = re.compile(r"\b(?:via|h/t|HT|cc)\s{0,3}:?\s{0,3}(?=[@＠]\w)")
_HASHTAG = re.compile(r"[#＃](?<![\w&/].)(\w+)")
_BETWEEN_HASHTAGS = " \t\n\r.,;|·"
_ELEMENTS = (
    "a|abbr|article|b|big|blockquote|body|br|button|cite|code|del|details|div|em|figcaption|figure|font|footer|form|"
    "h[1-6]|head|header|hr|html|i|iframe|img|input|ins|label|li|link|mark|meta|nav|ol|p|picture|pre|q|s|script|"
    "section|small|span|strike|strong|style|sub|summary|sup|svg|table|tbody|td|th|thead|time|title|tr|tt|u|ul|video"
)
# Attributes are asked for, so that 'a<b and c>d' stays.
_TAG = re.compile(
    rf"</?(?:{_ELEMENTS})(?:\s{{1,9}}[\w:-]{{1,40}}\s?=[^<>]{{0,500}})?\s{{0,9}}/?>|<!--[^<>]{{0,500}}-->",
    re.IGNORECASE,
)
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffd]"
)
_JOINERS = re.compile("[\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u231a-\u23ff\u25a0-\u25ff\u20e3\u203c\u2049]"
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u231a-\u23ff\u25a0-\u25ff\u20e3\u203c\u2049"
    "\U000e0020-\U000e007f\ufe0e\ufe0f\u200d]*"
)
# Full-width letters, digits and signs, as phones set to an Asian language write them.
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " "}
# Signs that few texts hold: surrogates, joiners, full-width forms, and those of text decoded wrongly.
_RARE = re.compile(
    "[\ud800-\udfff\uff01-\uff5e\u3000\x80-\x9fÂÃâãÄÅÐÑÏÎØÙðï\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
_ENTITY = re.compile(r"&#?\w{2,31};")
_COUNTER = r"(\d{1,2})\s?/\s?(\d{1,2}|[nNxX])?"
_COUNTER_FIRST = re.compile(rf"^\s{{0,9}}(?:[(\[]{_COUNTER}[)\]]|{_COUNTER})(?=[\s:.)-]|$)[:.)\s-]{{0,9}}")
_COUNTER_LAST = re.compile(rf"(?:(?<=[\s.!?:])[(\[]{_COUNTER}[)\]]|(?<=[.!?…\n])\s?{_COUNTER})\s{{0,9}}$")
# What a removal leaves: empty brackets, and a space before a sign.
_LEFT_OVER = (
    *((f" {sign}", sign) for sign in ",;:!?)]"),
    ("( ", "("),
)
_SPACE_BEFORE_STOP = re.compile(r" \.(?!\d)")
_EDGES = " ,;:|–—·•/~"
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_ASCII_WORD = re.compile(r"[a-z]+(?:['-][a-z]+)*")
# Japanese, Chinese, Thai: no spaces between words.
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]")


@dataclass(frozen=True, slots=True)
class TextCleaner:
    """Turns the text of a post into a caption.

    Attributes:
        hashtags: 'words' strips the mark and keeps the word; 'drop' removes all; 'drop_trailing' removes
            those that close the text and keeps the others as words; 'keep' leaves them.
        emoji: keep emoji.
        counters: keep '1/5' or '(2/3)' of a thread at the start and the end. A share such as
            '1/12 lymph nodes' stays in any case.
        max_chars: a caption is cut at the last word before this length.
    """

    hashtags: Literal["words", "drop", "drop_trailing", "keep"] = "drop_trailing"
    emoji: bool = False
    counters: bool = False
    max_chars: int = 2000

    def __call__(self, text: str) -> str:
        """The caption, on one line; '' if nothing is left."""
        text = text[: 20 * self.max_chars]
        if "<" in text:
            text = _TAG.sub(" ", text)
        if "&" in text:
            text = _unescaped(text)
        if not text.isascii():
            text = self._plain_signs(text)
        if not text.isprintable():
            text = _UNSEEN.sub("", text)
        whole = text
        if "@" in text or "＠" in text:
            text = _without_names(text)
        text = without_links(text)
        if self.hashtags != "keep" and ("#" in text or "＃" in text):
            text = self._without_marks(text)
        if not self.counters and "/" in text:
            text = _without_counters(text)
        removed = text is not whole
        text = " ".join(text.split())
        if removed:
            text = _tidied(text)
        text = _trimmed(text)
        if len(text) > self.max_chars:
            text = text[: self.max_chars].rpartition(" ")[0] or text[: self.max_chars]
        return text

    def _plain_signs(self, text: str) -> str:
        if not self.emoji:
            text = _EMOJI.sub(" ", text)
            if text.isascii():
                return text
        if _RARE.search(text):
            text = _repaired(text)
            text = text if self.emoji else _JOINERS.sub("", _EMOJI.sub(" ", text))
        if not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)
        return text

    def _without_marks(self, text: str) -> str:
        if self.hashtags == "drop":
            return _HASHTAG.sub(" ", text)
        if self.hashtags == "drop_trailing":
            text = _without_last_hashtags(text)
        return _HASHTAG.sub(r"\1", text) if "#" in text or "＃" in text else text


def without_links(text: str) -> str:
    """The text without links, in which a question mark asks nothing."""
    if "://" in text:
        text = _URL.sub(" ", text)
    if "www." in text or _MAYBE_BARE.search(text):
        text = _BARE_URL.sub(" ", text)
    return text


def without_emoji(text: str) -> str:
    """The text with spaces in place of emoji."""
    return text if text.isascii() else _EMOJI.sub(" ", text)


def without_mentions(text: str) -> str:
    """The text without names of users."""
    return _MENTION.sub(" ", text) if "@" in text or "＠" in text else text


def caption_words(text: str) -> list[str]:
    """The words with at least one letter, in lower case."""
    return (_ASCII_WORD if text.isascii() else _WORD).findall(text.lower())


def count_words(text: str, words: Sequence[str] | None = None) -> int:
    """Words with at least one letter; in scripts without spaces two letters count as a word.

    Args:
        text: a caption.
        words: what `caption_words` found in it, if that is known.
    """
    count = len(caption_words(text) if words is None else words)
    return count if text.isascii() else max(count, len(_UNSPACED.findall(text)) // 2)


def _without_last_hashtags(text: str) -> str:
    """The text up to the hashtags that close it, with nothing but `_BETWEEN_HASHTAGS` among them."""
    end = len(text)
    while (mark := max(text.rfind("#", 0, end), text.rfind("＃", 0, end))) >= 0:
        tag = _HASHTAG.match(text, mark)
        if tag is None or text[tag.end() : end].strip(_BETWEEN_HASHTAGS):
            break
        end = mark
    return text[:end]


def _without_names(text: str) -> str:
    text = _REPEATED.sub(" ", text, count=1) if _REPEATED.match(text) else text
    if "via" in text or "cc" in text or "HT" in text or "h/t" in text:
        text = _CREDIT.sub(" ", text)
    return _MENTION.sub(" ", text)


def _repaired(text: str) -> str:
    """Without lone surrogates, mojibake and full-width forms."""
    # Two surrogates that belong together become their letter, others go.
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    if is_bad(text):
        text = ftfy.fix_encoding(text)
    return text.translate(_FULL_WIDTH)


def _unescaped(text: str) -> str:
    for _ in range(3):  # some platforms escape twice
        if not _ENTITY.search(text):
            break
        text = html.unescape(text)
    return text


def _without_counters(text: str) -> str:
    first = _COUNTER_FIRST.match(text)
    # '3/12 lymph nodes' is a share: what follows a counter begins a sentence.
    if first and _counts(first) and not text[first.end() : first.end() + 1].islower():
        text = text[first.end() :]
    last = _COUNTER_LAST.search(text, max(0, len(text) - 30))
    return text[: last.start()] if last and _counts(last) else text


def _counts(match: re.Match[str]) -> bool:
    """Whether the numbers can be a place in a thread: 2/5, but not 7/3 or 0/12."""
    place, total = (one for one in ((match[1], match[2]), (match[3], match[4])) if one[0]).__next__()
    return int(place) > 0 and (total is None or not total.isdigit() or int(place) <= int(total) <= 40)


def _tidied(text: str) -> str:
    """Without what a removal leaves behind."""
    for left, instead in _LEFT_OVER:
        text = text.replace(left, instead)
    if " ." in text:  # but ' .05' is a number
        text = _SPACE_BEFORE_STOP.sub(".", text)
    return text.replace("()", "").replace("[]", "")


def _trimmed(text: str) -> str:
    """Without signs at the edges that separated what was removed; 'CD20-' keeps its minus."""
    text = text.strip(_EDGES)
    while text.endswith(" -"):
        text = text[:-2].rstrip(_EDGES)
    while text.startswith("- "):
        text = text[2:].lstrip(_EDGES)
    return text
