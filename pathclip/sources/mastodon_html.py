"""The plain text of a status, which Mastodon keeps as HTML."""

from __future__ import annotations

import html
import re

from pathclip.sources.fields import well_formed

# Servers allow 500 to some 10 000 signs of text. What is longer is cut.
MAX_HTML = 1_000_000
# One pass whose time grows with the length alone: html.parser needs minutes for 100 kB of `<a <a <a`.
# Servers let only a few well-formed tags pass.
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]*)([^<>]*)>|<[!?][^<>]*>")
_CLASS = re.compile(r"""\bclass\s*=\s*["']?([^"'>]*)""")
_BLOCKS = {"p", "div", "blockquote", "pre", "ul", "ol", "h1", "h2", "h3", "h4", "h5", "h6"}
_VOID = {"br", "img", "hr", "wbr", "input"}
_HIDDEN = {"script", "style", "head", "template"}
_QUOTE = "quote-inline"  # stands in for a quoted status where a client cannot show it
_EMPTY_LINES = re.compile(r"\n{3,}")


def plain_text(content: str) -> str:
    """The text of a piece of HTML: a blank line between paragraphs, a line break for `<br>`, links in full.

    Mastodon hides parts of a link's address from the eye (`<span class="invisible">`); together they are the
    address, which the cleaner knows as one. Mentions and hashtags keep their mark.
    """
    content = content[:MAX_HTML]
    if "<" not in content and "&" not in content:
        return well_formed(content)
    parts: list[str] = []
    hidden: list[str] = []  # the tags that are open within what is not shown
    end = 0
    for tag in _TAG.finditer(content):
        if not hidden:
            parts.append(_unescaped(content[end : tag.start()]))
        end = tag.end()
        name = (tag[2] or "").lower()
        if hidden:
            _follow(hidden, name, closes=bool(tag[1]))
        elif not tag[1] and (name in _HIDDEN or _is_quote(tag[3] or "")):
            hidden.append(name)
        else:
            parts.append(_break(name))
    if not hidden:
        parts.append(_unescaped(content[end:]))
    lines = (line.strip() for line in "".join(parts).split("\n"))
    return well_formed(_EMPTY_LINES.sub("\n\n", "\n".join(lines)).strip())


def joined(first: str | None, text: str) -> str:
    """A content warning and what follows it, with a blank line between."""
    return f"{first}\n\n{text}" if first and text else first or text


def _break(tag: str) -> str:
    return "\n" if tag in ("br", "li") else "\n\n" if tag in _BLOCKS else ""


def _is_quote(attributes: str) -> bool:
    found = _CLASS.search(attributes) if _QUOTE in attributes else None
    return found is not None and _QUOTE in found[1].split()


def _follow(hidden: list[str], name: str, closes: bool) -> None:
    """Keeps account of the tags within what is not shown, until the one that opened it closes."""
    if not closes:
        if name and name not in _VOID and len(hidden) < 1000:
            hidden.append(name)
    elif name == hidden[0] and name not in hidden[1:]:
        hidden.clear()
    elif name == hidden[-1]:
        hidden.pop()


def _unescaped(text: str) -> str:
    try:
        return html.unescape(text) if "&" in text else text
    except ValueError:  # a reference to a sign by a number of thousands of digits
        return text
