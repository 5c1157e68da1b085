"""Opens pictures from files of unknown origin: bounded, upright, RGB."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pathclip.errors import DataError, PathclipError

if TYPE_CHECKING:
    from pathclip.runtime.preprocess import Preprocess

Item = TypeVar("Item")
Result = TypeVar("Result")
_Read = tuple[str | None, NDArray[np.uint8]]  # SHA-256 of the file if asked for, its pixels

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif"})
# Pillow's own threshold of suspicion: whole slides belong to the slide reader, which never decodes all.
MAX_PIXELS = 89_478_485
MAX_BYTES = 512 * 1024 * 1024
_MOST_OUTCOMES = 8  # times the size of a batch: where hardly a file can be read, that is told all the same


def open_image(
    source: str | Path | bytes,
    max_pixels: int = MAX_PIXELS,
    draft_to: int | None = None,
    name: str | None = None,
) -> Image.Image:
    """Opens and decodes one picture.

    Args:
        source: a file, or its bytes.
        max_pixels: width times height above which the file is refused before it is decoded.
        draft_to: if given, a JPEG may be decoded at a half, a quarter or an eighth of its size as long
            as both sides stay at least this many pixels. Faster, but the pixels differ slightly.
        name: what messages call the picture; the path, if it is a file.

    Returns:
        A loaded RGB image, turned upright as its EXIF orientation says; of several frames the first.

    Raises:
        DataError: missing, too large, of an unknown kind, or it cannot be decoded; names the file.
    """
    if isinstance(source, bytes):
        content, name = source, name or "image"
    else:
        content, name = _read(Path(source)), name or str(source)
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
        width, height = image.size
        if width * height > max_pixels:
            raise DataError(f"{name}: {width} x {height} pixels, more than the {max_pixels} allowed")
        if draft_to is not None:
            image.draft("RGB", (draft_to, draft_to))
        image.load()
        return to_rgb(ImageOps.exif_transpose(image), name)
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"{name}: not a picture of a known kind ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise DataError(f"{name}: more than the {max_pixels} pixels allowed") from None
    except Exception as error:  # Pillow's decoders raise a dozen kinds on broken bytes, down to IndexError
        raise DataError(f"{name}: cannot be decoded ({error})") from error


def to_rgb(image: Image.Image, name: str = "image") -> Image.Image:
    """The image in 8-bit RGB: alpha is dropped, and of 16-bit grey the high byte is kept.

    Args:
        image: of any mode.
        name: what messages call it.

    Raises:
        DataError: its values are floating and cannot be those of a picture of 0 to 255.
    """
    if image.mode == "RGB":
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow would clip at 255 and so turn nearly every 16-bit picture white.
        grey = np.clip(np.asarray(image), 0, 65535).astype(np.uint16) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        _check_floats(np.asarray(image), name)
    return image.convert("RGB")


def _check_floats(values: NDArray[np.float32], name: str) -> None:
    """Refuses what Pillow would make black or white without a word."""
    if not np.isfinite(values).all():
        raise DataError(f"{name}: floating values of which some are not finite (NaN or infinity); no picture")
    least, most = float(values.min()), float(values.max())
    if least < 0 or most > 255 or 0 < most <= 1:
        raise DataError(
            f"{name}: floating values from {least:g} to {most:g}, but 0 is black here and 255 white; "
            "save it with 8 bits per channel"
        )


def printable(path: Path | str) -> str:
    """The path as text that any stream takes: bytes that are not UTF-8 are shown as escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def require_utf8_name(path: Path) -> None:
    """Raises DataError if the path has bytes that are not UTF-8, which no JSON file can hold."""
    if printable(path) != str(path):
        raise DataError(f"{printable(path)}: this name is not UTF-8 text; rename it")


def find_images(folder: Path) -> list[Path]:
    """All picture files below a folder, as `walk_images`."""
    return list(walk_images(folder))


