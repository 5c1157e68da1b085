"""Where this user's caches lie."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path | None:
    """The folder for what may be computed again: `PATHCLIP_CACHE`, or `pathclip` in the user's cache.

    None, and nothing is kept, where `PATHCLIP_CACHE` is set to nothing, or where neither it nor
    `XDG_CACHE_HOME` nor the home folder is known. As the XDG specification asks, a relative
    `XDG_CACHE_HOME` counts as none: nothing lands in the working directory by chance.
    """
    named = os.environ.get("PATHCLIP_CACHE")
    if named == "":
        return None
    if named is not None:
        try:
            return Path(named).expanduser()
        except RuntimeError:  # '~' where no home folder is known, '~name' of no user
            return None
    home = os.environ.get("HOME") or os.environ.get("USERPROFILE")  # the latter on Windows
    bases = [Path(os.environ.get("XDG_CACHE_HOME", "")), Path(home or "") / ".cache"]
    return next((base / "pathclip" for base in bases if base.is_absolute()), None)
