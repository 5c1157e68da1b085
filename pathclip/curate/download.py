"""Downloads the pictures that candidates name by URL and that no folder holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pathclip.curate.fetch import fetch
from pathclip.curate.fetch_policy import FetchSettings
from pathclip.curate.image_files import PictureFiles
from pathclip.curate.ledger import Ledger
from pathclip.curate.select import read_media
from pathclip.progress import track
from pathclip.sources.distinct import in_batches

URLS_PER_COMMIT = 64
_WAITING = """
select min(c.media) as media, json_extract(c.media, '$[2]') as url from candidate c
where url is not null and not exists (select 1 from fetched f where f.url = json_extract(c.media, '$[2]'))
group by url order by min(c.number)
"""


def download(ledger: Ledger, files: PictureFiles, folder: Path, settings: FetchSettings) -> None:
    """Downloads what is missing; a killed run goes on with what it lacks.

    Args:
        ledger: with candidates; gets the table of what was downloaded.
        files: where pictures are looked for first.
        folder: of the downloads; see `fetch`.
        settings: limits and manners.
    """
    with ledger.stage("download") as todo:
        if not todo:
            return
        total, rows = ledger.snapshot(_WAITING)
        results = fetch(_missing(track(rows, "Downloading", total=total), files), folder, settings)
        for some in in_batches(results, URLS_PER_COMMIT):
            ledger.write(
                "insert or replace into fetched values (?, ?, ?, ?)",
                [(one.url, str(one.path) if one.path else None, one.reason, one.detail) for one in some],
            )


def _missing(rows: Iterator[tuple[str, str]], files: PictureFiles) -> Iterator[tuple[str, str]]:
    return ((url, url) for media, url in rows if files.find(read_media(media)) is None)
