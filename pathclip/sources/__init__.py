"""Posts of every platform, read one by one; and a synthetic feed whose truth is known.

Adding a platform is one module with a function `read(path, **options)`, one line in `READERS` here, and a
config in `conf/source/` that names it and its options.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pathclip.config import nearest
from pathclip.errors import ConfigError
from pathclip.types import Malformed, Post

READERS = {
    "twitter": "pathclip.sources.twitter",
    "table": "pathclip.sources.table",
}


def read_posts(platform: str, path: str | Path, **options: Any) -> Iterator[Post | Malformed]:
    """Reads a dump of one platform.

    Args:
        platform: 'twitter' or 'table'.
        path: a file, or a folder whose dumps are read in the order of their names.
        **options: of the platform's `read`.

    Yields:
        Posts, each distinct one once, and a `Malformed` for each line that holds none.

    Raises:
        ConfigError: an unknown platform or option; raised at once, not at the first post.
        DataError: `path` does not exist or holds no dump; raised at once.
    """
    if platform not in READERS:
        raise ConfigError(f"source.platform: '{platform}' is unknown.{nearest(platform, READERS)}")
    read = importlib.import_module(READERS[platform]).read
    known = [name for name in inspect.signature(read).parameters if name != "path"]
    for name in options:
        if name not in known:
            raise ConfigError(f"source.{name}: unknown key.{nearest(name, known)}")
    return read(Path(path), **options)
