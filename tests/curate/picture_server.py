"""A server of pictures on the loopback that misbehaves as told, and counts what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Asked:
    """One request; `number` counts those for the same path from 1."""

    path: str
    number: int
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What to send, and how to do it badly.

    Attributes:
        length: Content-Length if it shall not be that of the body; -1 sends none and closes at the end.
        wait: seconds before the first byte.
        stall: seconds of silence after the body, before the connection is closed.
        endless: repeat the body until the client has gone.
        trickle: seconds between the bytes of the body.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "image/jpeg"})
    length: int | None = None
    wait: float = 0.0
    stall: float = 0.0
    endless: bool = False
    trickle: float = 0.0


Route = Answer | Callable[[Asked], Answer]


class PictureServer:
    """Use as a context manager; `url('/a.jpg')` names a route, `requests['/a.jpg']` counts its requests."""

    def __init__(self, routes: Mapping[str, Route]):
        self.routes = dict(routes)
        self.requests: Counter[str] = Counter()
        self.asked: list[Asked] = []
        self.connections = 0
        self.sent_bytes = 0
        self.under_way = 0
        self.most_under_way = 0
        self.port = 0

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def __enter__(self) -> PictureServer:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self.serve(0, ready.set)), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *raised: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def serve(self, port: int, ready: Callable[[], object]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", port, backlog=1000)
        self.port = server.sockets[0].getsockname()[1]
        ready()
        await self._stop.wait()
        server.close()
        for task in self._connections:
            task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._serve_one(reader, writer):
                pass
        writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        path = first.split(" ")[1]
        self.requests[path] += 1
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        asked = Asked(path, self.requests[path], headers)
        self.asked.append(asked)
        route = self.routes.get(path.partition("?")[0], Answer(b"gone", 404))
        answer = route if isinstance(route, Answer) else route(asked)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            return await self._send(writer, answer)
        finally:
            self.under_way -= 1

    async def _send(self, writer: asyncio.StreamWriter, answer: Answer) -> bool:
        await asyncio.sleep(answer.wait)
        length = len(answer.body) if answer.length is None else answer.length
        # HTTP/1.0 lets the end of the connection end the body.
        lines = [f"HTTP/1.{int(length >= 0)} {answer.status} so be it"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        lines += [f"Content-Length: {length}"] if length >= 0 else []
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        if answer.trickle:
            writer.write(head)
            for byte in answer.body:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(answer.trickle)
        else:
            writer.write(head + answer.body)
        await writer.drain()
        self.sent_bytes += len(answer.body)
        while answer.endless:
            writer.write(answer.body)
            await writer.drain()
            self.sent_bytes += len(answer.body)
        if answer.stall:
            await asyncio.sleep(answer.stall)
        return length == len(answer.body) and not answer.stall
