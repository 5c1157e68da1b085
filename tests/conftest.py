"""Small real inputs that several tests share."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny_model import tiny_model  # noqa: F401

# A suite that runs as a background job inherits that Ctrl-C is ignored, and so would the programs it starts.
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    and threading.current_thread() is threading.main_thread()
):
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Features that tests compute go into a folder of theirs, never into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHCLIP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real pictures; tests that ask for it are skipped where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PATHCLIP_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}; set PATHCLIP_SHARED_DATA")
    return folder


@pytest.fixture
def call(capsys):
    """Runs a command in this process; gives status, stdout and the lines of stderr."""

    def run(*arguments) -> tuple[int, str, list[str]]:
        from pathclip import cli

        status = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err.splitlines()

    return run
