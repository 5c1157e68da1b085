"""As much of the Hugging Face hub as its client needs to fetch a model, on the loopback interface."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", "v1", COMMIT)


@contextlib.contextmanager
def hub(repositories: Mapping[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """Yields the address, and the list of files that were asked for so far.

    Args:
        repositories: 'org/name' → folder with its files.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """No words on stderr."""

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path).strip("/")
            if path.startswith("api/models/"):
                return self._api(path.removeprefix("api/models/"))
            parts = path.split("/")
            name, file = "/".join(parts[:2]), "/".join(parts[4:])
            if name not in repositories or parts[2:3] != ["resolve"] or parts[3] not in REVISIONS:
                return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
            if not (repositories[name] / file).is_file():
                return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            content = (repositories[name] / file).read_bytes()
            if body:
                asked.append(f"{name}/{file}")
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            return self._send(200, content, headers, body)

        def _api(self, path: str) -> None:
            parts = path.split("/")
            name, rest = "/".join(parts[:2]), parts[2:]
            if name not in repositories:
                return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            if len(rest) > 1 and rest[1] not in REVISIONS:
                return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            folder = repositories[name]
            files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
            listed = [(file.relative_to(folder).as_posix(), file.stat().st_size) for file in files]
            if rest[:1] == ["tree"]:
                tree = [{"type": "file", "path": one, "size": size, "oid": "0" * 40} for one, size in listed]
                return self._send(200, json.dumps(tree).encode(), {})
            siblings = [{"rfilename": one, "size": size, "blobId": "0" * 40} for one, size in listed]
            info = {"id": name, "modelId": name, "sha": COMMIT, "private": False, "siblings": siblings}
            return self._send(200, json.dumps({**info, "tags": [], "downloads": 0}).encode(), {})

        def _send(self, status: int, content: bytes, headers: Mapping[str, str], body: bool = True) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if body and self.command != "HEAD":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
