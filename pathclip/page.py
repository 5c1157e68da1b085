"""An HTML page that needs nothing else: style, plots and pictures are in it. All reports are such pages."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

NOTICE = "Research software, not for diagnosis."
_FEW = 3  # sections that need no table of contents


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page.

    Attributes:
        title: plain text.
        html: trusted HTML or SVG.
        caption: plain text below it.
    """

    title: str
    html: str
    caption: str = ""


def page(title: str, sections: Sequence[Section], lead: str = "", style: str = "") -> str:
    """The page as HTML.

    Args:
        title: plain text.
        sections: in their order.
        lead: trusted HTML below the title.
        style: CSS after that of all pages, `page.css`.
    """
    contents = "".join(f'<li><a href="#s{n}">{escape(one.title)}</a></li>' for n, one in enumerate(sections))
    body = "".join(
        f'<section id="s{number}"><h2>{escape(section.title)}</h2>{section.html}'
        + (f'<p class="caption">{escape(section.caption)}</p>' if section.caption else "")
        + "</section>"
        for number, section in enumerate(sections)
    )
    common = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{common}{style}</style></head><body>"
        f"<header><h1>{escape(title)}</h1>{lead}</header>"
        + (f"<nav><ul>{contents}</ul></nav>" if len(sections) > _FEW else "")
        + f"<main>{body}</main><footer>Made by pathclip. {NOTICE}</footer></body></html>\n"
    )


def thumbnail(image: Image.Image, side: int, quality: int = 82) -> bytes:
    """The picture as a JPEG with its longest side at most `side` pixels; no metadata."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    small.info = {}  # Pillow would write the comment of the file it read into the one it makes
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def data_url(jpeg: bytes) -> str:
    """A JPEG as a `data:` URL."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
