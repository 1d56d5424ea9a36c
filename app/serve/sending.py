"""Sends one answer to its client, streamed or whole, and notices when the client leaves."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.serve.answer import Answer
from app.serve.answering import AnswerMaker
from app.serve.dialect import AnswerHead, AnswerStream, Dialect
from app.serve.errors import ServeError, ServerEndedError
from app.serve.job import Job

FIRST_SIGN_S = 1.0
NEXT_SIGN_S = 10.0
"""Between two signs of life. Clients give up after 60 seconds and more; some proxies after 30."""
LAST_WORDS_S = 1.0
"""How long a client may take to read that the server ends."""
NO_PATIENCE_S = 3600.0
"""Whoever wants a whole answer gets no signs of life."""
STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


def json_response(
    body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A response with a JSON body."""
    content = json.dumps(body, ensure_ascii=False).encode()
    return Response(content, status, headers, "application/json")


def error_response(error: ServeError, body: Mapping[str, Any] | None = None) -> Response:
    """The response for an error. body: in a dialect's form."""
    headers = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
    if error.status in (408, 413, 429):
        headers["connection"] = "close"  # the rest of the request is not read
    return json_response(error.body if body is None else body, error.status, headers)


class AnswerResponse(Response):
    """The response to one job. Whoever sends it waits until the answer is complete, or the client gone."""

    def __init__(self, answering: AnswerMaker, job: Job, dialect: Dialect) -> None:
        self._answering, self._job, self._dialect = answering, job, dialect
        head = AnswerHead(job.id, int(time.time()), job.request.model, job.checked.prompt_tokens)
        self._head, self._stream = head, dialect.stream(job.request, head)
        self._is_begun = False
        """Headers were sent."""
        super().__init__()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See Response."""
        sending = asyncio.create_task(self._send(scope, receive, send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            if self._job.outcome is None:
                sending.cancel()  # the client has left
            with suppress(asyncio.CancelledError):
                await sending
        except asyncio.CancelledError:
            # The server is being ended, and nobody waits any longer for this answer to be whole.
            sending.cancel()
            await asyncio.wait((sending,))
            if sending.cancelled():
                with suppress(TimeoutError):
                    async with asyncio.timeout(LAST_WORDS_S):
                        await self._give_up(scope, receive, send)
            raise
        finally:
            leaving.cancel()
            if self._job.outcome is None:
                self._answering.leave(self._job)

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._job.request.is_streamed:
            await self._send_stream(send)
        else:
            response = await self._whole()
            self._is_begun = True
            await response(scope, receive, send)

    async def _give_up(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = ServerEndedError()
        if not self._is_begun:
            await error_response(error, self._dialect.error(error))(scope, receive, send)
        elif self._job.request.is_streamed:
            await send({"type": "http.response.body", "body": self._stream.fail(error), "more_body": False})

    async def _whole(self) -> Response:
        while self._job.outcome is None:
            await self._job.take(NO_PATIENCE_S)
        outcome = self._job.outcome
        if isinstance(outcome, Answer):
            return json_response(self._dialect.whole(self._job.request, self._head, outcome))
        return error_response(outcome, self._dialect.error(outcome))

    async def _send_stream(self, send: Send) -> None:
        stream = self._stream
        headers = [(name.encode(), value.encode()) for name, value in STREAM_HEADERS.items()]
        self._is_begun = True
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await _send_part(send, stream.begin())
        patience_s = FIRST_SIGN_S
        while self._job.outcome is None or not self._job.is_taken:
            piece = await self._job.take(patience_s)
            await _send_part(send, stream.wait() if piece is None else stream.add(piece))
            patience_s = NEXT_SIGN_S
        await send({"type": "http.response.body", "body": _end(stream, self._job.outcome), "more_body": False})


async def _send_part(send: Send, data: bytes) -> None:
    if data:
        await send({"type": "http.response.body", "body": data, "more_body": True})


def _end(stream: AnswerStream, outcome: Answer | ServeError) -> bytes:
    return stream.end(outcome) if isinstance(outcome, Answer) else stream.fail(outcome)


async def _left(receive: Receive) -> None:
    """Wait until the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
