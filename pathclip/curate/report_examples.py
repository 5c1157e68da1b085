"""Examples of what a curation kept and dropped, as HTML. All of it is of unknown origin.

Text goes through `shown`; pictures are decoded, made small and encoded anew, so that no byte of a dump's file
reaches the page. What was withdrawn is named but never shown: a report outlives the post.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from pathclip.curate.funnel_plot import shown
from pathclip.errors import DataError
from pathclip.page import data_url, thumbnail
from pathclip.runtime.images import open_image

EXAMPLES = 10
THUMBNAIL = 150  # pixels of the longer side
THUMBNAIL_BYTES = 8_000  # ten pictures for each of twenty reasons then stay below 3 MB
PICTURE_BYTES = 64 * 1024 * 1024
PICTURE_PIXELS = 80_000_000
LETTERS = 240  # of an example's text
TITLE = 400  # of what stands in full where the pointer rests
# Reason → why neither text nor picture of its rows may be shown.
WITHDRAWN = {
    "deleted": "deleted",
    "sensitive": "marked sensitive",
    "withheld": "withheld",
    "image_opted_out": "its owner opted out",
}
_LONG_WORD = re.compile(r"[0-9A-Za-z_]{17,}")
_MANY_DIGITS = re.compile(r"[0-9]{9}")


@dataclass(frozen=True, slots=True)
class Example:
    """A row to show.

    Attributes:
        id: of the post or pair.
        text: as it was posted, or the caption of a pair.
        detail: what the rule saw.
        picture: content of the picture's file, of unknown origin; None if there is none.
        hidden: why neither text nor picture may be shown, 'deleted' say; needed only where the reason that
            the example stands under does not tell so itself.
    """

    id: str
    text: str
    detail: str = ""
    picture: bytes | None = None
    hidden: str = ""


def cards(reason: str, rows: Sequence[Example]) -> str:
    """The first ten rows that fell for a reason, or were 'kept'."""
    few = (_card(row, WITHDRAWN.get(reason) or row.hidden) for row in list(rows)[:EXAMPLES])
    return f'<div class="cards">{"".join(few)}</div>'


def _card(row: Example, hidden: str) -> str:
    """A figure of one row; of a hidden one only its id and why, for what the rule saw can be its words."""
    name = _short(row.id)
    if hidden:
        content = f'<p class="none">not shown: {shown(hidden)}</p>'
    else:
        text = " ".join(html.unescape(row.text).split())
        content = _picture(row.picture, name)
        content += f'<p class="text" dir="auto">{shown(text, LETTERS)}</p>' if text else ""
        content += _saw(row.detail) if row.detail else ""
    return (
        f'<figure class="card">{content}<p class="id" title="{shown(row.id, TITLE)}">'
        f"<bdi>{shown(name, 60)}</bdi></p></figure>"
    )


def _saw(detail: str) -> str:
    return f'<p class="saw" title="{shown(detail, TITLE)}"><bdi>{shown(_short(detail), 120)}</bdi></p>'


def _short(text: str) -> str:
    """The text with long ids cut in their middle."""

    def cut(found: re.Match[str]) -> str:
        word = found.group()
        return f"{word[:6]}…{word[-6:]}" if _MANY_DIGITS.search(word) else word

    return _LONG_WORD.sub(cut, text)


def _picture(content: bytes | None, name: str) -> str:
    """The picture as a small JPEG within the page; one that cannot be decoded is said to be so."""
    if content is None:
        return ""
    try:
        if len(content) > PICTURE_BYTES:
            raise DataError("too many bytes")
        image = open_image(content, max_pixels=PICTURE_PIXELS, draft_to=THUMBNAIL)
    except DataError:
        return '<p class="none">picture cannot be shown</p>'
    encoded = b""
    for quality in (82, 65, 45, 25):
        encoded = thumbnail(image, THUMBNAIL, quality)
        if len(encoded) <= THUMBNAIL_BYTES:
            break
    width, height = Image.open(io.BytesIO(encoded)).size
    return (
        f'<img width="{width}" height="{height}" alt="picture of {shown(name, 60)}" '
        f'src="{data_url(encoded)}">'
    )
