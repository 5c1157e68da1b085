"""Reads folders of figures: articles in JATS XML with their pictures, or pictures with a text beside each.

A figure is one post, however many pictures it has; its panels are never split. An article is its case.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pathclip.config import check_values
from pathclip.sources import figures_jats
from pathclip.sources.compressed import plain_name
from pathclip.sources.dumps import Place, read_bytes, relative_folder
from pathclip.sources.fields import PICTURE_SUFFIXES, safe_name, well_formed
from pathclip.types import Malformed, Media, Notice, Post

SUFFIXES = (".nxml", ".xml", ".txt")
REPEATS = True  # two folders may hold the same names
MAX_TEXT_BYTES = 1024 * 1024


def read(
    file: Path, name: str = "figures", licence: str | None = None, root: Path | None = None
) -> Iterator[Post | Malformed | Notice]:
    """Reads the figures of an article, or the picture that a text describes.

    Args:
        file: `.nxml` or `.xml` in JATS; or `.txt` with a picture of the same name beside it.
        name: of the data set; becomes `Pair.source`.
        licence: of all that does not state its own.
        root: folder that the paths of the pictures are relative to; the file's own by default.

    Raises:
        ConfigError: an option of the wrong type.
    """
    check_values(
        {"source": {"name": name, "licence": licence}},
        {"source.name": str, "source.licence": str | None},
    )
    below = relative_folder(file, root)
    if plain_name(file).endswith(".txt"):
        return _described(file, name, licence, below)
    return _figures(file, name, licence, below)


def _described(
    file: Path, name: str, licence: str | None, below: Path
) -> Iterator[Post | Malformed | Notice]:
    place = Place(file.name, 1)
    stem = file.name[: len(plain_name(file)) - len(".txt")]
    picture = find_picture(file.parent, stem)
    if picture is None:
        yield place.notice("text")  # a read-me, a licence
        return
    try:
        text = read_bytes(file, MAX_TEXT_BYTES).decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        yield place.malformed("not UTF-8")
        return
    except ValueError as error:
        yield place.malformed(str(error))
        return
    identity = well_formed((below / stem).as_posix())
    path = (below / picture).as_posix()
    yield Post(
        id=identity, platform=name, text=text, media=(Media(key=identity, path=path),), licence=licence
    )


def _figures(file: Path, name: str, licence: str | None, below: Path) -> Iterator[Post | Malformed | Notice]:
    try:
        articles = figures_jats.parse(read_bytes(file, figures_jats.MAX_XML_BYTES))
    except ValueError as error:
        yield Place(file.name, 1).malformed(str(error))
        return
    if not articles:
        yield Place(file.name, 1).notice("document")  # XML of another kind
    for article in articles:
        yield from _article(article, file, name, licence, below)


def _article(
    article: figures_jats.Article, file: Path, name: str, licence: str | None, below: Path
) -> Iterator[Post | Malformed | Notice]:
    case = safe_name(article.identity or file.name.partition(".")[0])
    if not article.figures:
        yield Place(file.name, 1).notice("article")
    for number, figure in enumerate(article.figures, 1):
        if not figure.graphics:
            yield Place(file.name, figure.line).malformed(f"figure {number} names no picture")
            continue
        yield Post(
            id=f"{case}_{safe_name(figure.identity or f'figure{number}')}",
            platform=name,
            text=figure.caption,
            created_at=article.published,
            language=article.language,
            media=tuple(
                Media(
                    key=safe_name(f"{case}_{graphic.name}"),
                    path=(below / (find_picture(file.parent, graphic.name) or graphic.name)).as_posix(),
                    alt_text=graphic.alt_text,
                )
                for graphic in figure.graphics
            ),
            licence=figure.licence or article.licence or licence,
            case=case,
        )


def find_picture(folder: Path, name: str) -> str | None:
    """The name of the picture in a folder: as named, or with a suffix of a picture; None if there is none.

    Articles name their pictures without suffix.
    """
    if "/" in name or "\0" in name or name.startswith("."):
        return None
    candidates = [name] if name.lower().endswith(PICTURE_SUFFIXES) else []
    candidates += [name + suffix for suffix in (*PICTURE_SUFFIXES, *map(str.upper, PICTURE_SUFFIXES))]
    for candidate in candidates:
        try:
            if (folder / candidate).is_file():
                return candidate
        except (OSError, ValueError):  # a name too long, or of lone surrogates
            return None
    return None
