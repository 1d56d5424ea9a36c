"""Answers as the engine would give them, written by a dialect, and read again as a client reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2

from app.serve.answer import Answer, AnswerPiece, Drafting, EndReason, Usage
from app.serve.dialect import AnswerHead, Dialect
from app.serve.errors import ServeError
from app.serve.request import AnswerRequest

HEAD = AnswerHead(id="5f3a", created_s=1_790_000_000, model="gemma-4", prompt_tokens=30)
USAGE = Usage(prompt_tokens=30, cached_tokens=20, disk_tokens=5, completion_tokens=12, thinking_tokens=4)
DRAFTING = Drafting(
    drafter="assistant",
    drafted_tokens=16,
    accepted_tokens=8,
    rounds=4,
    tokens_per_round=3.0,
    speedup=2.1,
    tokens_per_s=41.5,
    ttft_s=0.25,
    cached_tokens=20,
    disk_tokens=5,
    read_tokens=10,
    queued_s=0.0,
)


def answer_of(pieces: Sequence[AnswerPiece], reason: EndReason = "stop", stop_string: str | None = None) -> Answer:
    """What these pieces add up to."""
    return Answer(
        text="".join(piece.text for piece in pieces),
        thinking="".join(piece.thinking for piece in pieces),
        calls=tuple(call for piece in pieces for call in piece.calls),
        reason=reason,
        stop_string=stop_string,
        usage=USAGE,
        drafting=DRAFTING,
    )


def streamed(
    dialect: Dialect,
    request: AnswerRequest,
    pieces: Sequence[AnswerPiece],
    reason: EndReason = "stop",
    error: ServeError | None = None,
) -> bytes:
    """A whole stream, with a sign of life before each piece. error: how it ends instead."""
    stream = dialect.stream(request, HEAD)
    written = stream.begin()
    for piece in pieces:
        written += stream.wait() + stream.add(piece)
    return written + (stream.fail(error) if error else stream.end(answer_of(pieces, reason)))


def data_of(stream: bytes) -> list[Any]:
    """The data of each event as clients read it: comments are skipped, `[DONE]` stays text."""
    return [data for _, data in events_of(stream)]


def events_of(stream: bytes) -> list[tuple[str | None, Any]]:
    """Name and data of each event."""
    events: list[tuple[str | None, Any]] = []
    *blocks, rest = stream.decode().split("\n\n")
    assert not rest, "the stream ends inside an event"
    for block in blocks:
        lines = [line for line in block.split("\n") if not line.startswith(":")]
        fields = dict(line.split(": ", 1) for line in lines)
        if "data" in fields:
            data = fields["data"]
            events.append((fields.get("event"), data if data == "[DONE]" else json.loads(data)))
    return events


class ScriptedEndpoint:
    """Answers every request with the same pieces, through the dialect of its path."""

    def __init__(self, dialects: Mapping[str, Dialect], pieces: Sequence[AnswerPiece], reason: EndReason) -> None:
        self._dialects = dialects
        self._pieces, self._reason = pieces, reason
        self.error: ServeError | None = None
        """Streams fail with it."""

    def respond(self, request: httpx2.Request) -> httpx2.Response:
        """For a client's transport."""
        dialect = self._dialects[request.url.path]
        try:
            read = dialect.read(json.loads(request.content))
        except ServeError as error:
            return httpx2.Response(error.status, json=dialect.error(error))
        if not read.is_streamed:
            return httpx2.Response(200, json=dialect.whole(read, HEAD, answer_of(self._pieces, self._reason)))
        stream = streamed(dialect, read, self._pieces, self._reason, self.error)
        return httpx2.Response(200, content=stream, headers={"content-type": "text/event-stream"})
