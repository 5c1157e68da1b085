"""Figures of an article in JATS XML, as PubMed Central and many publishers give it.

The tag set: https://jats.nlm.nih.gov/archiving/. The parser reads no other file, and refuses a document that
declares entities of its own: they can name files and grow without bound.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

# The longest articles have a few MB; with large supplements in place, more.
MAX_XML_BYTES = 32 * 1024 * 1024
MAX_DEPTH = 200  # articles nest some 30 elements
_LICENCE_CHARACTERS = 300
_SPACE = re.compile(r"\s+")
_UNREAD = {"tex-math", "label", "fn", "object-id", "table", "permissions", "attrib"}
_HREF = "{http://www.w3.org/1999/xlink}href"
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
# Which id names an article best; of PubMed Central either 'PMC123' or '123' under 'pmc'.
_IDS = ("pmcid", "pmc", "doi", "pmid", "publisher-id")


@dataclass(frozen=True, slots=True)
class Graphic:
    """A picture of a figure: its file name, mostly without suffix, and its description."""

    name: str
    alt_text: str | None


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure.

    Attributes:
        identity: its id in the article, '' if it has none.
        caption: title and paragraphs, a blank line between them; '' if there is none.
        graphics: its pictures.
        licence: its own, where it differs from the article's.
        line: where it begins.
    """

    identity: str
    caption: str
    graphics: tuple[Graphic, ...]
    licence: str | None
    line: int


@dataclass(frozen=True, slots=True)
class Article:
    """An article; `identity` is its PMCID, else its DOI or another id."""

    identity: str
    published: datetime | None
    language: str | None
    licence: str | None
    figures: tuple[Figure, ...]


def parse(content: bytes) -> list[Article]:
    """The articles of a document, with their figures: one, or a set of them; none if it is another document.

    Raises:
        ValueError: it is no well-formed XML, declares entities, or nests too deeply; says which.
    """
    return [_article(article) for article in _tree(content).iter("article")]


def _article(article: Element) -> Article:
    meta = article.find("front/article-meta")
    meta = Element("article-meta") if meta is None else meta
    return Article(
        _identity(meta),
        _published(meta),
        article.get(_LANGUAGE),
        _licence(meta.find("permissions")),
        tuple(_figures(article)),
    )


def _tree(content: bytes) -> Element:
    builder = TreeBuilder()
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"elements nest deeper than {MAX_DEPTH}")
        element = builder.start(_local(tag), {_name(name): value for name, value in attributes.items()})
        if tag == "fig":
            element.set("{line}", str(parser.CurrentLineNumber))

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_local(tag))

    def refuse(*_: Any) -> None:
        raise ValueError("declares entities, which are refused")

    def rest(text: str) -> None:
        # A named sign, such as &alpha;, whose declaration is in the DTD that nobody reads.
        if text.startswith("&") and text.endswith(";"):
            builder.data(html.unescape(text))

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = parser.UnparsedEntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = None
    parser.DefaultHandler = rest
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    try:
        parser.Parse(content, True)
    except LookupError as error:
        raise ValueError(f"not XML: {error}") from None
    except expat.ExpatError as error:
        raise ValueError(f"not XML: {expat.errors.messages[error.code]} in line {error.lineno}") from None
    return builder.close()


def _name(name: str) -> str:
    return "{" + name if "}" in name else name


def _local(tag: str) -> str:
    # JATS itself is in no namespace; what is, such as MathML and ali, is told by its local name here.
    return tag.rpartition("}")[2]


def _identity(meta: Element) -> str:
    found = {one.get("pub-id-type", ""): _text(one) for one in meta.findall("article-id")}
    kind = next((kind for kind in _IDS if found.get(kind)), "")
    name = found.get(kind, "")
    return f"PMC{name}" if kind == "pmc" and name.isdigit() else name


def _published(meta: Element) -> datetime | None:
    """The earliest date of publication; where month or day are missing, the first."""
    dates = []
    for date in meta.findall("pub-date"):
        try:
            year, month, day = (int(date.findtext(part) or "1") for part in ("year", "month", "day"))
            dates.append(datetime(year, month, day, tzinfo=UTC))
        except (ValueError, OverflowError):
            continue
    return min((date for date in dates if date.year > 1), default=None)


def _licence(permissions: Element | None) -> str | None:
    """The address of the licence, else its name, else what is said of the rights."""
    if permissions is None:
        return None
    for licence in permissions.findall("license"):
        links = [_text(one) for one in licence.iter("license_ref")]
        links += [licence.get(_HREF, ""), *(one.get(_HREF, "") for one in licence.iter("ext-link"))]
        link = next((link for link in links if link.startswith(("http://", "https://"))), None)
        if found := link or licence.get("license-type") or _text(licence):
            return found[:_LICENCE_CHARACTERS]
    statement = permissions.find("copyright-statement")
    return (_text(statement)[:_LICENCE_CHARACTERS] or None) if statement is not None else None


def _figures(article: Element) -> Iterator[Figure]:
    """The figures in their order; one without words of its own has those of its group."""
    waiting: list[tuple[Element, str]] = [(article, "")]
    while waiting:
        element, shared = waiting.pop()
        if element.tag == "fig":
            yield _figure(element, shared)
            continue
        if element.tag == "fig-group":
            shared = _caption(element)
        waiting += [(child, shared) for child in reversed(element)]


def _figure(element: Element, shared: str) -> Figure:
    graphics: list[Graphic] = []
    # The same picture in several formats: the first stands for all.
    formats = [one for several in element.iter("alternatives") for one in [*several.iter("graphic")][1:]]
    for one in element.iter("graphic"):
        name = PurePosixPath(one.get(_HREF, "")).name
        if name not in ("", "..", *(other.name for other in graphics)) and one not in formats:
            described = _text(one.find("alt-text")) or _text(element.find("alt-text"))
            graphics.append(Graphic(name, described or None))
    licence = _licence(element.find("permissions")) or _text(element.find("attrib")) or None
    return Figure(
        element.get("id", ""),
        _caption(element) or shared,
        tuple(graphics),
        licence,
        int(element.get("{line}", "1")),
    )


def _caption(element: Element) -> str:
    caption = element.find("caption")
    if caption is None:
        return ""
    parts = [_text(part) for part in caption if part.tag in ("title", "p")] or [_text(caption)]
    return "\n\n".join(part for part in parts if part)


def _text(element: Element | None) -> str:
    """The words in an element, without formulas in TeX, labels, notes and citations, on one line."""
    if element is None:
        return ""
    words: list[str] = []
    waiting: list[Element | str] = [element]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            words.append(part)
        elif part is element or not (part.tag in _UNREAD or part.get("ref-type") == "bibr"):
            words.append(part.text or "")
            for child in reversed(part):
                waiting += [child.tail or "", child]
    return _SPACE.sub(" ", "".join(words)).strip()
