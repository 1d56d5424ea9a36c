"""A server of chat completions on the loopback address that does what a test says, the wrong things included."""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

Answer = Callable[[], Response]
DONE = "[DONE]"


def chunk(text: str | None = None, *, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """One message of a stream. fields: beside its choices; `delta` replaces the text."""
    delta = fields.pop("delta", {} if text is None else {"content": text})
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **fields}  # fmt: skip


def usage(prompt: int, completion: int) -> dict[str, Any]:
    """The message at the end that counts tokens."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {**chunk(), "choices": [], "usage": counts}


HELLO = (chunk("Hel"), chunk("lo"), chunk(finish="stop"), usage(3, 2), DONE)
"""A whole answer."""


def stream(*messages: Any, breaks: bool = False, headers: Mapping[str, str] | None = None) -> Answer:
    """Messages, then the end of the body; breaks: then a connection that is cut in the middle."""

    async def body() -> AsyncIterator[bytes]:
        for message in messages:
            data = message if isinstance(message, str) else json.dumps(message)
            yield f"data: {data}\n\n".encode()
        if breaks:
            raise ConnectionResetError

    return lambda: StreamingResponse(body(), media_type="text/event-stream", headers=headers)


def refusal(status: int, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer with an error's status."""
    return lambda: JSONResponse(body, status, headers)


class Stuck:
    """Some messages, then silence until the client leaves."""

    def __init__(self, *messages: Any) -> None:
        self._messages = messages
        self.has_left = threading.Event()

    def __call__(self) -> Response:
        return StreamingResponse(self._body(), media_type="text/event-stream")

    async def _body(self) -> AsyncIterator[bytes]:
        import asyncio

        try:
            for message in self._messages:
                yield f"data: {json.dumps(message)}\n\n".encode()
            await asyncio.Event().wait()
        finally:
            self.has_left.set()


class ChatServer:
    """Answers with the next of `answers`, and HELLO when there is none left."""

    def __init__(self, models: Iterable[Mapping[str, Any]] = ({"id": "m"},)) -> None:
        self.models: Any = {"object": "list", "data": list(models)}
        self.models_status = 200
        self.model_headers: dict[str, str] = {}
        self.answers: deque[Answer] = deque()
        self.bodies: list[dict[str, Any]] = []
        """Of the requests for a reply."""
        self.headers: list[Mapping[str, str]] = []
        """Of all requests."""
        self.metrics: deque[str] = deque()
        """What /metrics says next; empty: there is no such page."""
        self.pages: dict[str, Any] = {}
        """What other paths say: a text, or an object as JSON."""
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        routes = [
            Route("/v1/models", self._list),
            Route("/v1/chat/completions", self._answer, methods=["POST"]),
            Route("/metrics", self._metrics),
            Route("/api/v0/models", self._list),
            Route("/{path:path}", self._page),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes), log_level="critical", lifespan="off", server_header=False, access_log=False
        )
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> ChatServer:
        self._socket.listen()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Close all connections, as a server that is killed."""
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()
        self._socket.close()

    async def _list(self, request: Request) -> Response:
        self.headers.append(request.headers)
        return JSONResponse(self.models, self.models_status, self.model_headers)

    async def _answer(self, request: Request) -> Response:
        self.headers.append(request.headers)
        self.bodies.append(await request.json())
        return (self.answers.popleft() if self.answers else stream(*HELLO))()

    async def _metrics(self, request: Request) -> Response:
        self.headers.append(request.headers)
        return (
            PlainTextResponse(self.metrics.popleft() if len(self.metrics) > 1 else self.metrics[0])
            if (self.metrics)
            else PlainTextResponse("none", 404)
        )

    async def _page(self, request: Request) -> Response:
        self.headers.append(request.headers)
        page = self.pages.get(request.url.path)
        if page is None:
            return PlainTextResponse("none", 404)
        return PlainTextResponse(page) if isinstance(page, str) else JSONResponse(page)
