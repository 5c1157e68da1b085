"""One picture over HTTP: to checked addresses only, hop by hop, and never more bytes than allowed.

There is no client of httpx below, only its URLs and headers: redirects, cookies, proxies, netrc and the
decoding of contents would have to be switched off, it has no place for checking an address between look-up
and connection, and its pool looks at every idle connection at every request.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import h11
import httpx

from pathclip.curate.fetch_network import Connection, Network, Resolve
from pathclip.curate.fetch_policy import (
    Failure,
    FetchSettings,
    opt_out,
    parse_url,
    retry_after,
    unreachable,
)
from pathclip.curate.fetch_store import ENOUGH_TO_TELL, PictureStore, check_kind, opted_out_failure

REDIRECTS = frozenset({301, 302, 303, 307, 308})
GONE = frozenset({404, 410})
MAY_PASS = frozenset({408, 425, 429})
# A shorter body of an answer without picture is read, so that the connection can be used again.
_SHORT_BODY = 16 * 1024


@dataclass(slots=True)
class Host:
    """What is under way with one host: `free_at` is the loop's time from which it may be asked again."""

    slots: asyncio.Semaphore
    users: int = 0
    free_at: float = 0.0


@dataclass(slots=True)
class Budget:
    """Seconds that are left for a picture."""

    left: float


class Turns:
    """Grants requests: so many in all, so many to one host, and to a host no faster than it wishes."""

    def __init__(self, settings: FetchSettings):
        self._settings = settings
        self._total = asyncio.Semaphore(settings.concurrency)
        self._hosts: dict[str, Host] = {}

    @contextlib.asynccontextmanager
    async def take(self, name: str) -> AsyncIterator[Host]:
        """Waits until `name` may be asked, and counts as one request until the block ends."""
        now = asyncio.get_running_loop().time
        host = self._hosts.setdefault(name, Host(asyncio.Semaphore(self._settings.per_host)))
        host.users += 1
        try:
            # The host first: who waits for a busy host must not keep others from theirs.
            async with host.slots:
                while (wait := host.free_at - now()) > 0:
                    await asyncio.sleep(wait)
                host.free_at = max(host.free_at, now() + self._settings.per_host_delay)
                async with self._total:
                    yield host
        finally:
            host.users -= 1
            self._forget(now())

    def _forget(self, now: float) -> None:
        """Drops hosts that nobody waits for: a dump may name any number of them."""
        if len(self._hosts) > 4 * self._settings.concurrency:
            for name in [
                name for name, host in self._hosts.items() if not host.users and host.free_at <= now
            ]:
                del self._hosts[name]


