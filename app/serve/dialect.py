"""What the server needs of a dialect. It calls these; a dialect never calls the server.

A stream goes `begin`, then any number of `wait` (while the prompt is queued or read) and `add`, then `end` or
`fail`. Each returns the bytes to send now, possibly none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from app.serve.answer import Answer, AnswerPiece
from app.serve.errors import ServeError
from app.serve.request import AnswerRequest


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """Known before the first token, and repeated in every part of an answer."""

    id: str
    """Random hexadecimal digits; a dialect puts its own prefix before them."""
    created_s: int
    """Seconds since 1970."""
    model: str
    prompt_tokens: int
    """Counted before the headers are sent."""


class AnswerStream(Protocol):
    """Writes one streamed answer as server-sent events."""

    def begin(self) -> bytes:
        """What is sent with the headers, before any token."""
        ...

    def wait(self) -> bytes:
        """A sign of life, in the form that this dialect's clients count."""
        ...

    def add(self, piece: AnswerPiece) -> bytes: ...

    def end(self, answer: Answer) -> bytes:
        """All that is left, the end mark included. `answer` repeats what was added."""
        ...

    def fail(self, error: ServeError) -> bytes:
        """The answer ends here, and the client must see that it is not whole."""
        ...


class Dialect(Protocol):
    """One API."""

    def read(self, body: Mapping[str, Any]) -> AnswerRequest:
        """Raises BadRequestError naming the field."""
        ...

    def whole(self, request: AnswerRequest, head: AnswerHead, answer: Answer) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        ...

    def stream(self, request: AnswerRequest, head: AnswerHead) -> AnswerStream: ...

    def error(self, error: ServeError) -> dict[str, Any]:
        """The body of an error, for any status."""
        ...
