"""The folder of fetched pictures: `ab/<SHA-256 of the URL>.<suffix>`, or `.json` beside for what failed.

A failure is a small file of its own, not a line of a journal: looking one up needs nothing in memory, however
many there are, two runs may share a folder, and a kill cannot spoil the earlier ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from PIL import Image

from pathclip import atomic
from pathclip.curate.fetch_policy import Failure, FetchSettings
from pathclip.errors import DataError
from pathclip.runtime.images import FORMATS
from pathclip.shards.writer import image_suffix

SUFFIXES = ("jpg", "png", "webp", "gif", "tif")  # of `image_suffix`, the most frequent first
REASONS = ("image_unreachable", "image_opted_out", "image_undecodable")
# An unfinished file that nobody has touched for so long was left by a run that was killed.
_STALE_SECONDS = 3600.0
_IN_MEMORY = 1024 * 1024  # bytes; a larger picture lies on the disk while it comes
ENOUGH_TO_TELL = 12  # bytes that tell the kind of a picture


class PictureStore:
    """Pictures and failures by URL; a picture takes its place when it is whole."""

    def __init__(self, folder: Path, settings: FetchSettings):
        self._folder = folder
        self._settings = settings
        self._unfinished = folder / ".unfinished"
        try:
            self._unfinished.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: cannot hold pictures ({error.strerror})") from None
        self._sweep()

    def find(self, url: str) -> Path | Failure | None:
        """The picture, or why there is none; None if the URL has to be asked for."""
        failure = self._failure(url)
        if failure is not None and failure.holds(self._settings):
            return None if self._settings.retry_failed else failure
        with _disk(self._folder):
            return next((path for path in map(self._path(url).with_suffix, _DOTTED) if path.is_file()), None)

    def remember(self, url: str, failure: Failure) -> None:
        """Keeps a lasting failure, with the settings that it depends on."""
        row = {
            "url": url,
            "reason": failure.reason,
            "detail": failure.detail,
            "settings": dict(failure.settings),
        }
        with _disk(self._folder):
            atomic.write_bytes(self._path(url).with_suffix(".json"), json.dumps(row).encode("ascii"))

    @contextlib.contextmanager
    def unfinished(self) -> Iterator[IO[bytes]]:
        """A file without a name for a picture to come: in memory while small, and gone after the block."""
        with (
            _disk(self._folder),
            tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(self._unfinished)) as picture,
        ):
            yield picture

    def keep(self, url: str, picture: IO[bytes], opted_out: str = "") -> Path:
        """Gives a whole picture its place.

        Args:
            url: that it is from.
            picture: from `unfinished`, with all of its bytes.
            opted_out: the server's opt-out, where the settings do not respect it: it is remembered, so that
                a later run that does will not take the picture from the folder.

        Raises:
            Failure: its header cannot be read or names too many pixels.
        """
        suffix = check_header(picture, self._settings.max_pixels)
        path = self._path(url).with_suffix(f".{suffix}")
        if opted_out:
            self.remember(url, opted_out_failure(opted_out))
        with _disk(self._folder):
            self._write(picture, path)
            if not opted_out:
                path.with_suffix(".json").unlink(missing_ok=True)
        return path

    def _write(self, picture: IO[bytes], path: Path) -> None:
        """As `atomic.write_bytes` does, but a large picture never lies in memory."""
        handle, name = tempfile.mkstemp(dir=self._unfinished)
        try:
            with os.fdopen(handle, "wb") as file:
                picture.seek(0)
                shutil.copyfileobj(picture, file)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            path.parent.mkdir(exist_ok=True)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _path(self, url: str) -> Path:
        digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
        return self._folder / digest[:2] / digest

    def _failure(self, url: str) -> Failure | None:
        try:
            row: Any = json.loads(self._path(url).with_suffix(".json").read_bytes())
            if row["url"] != url or row["reason"] not in REASONS:
                return None
            settings = {str(key): value for key, value in row["settings"].items() if isinstance(value, int)}
            return Failure(row["reason"], str(row["detail"]), lasting=True, settings=settings)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None  # absent, or not written by us: the picture is asked for again

    def _sweep(self) -> None:
        oldest = time.time() - max(_STALE_SECONDS, 2 * self._settings.total_timeout)
        for path in self._unfinished.iterdir():
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()


_DOTTED = tuple(f".{suffix}" for suffix in SUFFIXES)


def opted_out_failure(header: str) -> Failure:
    """The failure of a picture whose server keeps it out of data sets."""
    return Failure("image_opted_out", header, lasting=True, settings={"respect_opt_outs": True})


def check_kind(head: bytes) -> None:
    """Refuses what does not begin as a picture does, whatever its server calls it.

    Args:
        head: the first bytes, at least `ENOUGH_TO_TELL` of them.

    Raises:
        Failure: not a picture of a known kind.
    """
    try:
        image_suffix(head)
    except DataError as error:
        begins = head[:16].decode("ascii", "replace").replace("\ufffd", "?")
        raise Failure("image_undecodable", f"{error}; it begins with {begins!r}", lasting=True) from None


def check_header(picture: IO[bytes], max_pixels: int) -> str:
    """Reads a picture's header without decoding it.

    Returns:
        The suffix that its content asks for.

    Raises:
        Failure: the header cannot be read, or names more pixels than allowed.
    """
    too_many = Failure(
        "image_undecodable",
        f"more than the {max_pixels} pixels allowed",
        lasting=True,
        settings={"max_pixels": max_pixels},
    )
    try:
        picture.seek(0)
        suffix = image_suffix(picture.read(ENOUGH_TO_TELL))
        picture.seek(0)
        width, height = Image.open(picture, formats=FORMATS).size
    except Image.DecompressionBombError:
        raise too_many from None
    except Exception as error:  # Pillow's readers raise a dozen kinds on broken bytes
        raise Failure("image_undecodable", f"header cannot be read ({error})", lasting=True) from None
    if width * height > max_pixels:
        too_many.detail = f"{width} x {height} pixels, {too_many.detail}"
        raise too_many
    return suffix


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """A disk that is full or read-only concerns every further picture: it ends the run."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{folder}: a picture cannot be read or written ({error.strerror})") from error