class Downloader:
    """Downloads pictures into a store; a context manager that holds connections and threads."""

    def __init__(self, store: PictureStore, settings: FetchSettings, resolve: Resolve):
        self._store = store
        self._settings = settings
        self._disk_threads = ThreadPoolExecutor(8, "fetch-store")
        self._turns = Turns(settings)
        self._network = Network(resolve, settings.allow_private, settings.timeout, settings.concurrency)

    def __enter__(self) -> Downloader:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._network.close()
        self._disk_threads.shutdown()

    async def remember(self, text: str, failure: Failure) -> None:
        """Writes a lasting failure down."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._disk_threads, self._store.remember, text, failure)

    async def attempt(self, text: str, budget: Budget) -> Path:
        """Asks once for a picture, following redirects.

        Args:
            text: the URL as the dump has it.
            budget: time that it may take; what it took is taken off.

        Raises:
            Failure: there is none, or not in time.
        """
        with self._store.unfinished() as picture:
            opted_out = await self._follow(parse_url(text), picture, budget)
            loop = asyncio.get_running_loop()
            keeping = loop.run_in_executor(self._disk_threads, self._store.keep, text, picture, opted_out)
            try:
                return await asyncio.shield(keeping)
            except asyncio.CancelledError:
                # The thread goes on: the file must not be taken from under it.
                await asyncio.wait([keeping])
                raise

    async def _follow(self, url: httpx.URL, picture: IO[bytes], budget: Budget) -> str:
        """Downloads into `picture`; returns the server's opt-out, where that is not respected."""
        now = asyncio.get_running_loop().time
        limit = self._settings.max_redirects
        for _ in range(limit + 1):
            async with self._turns.take(url.host) as host:
                began = now()
                try:
                    async with asyncio.timeout(budget.left):
                        found = await self._ask(url, host, picture)
                except TimeoutError:
                    raise unreachable(
                        f"not there within the {self._settings.total_timeout:g} s allowed"
                    ) from None
                finally:
                    budget.left -= now() - began
            if isinstance(found, str):
                return found
            url = found
        detail = f"more than {limit} redirects"
        raise Failure("image_unreachable", detail, lasting=True, settings={"max_redirects": limit})

    async def _ask(self, url: httpx.URL, host: Host, picture: IO[bytes]) -> str | httpx.URL:
        """One request: downloads the picture, or says where the server has it."""
        connection, answer = await self._answer(url)
        try:
            headers = httpx.Headers(answer.headers.raw_items())
            if answer.status_code == 200:
                return await self._receive(connection, headers, picture)
            await _read_short_body(connection, headers)
            if answer.status_code in REDIRECTS and "location" in headers:
                return _redirected(url, headers["location"])
            raise self._refusal(answer.status_code, headers, host)
        finally:
            self._network.give_back(url, connection)

    async def _answer(self, url: httpx.URL) -> tuple[Connection, h11.Response]:
        sent = [
            (b"Host", url.netloc),
            (b"User-Agent", self._settings.user_agent.encode("ascii")),
            (b"Accept", b"image/*"),
            (b"Accept-Encoding", b"identity"),  # what is not compressed cannot swell
        ]
        idle = self._network.take(url)
        connection = idle or await self._network.connect(url)
        try:
            return connection, await connection.ask(url.raw_path, sent)
        except BaseException as error:
            # An idle connection may be closed just when it is used: no failure of this picture.
            closed = idle is not None and isinstance(error, Failure) and connection.is_over
            connection.close()
            if not closed:
                raise
        return await self._answer(url)

    def _refusal(self, status: int, headers: httpx.Headers, host: Host) -> Failure:
        if status in MAY_PASS or status >= 500:
            wait = retry_after(headers.get("retry-after", ""), datetime.now(UTC))
            wait = min(wait, self._settings.max_retry_after)
            # It asks this of everyone, so the other pictures of this host wait too.
            host.free_at = max(host.free_at, asyncio.get_running_loop().time() + wait)
            return Failure("image_unreachable", f"HTTP {status}", again=True, after=wait)
        return Failure("image_unreachable", f"HTTP {status}", lasting=status in GONE)

    async def _receive(self, connection: Connection, headers: httpx.Headers, picture: IO[bytes]) -> str:
        settings = self._settings
        opted_out = opt_out(headers, settings.agent)
        if opted_out and settings.respect_opt_outs:
            raise opted_out_failure(opted_out)
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise Failure("image_undecodable", f"compressed as '{encoding[:20]}', unasked", lasting=True)
        declared = headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared[:18]) > settings.max_bytes:
            raise _too_large(settings.max_bytes)
        await _save(connection, picture, settings.max_bytes)
        return opted_out


async def _save(connection: Connection, picture: IO[bytes], max_bytes: int) -> None:
    """Writes a body as it comes, as long as it looks like a picture of an allowed size."""
    head, size = b"", 0
    while chunk := await connection.read():
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        if len(head) < ENOUGH_TO_TELL:
            head += chunk
            if len(head) >= ENOUGH_TO_TELL:
                check_kind(head)
        picture.write(chunk)
    if len(head) < ENOUGH_TO_TELL:
        raise Failure("image_undecodable", f"ends after {len(head)} bytes", lasting=True)


def _too_large(max_bytes: int) -> Failure:
    return Failure(
        "image_undecodable",
        f"larger than the {max_bytes} bytes allowed",
        lasting=True,
        settings={"max_bytes": max_bytes},
    )


def _redirected(url: httpx.URL, location: str) -> httpx.URL:
    try:
        return parse_url(str(url.join(location)))
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise unreachable("redirected to what is not a URL") from None
    except Failure as failure:
        raise unreachable(f"redirected: {failure.detail}") from None


async def _read_short_body(connection: Connection, headers: httpx.Headers) -> None:
    declared = headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:18]) <= _SHORT_BODY:
        while await connection.read():
            pass
