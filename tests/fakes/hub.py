"""A hub on 127.0.0.1: model listings, files behind redirects, ranges, and whatever can go wrong with them.

Large files are served by a second server on another port, as the real hub's are by another host. A fault is
planned for the requests whose path contains a word; each is used up by one request, in order.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

COMMIT = "c0ffee" * 6 + "c0ff"
LARGE = (".safetensors", "tokenizer.json")


@dataclass(frozen=True)
class Status:
    """An answer that is not the file."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cut:
    """The connection ends after this many bytes of the body."""

    after_bytes: int


@dataclass(frozen=True)
class Stall:
    """After this many bytes nothing more comes until the gate opens."""

    after_bytes: int
    gate: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Wrong:
    """A body of the right size with one byte changed."""


@dataclass(frozen=True)
class Gzipped:
    """The body in an encoding that was not asked for."""


@dataclass(frozen=True)
class NoRange:
    """The whole body, whatever range was asked for."""


@dataclass(frozen=True)
class OtherRange:
    """A partial answer with this Content-Range, or with none, and the body from the start."""

    content_range: str | None


Fault = Status | Cut | Stall | Wrong | Gzipped | NoRange | OtherRange


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    server: str
    path: str
    range: str | None
    token: str | None


class FakeHub:
    """Repositories as dicts of bytes; see `serve`."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.asked: list[Asked] = []
        self.faults: list[tuple[str, Fault]] = []
        self.url = self.storage_url = ""
        self.listing_changes: dict[str, Any] = {}
        self._lock = threading.Lock()

    def fail(self, path: str, *faults: Fault) -> None:
        """Plan faults for the next requests whose path contains `path`."""
        self.faults += [(path, fault) for fault in faults]

    def next_fault(self, path: str) -> Fault | None:
        """Use up the first fault that is planned for a path."""
        with self._lock:
            for index, (word, fault) in enumerate(self.faults):
                if word in path:
                    del self.faults[index]
                    return fault
        return None

    def asked_for(self, word: str) -> list[Asked]:
        """The requests whose path contains a word."""
        return [one for one in self.asked if word in one.path]

    def listing(self, repo: str) -> dict[str, Any]:
        """What the hub's API says of a repository."""
        siblings = [_sibling(name, data) for name, data in self.repos[repo].items()]
        return {"id": repo, "sha": COMMIT, "siblings": siblings} | self.listing_changes

    def find(self, path: str) -> bytes | None:
        """The content that a path of the storage or of the hub names."""
        kind, _, name = path.strip("/").partition("/")
        for repo, files in self.repos.items():
            for file, data in files.items():
                if kind == "blob" and hashlib.sha256(data).hexdigest() == name:
                    return data
                if path == f"/cached/{repo}/{file}":
                    return data
        return None


def _sibling(name: str, data: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    made: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": blob}
    if name.endswith(LARGE):
        made["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return made


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub
    name: str

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(Asked(self.name, path, self.headers.get("Range"), self.headers.get("Authorization")))
        fault = self.hub.next_fault(path)
        if isinstance(fault, Status):
            self._answer(fault.code, b"", dict(fault.headers))
        elif path.startswith("/api/models/"):
            self._describe(path.removeprefix("/api/models/"))
        elif "/resolve/" in path:
            self._redirect(path)
        else:
            self._send(self.hub.find(path), fault)

    def _describe(self, rest: str) -> None:
        repo, _, revision = rest.partition("/revision/")
        if repo not in self.hub.repos:
            self._answer(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("", "main", COMMIT):
            self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            self._answer(200, msgspec.json.encode(self.hub.listing(repo)), {"Content-Type": "application/json"})

    def _redirect(self, path: str) -> None:
        repo, _, rest = path.strip("/").partition("/resolve/")
        name = rest.partition("/")[2]
        data = self.hub.repos[repo][name]
        if name.endswith(LARGE):
            goal = f"{self.hub.storage_url}/blob/{hashlib.sha256(data).hexdigest()}"
        else:
            goal = f"/cached/{repo}/{name}"
        self._answer(302, b"", {"Location": goal})

    def _send(self, data: bytes | None, fault: Fault | None) -> None:
        if data is None:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        start, headers = 0, {}
        asked = self.headers.get("Range")
        if asked and not isinstance(fault, NoRange):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                self._answer(416, b"", {})
                return
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body, code = data[start:], 206 if "Content-Range" in headers else 200
        match fault:
            case OtherRange(content_range):
                body, code = data, 206
                headers = {} if content_range is None else {"Content-Range": content_range}
            case Wrong():
                body = body[:-1] + bytes([body[-1] ^ 1])
            case Gzipped():
                body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
        self._answer(code, body, headers, fault)

    def _answer(self, code: int, body: bytes, headers: Mapping[str, str], fault: Fault | None = None) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        match fault:
            case Cut(after_bytes):
                self.wfile.write(body[:after_bytes])
                self.close_connection = True
                return
            case Stall(after_bytes, gate):
                self.wfile.write(body[:after_bytes])
                self.wfile.flush()
                gate.wait()
                body = body[after_bytes:]
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # the client was stopped, which is what is being tested


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hangs up in the middle is the usual case here


@contextmanager
def serve() -> Iterator[FakeHub]:
    """A hub and its storage, until the block ends."""
    hub = FakeHub()
    servers = []
    for name in ("hub", "storage"):
        handler = type("Handler", (_Handler,), {"hub": hub, "name": name})
        server = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
    hub.url, hub.storage_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
