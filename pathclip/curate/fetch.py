"""Downloads the pictures that posts name by URL: bounded, polite, and nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from pathclip.curate.fetch_http import Budget, Downloader
from pathclip.curate.fetch_network import Resolve, system_resolve
from pathclip.curate.fetch_policy import Failure, FetchSettings, pause, unreachable
from pathclip.curate.fetch_store import PictureStore
from pathclip.errors import DataError
from pathclip.types import Media

# Requests taken ahead of the answers, per request that may be under way: enough to find pictures of other
# hosts behind a long run of one host's.
_AHEAD = 8


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of one request.

    Attributes:
        key: of the request.
        url: of the request; '' if it had none.
        path: the picture, None if there is none.
        reason: '' | 'image_unreachable' | 'image_opted_out' | 'image_undecodable'.
        detail: what was seen, in words.
        attempts: how often it was tried, redirects not counted; 0 with `from_disk`.
        from_disk: nothing was asked for: the folder had the picture or its failure, or an equal URL was
            under way.
    """

    key: str
    url: str
    path: Path | None
    reason: str = ""
    detail: str = ""
    attempts: int = 0
    from_disk: bool = False


def fetch(
    requests: Iterable[Media | tuple[str, str]],
    folder: Path | str,
    settings: FetchSettings,
    resolve: Resolve = system_resolve,
) -> Iterator[Fetched]:
    """Yields one `Fetched` for every request, as they are done: match them by key, the order is open.

    Pictures lie at `folder`/ab/<SHA-256 of the URL>.<suffix of their content>; what is there is not asked for
    again, nor is what failed for good (404, 410, an opt-out, no picture, too large), unless the setting that
    it failed by was loosened since or `retry_failed` is set. Other failures are tried again by the next run.

    Requests are drawn in the thread of the caller, a bounded number ahead. The downloading goes on in a
    thread of its own while the caller works on a result, and ends with the generator: closing it early, or
    Ctrl-C, breaks off what is under way and leaves no half picture.

    Args:
        requests: pictures of posts, or (key, URL); keys need not be unique.
        folder: made if needed; two runs may share it.
        settings: limits and manners.
        resolve: from host and port to addresses.

    Raises:
        DataError: the folder cannot be written, or the disk is full.
    """
    window = _AHEAD * settings.concurrency
    store = PictureStore(Path(folder), settings)
    with _Session(store, settings, resolve) as session:
        for request in requests:
            key, url = (request.key, request.url or "") if isinstance(request, Media) else request
            known = store.find(url) if url else Failure("image_unreachable", "no URL")
            if known is None:
                session.submit(key, url)
            else:
                yield _fetched(key, url, known, 0)
            yield from session.done(waiting_at_most=window - 1)
        yield from session.done(waiting_at_most=0)


def _fetched(key: str, url: str, found: Path | Failure, attempts: int) -> Fetched:
    if isinstance(found, Failure):
        return Fetched(key, url, None, found.reason, found.detail, attempts, attempts == 0)
    return Fetched(key, url, found, attempts=attempts, from_disk=attempts == 0)


class _Session:
    """The thread that downloads, and the queue on which its results come back."""

    def __init__(self, store: PictureStore, settings: FetchSettings, resolve: Resolve):
        self._store = store
        self._settings = settings
        self._resolve = resolve
        self._results: SimpleQueue[Fetched | BaseException] = SimpleQueue()
        self._waiting = 0
        self._keys: dict[str, list[str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        # A generator that nobody closes must not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name="fetch", daemon=True)

    def __enter__(self) -> _Session:
        self._thread.start()
        self._ready.wait()
        if not self._results.empty():  # it could not begin
            list(self.done(waiting_at_most=0))
        return self

    def __exit__(self, *raised: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the thread has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def submit(self, key: str, url: str) -> None:
        """Hands a request over to the thread."""
        self._waiting += 1
        self._loop.call_soon_threadsafe(self._begin, key, url)

    def done(self, waiting_at_most: int) -> Iterator[Fetched]:
        """Results that are there, and further ones until so few requests are open.

        Raises:
            BaseException: what ended the thread.
        """
        while self._waiting > waiting_at_most or not self._results.empty():
            result = self._results.get()
            if isinstance(result, BaseException):
                raise result
            self._waiting -= 1
            yield result

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # to be raised where somebody sees it
            self._results.put(error)
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        with Downloader(self._store, self._settings, self._resolve) as self._downloader:
            self._loop = asyncio.get_running_loop()
            self._ready.set()
            await self._stop.wait()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, key: str, url: str) -> None:
        if url in self._keys:
            self._keys[url].append(key)
            return
        self._keys[url] = [key]
        task = self._loop.create_task(self._answer(url))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, url: str) -> None:
        try:
            found, attempts = await self._get(url)
        except (DataError, OSError) as error:  # of the folder: nothing more can be kept
            self._results.put(error)
            return
        except Exception as error:  # of one URL, which must not end the others
            found, attempts = unreachable(f"{type(error).__name__}: {error}"), 1
        first, *others = self._keys.pop(url)
        result = _fetched(first, url, found, attempts)
        self._results.put(result)
        for key in others:
            self._results.put(replace(result, key=key, attempts=0, from_disk=True))

    async def _get(self, url: str) -> tuple[Path | Failure, int]:
        # An equal URL may have been finished after `fetch` looked.
        if (known := self._store.find(url)) is not None:
            return known, 0
        budget = Budget(self._settings.total_timeout)
        for attempt in itertools.count(1):
            try:
                return await self._downloader.attempt(url, budget), attempt
            except Failure as error:
                failure = error
            wait = max(failure.after, pause(url, attempt, self._settings.backoff))
            if not failure.again or attempt > self._settings.retries or wait >= budget.left:
                break
            budget.left -= wait
            await asyncio.sleep(wait)
        if failure.lasting:
            await self._downloader.remember(url, failure)
        return failure, attempt
