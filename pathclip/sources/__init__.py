"""Posts of every platform, read one by one; and a synthetic feed whose truth is known.

Adding a platform is one module here with `SUFFIXES` and a function `read(file, **options)`, and a config in
`conf/source/` that names it and its options. The function checks its options when it is called and yields
posts, and what else the file holds, as it goes.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pathclip.config import nearest
from pathclip.errors import ConfigError
from pathclip.sources.distinct import DistinctPosts
from pathclip.sources.dumps import Item, find_dumps


@dataclass(frozen=True, slots=True)
class Dump:
    """The files of one platform's dump, in the order of their names, ready to be read.

    Attributes:
        platform: one of `platforms()`.
        files: to be read one after another.
        options: of the platform's `read`.
        repeats: posts of the same id are different ones, as rows of a table are.
    """

    platform: str
    files: tuple[Path, ...]
    options: dict[str, Any]
    repeats: bool = False

    def read(self, file: Path) -> Iterator[Item]:
        """Reads one of the files; a post that the dump holds twice comes out twice."""
        return _module(self.platform).read(file, **self.options)


def open_dump(platform: str, path: str | Path, **options: Any) -> Dump:
    """Finds the files of a dump and checks the options, before anything is read.

    Args:
        platform: one of `platforms()`.
        path: a file, or a folder that is searched with its sub-folders.
        **options: of the platform's `read`.

    Raises:
        ConfigError: an unknown platform or option, or a wrong value.
        DataError: `path` does not exist or holds no dump.
    """
    module = _module(platform)
    parameters = inspect.signature(module.read).parameters
    known = [name for name in parameters if name not in ("file", "root")]
    for name in options:
        if name not in known:
            raise ConfigError(f"source.{name}: unknown key.{nearest(name, known)}")
    path = Path(path)
    if "root" in parameters:  # paths of pictures are told from there
        options["root"] = path if path.is_dir() else path.parent
    files = tuple(find_dumps(path, module.SUFFIXES))
    dump = Dump(platform, files, options, getattr(module, "REPEATS", False))
    dump.read(dump.files[0])  # its options are checked here, before the first post is asked for
    return dump


def read_posts(platform: str, path: str | Path, **options: Any) -> Iterator[Item]:
    """Reads a dump of one platform.

    Args:
        platform: one of `platforms()`.
        path: a file, or a folder whose dumps are read in the order of their names.
        **options: of the platform's `read`.

    Yields:
        First a `Malformed` for each line that holds nothing known and a `Notice` for each record that is no
        post, then the posts: each distinct one once, of an edited one the last version.

    Raises:
        ConfigError: an unknown platform or option; raised at once, not at the first post.
        DataError: `path` does not exist or holds no dump; raised at once.
    """
    return _distinct(open_dump(platform, path, **options))


def _distinct(dump: Dump) -> Iterator[Item]:
    with DistinctPosts() as posts:
        for file in dump.files:
            yield from posts.add(file.name, dump.read(file), dump.repeats)
        yield from posts


def platforms() -> list[str]:
    """Names of all platforms: the modules of this package that read dumps."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return [name for name in names if _reads(importlib.import_module(f"{__name__}.{name}"))]


def _reads(module: ModuleType) -> bool:
    return hasattr(module, "SUFFIXES") and hasattr(module, "read")


def _module(platform: str) -> ModuleType:
    if platform.isidentifier() and importlib.util.find_spec(f"{__name__}.{platform}"):
        module = importlib.import_module(f"{__name__}.{platform}")
        if _reads(module):
            return module
    raise ConfigError(f"source.platform: '{platform}' is unknown.{nearest(platform, platforms())}")