def walk_images(folder: Path) -> Iterator[Path]:
    """Picture files below a folder, by suffix, in the order of their names; hidden ones left out.

    Links to files are followed, links to folders are not. Holds the names of one folder at a time.

    Raises:
        DataError: a folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted(
                (entry.name, entry.is_dir(follow_symlinks=False))
                for entry in entries
                if not entry.name.startswith(".")
            )
    except OSError as error:
        raise DataError(f"{printable(folder)}: cannot be read ({error.strerror})") from error
    for name, is_folder in found:
        path = folder / name
        if is_folder:
            yield from walk_images(path)
        elif path.suffix.lower() in SUFFIXES and os.path.isfile(path):  # noqa: PTH113 — which raises nothing
            yield path


@dataclass(frozen=True, slots=True)
class Batch(Generic[Item]):
    """Pictures ready for an encoder, and those among them that could not be read.

    Attributes:
        outcomes: in the order asked for, each picture with what is wrong with it, or None.
        sha256: of the bytes of each picture that could be read, in hex; empty unless it was asked for.
        pixels: uint8 [n, h, w, 3] of these, resized and cropped to the model's input.
    """

    outcomes: tuple[tuple[Item, DataError | None], ...]
    sha256: tuple[str, ...]
    pixels: NDArray[np.uint8]

    @property
    def read(self) -> list[Item]:
        """The pictures that could be read; row i of `pixels` is of the i-th."""
        return [item for item, error in self.outcomes if error is None]

    @property
    def failed(self) -> list[tuple[Item, DataError]]:
        """Those that could not, each with its error."""
        return [(item, error) for item, error in self.outcomes if error is not None]


def read_batches(
    items: Iterable[Item],
    preprocess: Preprocess,
    batch_size: int = 32,
    workers: int = 1,
    path_of: Callable[[Item], Path] = Path,  # type: ignore[assignment]
    hashed: bool = False,
) -> Iterator[Batch[Item]]:
    """Decodes files in threads, a bounded number ahead, and yields them in order.

    Args:
        items: the files, or whatever stands for them.
        preprocess: of the encoder that the pixels are for.
        batch_size: pictures that can be read in a batch; so many in all but the last, and fewer where many
            cannot.
        workers: threads that decode; Pillow releases the interpreter lock while it does.
        path_of: the file of an item; a DataError that it raises counts as one of the picture.
        hashed: whether to take each file's SHA-256, which costs a twentieth of what decoding does.

    A file whose name is not UTF-8 counts as one that cannot be read: neither an index nor a JSON document
    could name it.

    Yields:
        Batches; encoding `batch.pixels` gives the same as encoding what `preprocess.open` opens.

    Raises:
        PathclipError: that `items` raises; when the batches of what came before have been yielded.
    """
    faults: list[PathclipError] = []

    def until_fault() -> Iterator[Item]:
        try:
            yield from items
        except PathclipError as error:
            faults.append(error)

    def read(item: Item) -> _Read | DataError:
        try:
            return _read_one(path_of(item), preprocess, hashed)
        except DataError as error:
            return error

    outcomes: list[tuple[Item, DataError | None]] = []
    done: list[_Read] = []
    for item, result in _in_order(until_fault(), read, workers, 2 * batch_size):
        if isinstance(result, DataError):
            outcomes.append((item, result))
        else:
            outcomes.append((item, None))
            done.append(result)
        if len(done) == batch_size or len(outcomes) == _MOST_OUTCOMES * batch_size:
            yield _batch(outcomes, done, preprocess.size)
            outcomes, done = [], []
    if outcomes:
        yield _batch(outcomes, done, preprocess.size)
    for fault in faults:
        raise fault


def _batch(
    outcomes: list[tuple[Item, DataError | None]], done: list[_Read], size: tuple[int, int]
) -> Batch[Item]:
    pixels = np.stack([pixels for _, pixels in done]) if done else np.zeros((0, *size, 3), np.uint8)
    return Batch(tuple(outcomes), tuple(digest for digest, _ in done if digest), pixels)


def _read_one(path: Path, preprocess: Preprocess, hashed: bool) -> _Read:
    require_utf8_name(path)
    content = _read(path)
    pixels = preprocess.pixels(preprocess.open(content, str(path)), str(path))
    return hashlib.sha256(content).hexdigest() if hashed else None, pixels


def _in_order(
    items: Iterable[Item], read: Callable[[Item], Result], workers: int, ahead: int
) -> Iterator[tuple[Item, Result]]:
    if workers <= 1:
        yield from ((item, read(item)) for item in items)
        return
    from concurrent.futures import Future, ThreadPoolExecutor

    pool = ThreadPoolExecutor(workers, "pathclip-decode")
    try:
        waiting: deque[tuple[Item, Future[Result]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(read, item)))
            if len(waiting) > ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
    finally:
        # Whoever stops half-way does not wait for what was read ahead.
        pool.shutdown(wait=True, cancel_futures=True)


def _read(path: Path) -> bytes:
    """What is in a regular file: a device has no end, and a named pipe ends when its writer pleases."""
    try:
        # Without waiting for whoever might write to a named pipe.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            return _read_handle(handle, path)
        finally:
            os.close(handle)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # a NUL byte in the name
        raise DataError(f"{path}: cannot be read ({error})") from error


def _read_handle(handle: int, path: Path) -> bytes:
    status = os.fstat(handle)
    if stat.S_ISDIR(status.st_mode):
        raise DataError(f"{path}: a folder, not a picture")
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: a device or a pipe, not a file")
    if status.st_size > MAX_BYTES:
        raise DataError(f"{path}: larger than {MAX_BYTES >> 20} MiB, refused")
    with os.fdopen(handle, "rb", closefd=False) as file:
        # Not to the end: a file that somebody writes to may never have one.
        return file.read(status.st_size)
