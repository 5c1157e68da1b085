"""Where weights lie that are imported: a file, a folder, or a model of the hub that is fetched first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pathclip.errors import ConfigError, ModelFolderError
from pathclip.model.convert.hub import fetched, hub_id


@dataclass(frozen=True, slots=True)
class Source:
    """Weights that lie on this machine.

    Attributes:
        path: file or folder.
        name: of the file or folder without where it lies, or 'org/name' of the hub.
        revision: commit of the hub; None for what was here.
    """

    path: Path
    name: str
    revision: str | None = None


@contextlib.contextmanager
def located(source: str, revision: str | None = None) -> Iterator[Source]:
    """Yields what the user named; what comes from the hub lies in a folder that goes when the block ends.

    Args:
        source: a file, a folder, or 'org/name', which is asked of the hub only where no such path is.
        revision: branch, tag or commit of the hub.

    Raises:
        ModelFolderError: no such thing here, nor on the hub, or no network.
        ConfigError: a revision of what is here.
    """
    path = Path(source)
    if path.exists():
        if revision:
            raise ConfigError(f"--revision goes with a model of the hub; {source} is here")
        yield Source(path, path.resolve().name)
    elif repository := hub_id(source):
        with fetched(repository, revision) as model:
            yield Source(model.path, repository, model.revision)
    else:
        raise ModelFolderError(f"{source}: no such file or folder, and no model of the hub ('org/name')")
