"""Looks at every picture that a candidate names, once, however many captions it has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from pathclip.curate.engine import Engine
from pathclip.curate.image_files import Changed, PictureFiles, Place
from pathclip.curate.images import ImageSettings, Picture, cut, inspect
from pathclip.curate.ledger import Ledger
from pathclip.curate.select import read_media
from pathclip.errors import DataError
from pathclip.progress import track
from pathclip.sources.distinct import in_batches

# Few, so that a killed run has little to look at again.
PICTURES_PER_PARTITION = 16
PICTURES_PER_COMMIT = 256
_WAITING = """
select c.media, f.path, f.reason, f.detail from candidate c
left join fetched f on f.url = json_extract(c.media, '$[2]')
where not exists (select 1 from picture p where p.media = c.media)
group by c.media order by min(c.number)
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A picture to look at.

    Attributes:
        media: as `media_key` writes it.
        path: where it was downloaded to, None if it was not.
        reason: why it could not be downloaded, '' if nobody tried.
        detail: what was seen then.
    """

    media: str
    path: str | None = None
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Looked:
    """What was seen: of one file usually one picture, of a mixed figure one for each panel."""

    media: str
    place: str | None
    pictures: tuple[Picture, ...]


def look(ledger: Ledger, files: PictureFiles, settings: ImageSettings, engine: Engine) -> None:
    """Looks at all pictures that were not looked at yet, and notes what was seen."""
    with ledger.stage("look") as todo:
        if not todo:
            return
        # A picture that is noted would no longer be waiting.
        total, rows = ledger.snapshot(_WAITING)
        wanted = (Wanted(*row) for row in rows)
        work = partial(look_partition, files=files, settings=settings)
        seen = track(engine.map(work, wanted, PICTURES_PER_PARTITION), "Looking at pictures", total=total)
        for some in in_batches(seen, PICTURES_PER_COMMIT):
            # In one transaction: a figure of which only some panels are noted would count as looked at.
            ledger.database.executemany(
                "insert into picture values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (row for looked in some for row in _rows(looked)),
            )
            ledger.database.commit()


def look_partition(wanted: list[Wanted], files: PictureFiles, settings: ImageSettings) -> list[Looked]:
    """Looks at some pictures: the pure function that the engine spreads."""
    return [_look(one, files, settings) for one in wanted]


def _look(wanted: Wanted, files: PictureFiles, settings: ImageSettings) -> Looked:
    place = Place(wanted.path) if wanted.path else files.find(read_media(wanted.media))
    if place is None:
        reason = wanted.reason or "image_unreachable"
        media = read_media(wanted.media)
        detail = wanted.detail or f"no {media.path or media.key + '.jpg'} in {files.source.name}"
        return Looked(wanted.media, None, (Picture(reason=reason, detail=detail),))
    try:
        length = place.length()
        if length > settings.max_bytes:
            detail = f"{length >> 20} MiB, more than images.max_bytes"
            return Looked(wanted.media, place.write(), (Picture(reason="image_undecodable", detail=detail),))
        content = place.read()
    except OSError as error:
        unread = Picture(reason="image_unreachable", detail=f"cannot be read: {error.strerror}")
        return Looked(wanted.media, None, (unread,))
    return Looked(wanted.media, place.write(), inspect(content, place.name, settings))


def _rows(looked: Looked) -> Iterator[tuple[object, ...]]:
    for panel, picture in enumerate(looked.pictures):
        yield (
            looked.media,
            panel,
            looked.place,
            picture.reason,
            picture.detail,
            picture.sha256,
            picture.width,
            picture.height,
            write_hashes(picture.hashes),
            json.dumps(picture.flags),
            json.dumps(picture.box) if picture.box else None,
        )


def read_again(place: str, box: str | None, sha256: str) -> bytes:
    """The bytes of a picture, the same as when it was looked at; of a panel those of its own.

    Args:
        place: as `Place.write` noted it.
        box: of the panel, as JSON; None for a whole picture.
        sha256: of the bytes, as noted.

    Raises:
        Changed: they are others now, or gone.
    """
    file = Place.parse(place)
    try:
        content = file.read()
        content = cut(content, tuple(json.loads(box))) if box else content
    except OSError as error:
        raise Changed(f"{file.path}: gone since it was looked at ({error.strerror}); run again") from None
    except DataError as error:
        raise Changed(f"{error}, since it was looked at; run again") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise Changed(f"{file.path}: changed since it was looked at; run again")
    return content


def write_hashes(hashes: tuple[int, ...]) -> str:
    """Perceptual hashes as hexadecimal digits, sixteen each."""
    return "".join(f"{value:016x}" for value in hashes)


def read_hashes(digits: str) -> list[int]:
    """The hashes that `write_hashes` wrote."""
    return [int(digits[start : start + 16], 16) for start in range(0, len(digits), 16)]
