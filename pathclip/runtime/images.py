"""Opens pictures from files of unknown origin: bounded, upright, RGB."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pathclip.errors import DataError

if TYPE_CHECKING:
    from pathclip.runtime.preprocess import Preprocess

Result = TypeVar("Result")

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif"})
# Pillow's own threshold of suspicion: whole slides belong to the slide reader, which never decodes all.
MAX_PIXELS = 89_478_485
MAX_BYTES = 512 * 1024 * 1024


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


def printable(path: Path) -> str:
    """The path as text that any stream takes: bytes that are not UTF-8 are shown as escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def require_utf8_name(path: Path) -> None:
    """Raises DataError if the path has bytes that are not UTF-8, which no JSON file can hold."""
    if printable(path) != str(path):
        raise DataError(f"{printable(path)}: this name is not UTF-8 text; rename it")


def find_images(folder: Path) -> list[Path]:
    """All picture files below a folder, by suffix, in the order of their names; hidden ones left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures ready for an encoder.

    Attributes:
        paths: the files, in the order asked for, without those that could not be read.
        sha256: of each file's bytes, in hex.
        pixels: uint8 [n, h, w, 3], resized and cropped to the model's input.
    """

    paths: tuple[Path, ...]
    sha256: tuple[str, ...]
    pixels: NDArray[np.uint8]


def read_batches(
    paths: Iterable[Path],
    preprocess: Preprocess,
    on_error: Callable[[Path, DataError], None],
    batch_size: int = 32,
    workers: int = 1,
) -> Iterator[Batch]:
    """Decodes files in threads, a bounded number ahead, and yields them in order.

    Args:
        paths: the files.
        preprocess: of the encoder that the pixels are for.
        on_error: called with each file that cannot be read; the file is left out, the rest goes on.
        batch_size: pictures per batch; batches are full except the last.
        workers: threads that decode; Pillow releases the interpreter lock while it does.

    A file whose name is not UTF-8 counts as one that cannot be read: neither an index nor a JSON document
    could name it.

    Yields:
        Batches; encoding `batch.pixels` gives the same as encoding the opened images.
    """
    done: list[tuple[Path, str, NDArray[np.uint8]]] = []
    for path, result in _in_order(paths, lambda path: _read_one(path, preprocess), workers, 2 * batch_size):
        if isinstance(result, DataError):
            on_error(path, result)
            continue
        done.append((path, *result))
        if len(done) == batch_size:
            yield _batch(done)
            done = []
    if done:
        yield _batch(done)


def _batch(done: list[tuple[Path, str, NDArray[np.uint8]]]) -> Batch:
    paths, digests, pixels = zip(*done, strict=True)
    return Batch(paths, digests, np.stack(pixels))


def _read_one(path: Path, preprocess: Preprocess) -> tuple[str, NDArray[np.uint8]] | DataError:
    try:
        require_utf8_name(path)
        content = _read(path)
        pixels = preprocess.pixels(open_image(content, name=str(path)), str(path))
    except DataError as error:
        return error
    return hashlib.sha256(content).hexdigest(), pixels


def _in_order(
    paths: Iterable[Path], read: Callable[[Path], Result], workers: int, ahead: int
) -> Iterator[tuple[Path, Result]]:
    if workers <= 1:
        yield from ((path, read(path)) for path in paths)
        return
    from concurrent.futures import Future, ThreadPoolExecutor

    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[Path, Future[Result]]] = deque()
        for path in paths:
            waiting.append((path, pool.submit(read, path)))
            if len(waiting) > ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise DataError(f"{path}: a folder, not a picture")
        if size > MAX_BYTES:
            raise DataError(f"{path}: larger than {MAX_BYTES >> 20} MiB, refused")
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
