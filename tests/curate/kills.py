"""Stops a piece of code at its n-th step, as a kill would, for tests that then let it go on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FILE_CHANGES = ((Path, "replace"), (Path, "unlink"))


class _Database(sqlite3.Connection):
    """A connection whose `commit` can be replaced, which sqlite3's own cannot."""

    def commit(self) -> None:
        super().commit()


COMMITS = ((_Database, "commit"),)


@contextmanager
def killed_at(step: int, places: Iterable[tuple[Any, str]]) -> Iterator[list[str]]:
    """Lets the n-th call of any of the named functions raise before it does anything.

    Args:
        step: counted from 1.
        places: (object, name of its function).

    Yields:
        The calls so far; the block ends without an exception although it was killed.
    """
    calls: list[str] = []

    def stopping(name: str, action: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            if len(calls) == step:
                raise KeyboardInterrupt
            return action(*arguments, **options)

        return act

    connect, connections = sqlite3.connect, []

    def noted(*arguments: Any, **options: Any) -> sqlite3.Connection:
        opened = connect(*arguments, factory=_Database, **options)
        if not options.get("uri"):  # those are for reading alone, and are kept from one run to the next
            connections.append(opened)
        return opened

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", noted)
        for owner, name in places:
            patch.setattr(owner, name, stopping(name, getattr(owner, name)))
        try:
            yield calls
        except KeyboardInterrupt:
            calls.append("killed")
            for connection in connections:  # which a process that is really killed would not hold on to
                connection.close()
